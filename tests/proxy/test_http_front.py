"""Plain HTTP at the proxy: answers are the server's own, and no web page gets any."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import pytest
from e2e import tiny_models
from e2e.running_server import RunningServer
from proxy.local_proxy import local_proxy

import blindai

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.network

INFER = "/v2/models/doubler/infer"
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
OF_THE_SERVER = ("content-type", "allow", "retry-after", "accept-encoding", "www-authenticate", "cache-control")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as opened:
        yield opened


async def asked(session: aiohttp.ClientSession, method: str, url: str, **options: Any) -> tuple[int, Any, bytes]:
    async with session.request(method, url, **options) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_answers_come_as_the_server_gives_them(server: RunningServer, session: aiohttp.ClientSession) -> None:
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/v2", {}),
        ("GET", "/v2/models/doubler", {}),
        ("GET", "/v2/models/d%6Fubler", {}),
        ("GET", "/v2/models/doubler?verbose=1", {}),
        ("HEAD", "/v2/models/doubler", {}),
        ("HEAD", "/v2/models/nobody", {}),
        ("GET", "/v2/nowhere", {}),
        ("GET", "/v2/models/%2e%2e", {}),
        ("POST", "/v2", {}),
        ("DELETE", "/v2/models/doubler", {}),
        ("POST", "/v2/models/nobody/infer", {"json": ROW}),
        ("POST", INFER, {"json": ROW}),
        ("POST", INFER, {"data": gzip.compress(json.dumps(ROW).encode()), "headers": {"Content-Encoding": "gzip"}}),
        ("POST", INFER, {"data": b"x", "headers": {"Content-Encoding": "br"}}),
        ("POST", INFER, {"data": b"{"}),
        ("POST", INFER, {"json": ROW, "headers": {"If-Match": '"sha256:' + "0" * 64 + '"'}}),
        ("POST", INFER, {"json": ROW, "headers": {"blindai-deadline-ms": "soon"}}),
        ("POST", INFER, {"json": ROW, "headers": {"blindai-deadline-ms": "60000"}}),
        ("GET", "/v2/trace/setting", {}),
    ]
    async with local_proxy(server.url) as proxy:
        for method, path, options in requests:
            ours = await asked(session, method, proxy.http + path, **options)
            its = await asked(session, method, server.url + path, **options)
            assert ours[0] == its[0], (method, path)
            assert ours[2] == its[2], (method, path)
            for name in OF_THE_SERVER:
                assert ours[1].get(name) == its[1].get(name), (method, path, name)
            assert "server" not in ours[1]
            assert ours[1]["blindai-level"] == "simulated"
            assert ("blindai-receipt" in ours[1]) is (ours[0] < 400)


async def test_large_bodies_cross_both_ways(server: RunningServer, session: aiohttp.ClientSession) -> None:
    rows = np.arange(3 << 20, dtype=np.float32).reshape(-1, 3)  # 12 MiB
    entry = {"name": "x", "datatype": "FP32", "shape": list(rows.shape)}
    header = json.dumps(
        {
            "inputs": [{**entry, "parameters": {"binary_data_size": rows.nbytes}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    async with local_proxy(server.url) as proxy:
        status, headers, body = await asked(
            session,
            "POST",
            proxy.http + INFER,
            data=io.BytesIO(header + rows.tobytes()),
            headers={"Inference-Header-Content-Length": str(len(header))},
        )
    assert status == 200
    answer = np.frombuffer(body[int(headers["Inference-Header-Content-Length"]) :], np.float32)
    np.testing.assert_array_equal(answer.reshape(-1, 3), 2 * rows)


async def test_the_servers_limit_is_told_in_its_words(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    (tmp_path / "server.toml").write_text("max_body_bytes = 1000\n")
    server = RunningServer(tmp_path / "server.log", options=("--config", str(tmp_path / "server.toml")))
    try:
        with blindai.connect(server.url, insecure_simulation=True) as client:
            client.upload_model(tiny_models.times(tmp_path / "doubler.onnx", 2))
        async with local_proxy(server.url) as proxy:
            for size in (1001, 3_000_000):
                status, _, body = await asked(session, "POST", proxy.http + INFER, data=io.BytesIO(bytes(size)))
                assert (status, json.loads(body)["code"]) == (413, "too_large")
            assert (await asked(session, "POST", proxy.http + INFER, json=ROW))[0] == 200
    finally:
        server.stop()


async def test_only_programs_of_this_machine_are_answered(
    server: RunningServer, session: aiohttp.ClientSession
) -> None:
    async with local_proxy(server.url) as proxy:
        port = proxy.http.rpartition(":")[2]
        strangers = [
            {"Host": "evil.example"},
            {"Host": f"evil.example:{port}"},
            {"Host": "127.0.0.1.evil.example"},
            {"Host": "["},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://localhost.evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
        ]
        for headers in strangers:
            for path in ("/", "/v2", "/v2/health/live", INFER):
                status, _, body = await asked(session, "POST", proxy.http + path, headers=headers, json=ROW)
                assert (status, json.loads(body)["code"]) == (403, "forbidden"), headers
        for headers in ({}, {"Host": f"localhost:{port}"}, {"Host": "[::1]"}, {"Origin": f"http://127.0.0.1:{port}"}):
            assert (await asked(session, "POST", proxy.http + INFER, headers=headers, json=ROW))[0] == 200, headers


async def test_methods_beyond_the_seal_are_refused_in_json(
    server: RunningServer, session: aiohttp.ClientSession
) -> None:
    async with local_proxy(server.url) as proxy:
        for method in ("PUT", "PATCH", "OPTIONS", "TRACE"):
            status, headers, body = await asked(session, method, proxy.http + "/v2", headers={"X-Secret": "canary"})
            assert (status, headers["allow"]) == (405, "DELETE, GET, HEAD, POST")
            assert json.loads(body)["code"] == "method_not_allowed"
            assert b"canary" not in body


async def test_bytes_that_are_no_http_get_a_refusal_and_harm_nobody(
    server: RunningServer, session: aiohttp.ClientSession
) -> None:
    async with local_proxy(server.url) as proxy:
        for sent, status in (
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
            (b"GET /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", b"400"),
            (
                b"POST /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"400",
            ),
            (
                b"GET http://127.0.0.1/v2/models/doubler?q HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
                b"200",
            ),
            (b"GET /v2/health/live HTTP/1.0\r\n\r\n", b"200"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.http.rpartition(":")[2]))
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 30)
            assert answer.split(b" ")[1] == status, sent[:60]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        assert (await asked(session, "GET", proxy.http + "/v2/health/ready"))[0] == 200


async def test_the_page_shows_the_checks(server: RunningServer, session: aiohttp.ClientSession) -> None:
    async with local_proxy(server.url) as proxy:
        status, headers, body = await asked(session, "GET", proxy.http + "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    page = body.decode()
    assert "SIMULATION" in page
    assert "class=passed" in page
    assert server.url in page
