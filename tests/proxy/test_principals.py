"""One session per principal, many programs at once, keys that change, and programs that leave."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import grpc.aio
import numpy as np
import pytest
from access.tenants import access_toml, draw_keys
from e2e import tiny_models
from e2e.running_server import RunningServer
from proxy.local_proxy import LocalProxy, local_proxy
from server.grpc_client import infer_request
from server.model_parts import counting_model

import blindai
from blindai.channel.exchange import REQUEST_MAGIC, SESSION_REQUEST_MAGIC
from blindai.cli.operator_view import RecordingRelay
from blindai.client.transport import parse_server_url
from blindai.oip.grpc.schema import SERVICE, message_type
from blindai.server.tls_identity import make_tls_identity
from blindai.wire import base64url_decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.network

INFER = "/v2/models/doubler/infer"
MANY = 64
SOON_S = 60


def asking(*values: float) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": list(values)}]}


async def infer(session: aiohttp.ClientSession, proxy: LocalProxy, *values: float, **options: Any) -> Any:
    async with session.post(proxy.http + INFER, json=asking(*values), **options) as answer:
        assert answer.status == 200, await answer.text()
        assert json.loads(await answer.read())["outputs"][0]["data"] == [2 * value for value in values]
        return answer.headers


async def infer_grpc(channel: Any, *values: float, **options: Any) -> None:
    method = channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=lambda found: found.SerializeToString(),
        response_deserializer=message_type("inference.ModelInferResponse").FromString,  # type: ignore[attr-defined]
    )
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 3], "contents": {"fp32_contents": values}}
    answer = await method(infer_request(entry, model="doubler"), timeout=SOON_S, **options)
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [2 * value for value in values]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, dict[str, str]]]:
    """A server with tenants, each with its `doubler`; and the keys."""
    folder, keys = tmp_path_factory.mktemp("guarded"), draw_keys()
    (folder / "access.toml").write_text(access_toml(keys))
    running = RunningServer(folder / "server.log", options=("--access", str(folder / "access.toml")))
    try:
        for tenant in ("alpha", "beta"):
            key = keys.text[f"{tenant}-upload"]
            with blindai.connect(running.url, insecure_simulation=True, api_key=key) as client:
                client.upload_model(tiny_models.times(folder / "doubler.onnx", 2))
        yield running, keys.text
    finally:
        running.stop()


async def test_each_principal_has_one_session(guarded: tuple[RunningServer, dict[str, str]]) -> None:
    server, keys = guarded
    relay = RecordingRelay(parse_server_url(server.url), make_tls_identity("127.0.0.1").context())
    with relay:
        async with (
            local_proxy(relay.url, credential=lambda: keys["alpha-infer"]) as proxy,
            aiohttp.ClientSession() as session,
            grpc.aio.insecure_channel(proxy.grpc) as channel,
        ):
            for turn in range(10):  # the proxy's own principal, over HTTP and gRPC
                await infer(session, proxy, turn, 1, 2)
                await infer_grpc(channel, turn, 1, 2)
            seen = bytes(relay.recording)
            assert (seen.count(REQUEST_MAGIC), seen.count(SESSION_REQUEST_MAGIC)) == (1, 19)
            key = {"authorization": f"Bearer {keys['beta-infer']}"}
            for turn in range(10):
                await infer(session, proxy, turn, 1, 2, headers=key)
                await infer_grpc(channel, turn, 1, 2, metadata=tuple(key.items()))
                await infer(session, proxy, turn, 1, 2)
            seen = bytes(relay.recording)
            assert (seen.count(REQUEST_MAGIC), seen.count(SESSION_REQUEST_MAGIC)) == (2, 48)
        recording = bytes(relay.recording)
    assert not [name for name, key in keys.items() if key.encode() in recording]


async def test_a_wrong_credential_is_never_the_proxys_own(guarded: tuple[RunningServer, dict[str, str]]) -> None:
    server, keys = guarded
    async with (
        local_proxy(server.url, credential=lambda: keys["alpha-infer"]) as proxy,
        aiohttp.ClientSession() as session,
        grpc.aio.insecure_channel(proxy.grpc) as channel,
    ):
        for authorization in ("", "Bearer", "Basic eDp5", "Bearer blindai_no_key", f"Bearer {keys['alpha-ended']}x"):
            headers = {"authorization": authorization}
            async with session.post(proxy.http + INFER, json=asking(1, 2, 3), headers=headers) as answer:
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), authorization
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await infer_grpc(channel, 1, 2, 3, metadata=tuple(headers.items()))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        async with session.get(proxy.http + "/v2/access/keys") as answer:
            assert answer.status == 403  # its role is `infer`
        await infer(session, proxy, 1, 2, 3)


async def test_many_programs_at_once_each_get_their_own_answer(server: RunningServer) -> None:
    async with (
        local_proxy(server.url) as proxy,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        grpc.aio.insecure_channel(proxy.grpc) as channel,
    ):
        tasks = [infer(session, proxy, n, n + 1, turn) for n in range(MANY) for turn in range(2)]
        await asyncio.gather(*tasks, *(infer_grpc(channel, n, n + 1, 3) for n in range(MANY)))


async def test_many_principals_stay_apart_and_the_idlest_goes(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blindai.proxy.forward.MAX_IDLE_PRINCIPALS", 3)
    async with local_proxy(server.url) as proxy, aiohttp.ClientSession() as session:
        for turn in range(2):
            for name in "abcdef":
                await infer(session, proxy, turn, 1, 2, headers={"authorization": f"Bearer {name}"})
        await asyncio.gather(
            *(infer(session, proxy, 1, 2, n, headers={"authorization": f"Bearer {n}"}) for n in range(12))
        )


def keyset_of(receipt: str) -> str:
    return str(json.loads(base64url_decode(receipt.split(".")[1]))["keyset_id"])


async def test_keys_change_under_running_requests(tmp_path: Path, tell: Callable[[str], None]) -> None:
    (tmp_path / "server.toml").write_text("epoch_s = 4\n")
    server = RunningServer(tmp_path / "server.log", options=("--config", str(tmp_path / "server.toml")))
    try:
        with blindai.connect(server.url, insecure_simulation=True) as client:
            client.upload_model(tiny_models.times(tmp_path / "doubler.onnx", 2))
        async with local_proxy(server.url, level="cached") as proxy, aiohttp.ClientSession() as session:
            keysets: set[str] = set()
            answers, end_s = 0, time.monotonic() + SOON_S
            while len(keysets) < 3:
                assert time.monotonic() < end_s
                for headers in await asyncio.gather(*(infer(session, proxy, n, 1, 2) for n in range(8))):
                    keysets.add(keyset_of(headers["blindai-receipt"]))
                    answers += 1
        tell(f"{answers} right answers under {len(keysets)} keysets")
    finally:
        server.stop()


async def test_who_leaves_ends_the_run(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "server.log")
    try:
        (tmp_path / "count.onnx").write_bytes(counting_model())
        with blindai.connect(server.url, insecure_simulation=True) as client:
            client.upload_model(tmp_path / "count.onnx")
        async with (
            local_proxy(server.url) as proxy,
            aiohttp.ClientSession() as session,
            grpc.aio.insecure_channel(proxy.grpc) as channel,
        ):
            endless, url = 10**12, f"{proxy.http}/v2/models/count/infer"
            for leave in (_leave_http, _leave_grpc):
                await leave(session, channel, url, endless)
                async with asyncio.timeout(30), session.post(url, json=counting(1000)) as answer:  # a run may last 60 s
                    assert json.loads(await answer.read())["outputs"][0]["data"] == [1000]
    finally:
        server.stop()


def counting(count: int) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "INT64", "shape": [], "data": [count]}]}


async def _leave_http(session: aiohttp.ClientSession, _channel: Any, url: str, count: int) -> None:
    with pytest.raises(TimeoutError):
        await session.post(url, json=counting(count), timeout=aiohttp.ClientTimeout(total=3))


async def _leave_grpc(_session: aiohttp.ClientSession, channel: Any, _url: str, count: int) -> None:
    method = channel.unary_unary(f"/{SERVICE}/ModelInfer", request_serializer=lambda found: found.SerializeToString())
    entry = {"name": "x", "datatype": "INT64", "shape": [], "contents": {"int64_contents": [count]}}
    call = method(infer_request(entry, model="count"), timeout=SOON_S)
    await asyncio.sleep(3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_deadline_reaches_the_model(tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "server.log")
    try:
        (tmp_path / "count.onnx").write_bytes(counting_model())
        with blindai.connect(server.url, insecure_simulation=True) as client:
            client.upload_model(tmp_path / "count.onnx")
        async with local_proxy(server.url) as proxy, aiohttp.ClientSession() as session:
            headers = {"blindai-deadline-ms": "500"}
            async with asyncio.timeout(30):
                async with session.post(
                    f"{proxy.http}/v2/models/count/infer", json=counting(10**12), headers=headers
                ) as answer:
                    assert (answer.status, (await answer.json())["code"]) == (504, "deadline_exceeded")
    finally:
        server.stop()
