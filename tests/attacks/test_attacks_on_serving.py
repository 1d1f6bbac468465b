"""Attacks on the whole server over its HTTPS port, while another tenant goes on working over the sealed door.

Leaves out: what models do (test_attacks_by_models.py), and each limit alone (tests/server/test_http_limits.py).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import json
import os
import signal
import socket
import time
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from attacks.http_fuzz import mutated
from attacks.serving_site import IDLE_S, MAX_BODY_BYTES, Site, infer_json, running_site
from server.model_parts import FOREVER, counting_model, cpu_seconds
from soak.soaked_server import ANY_CERTIFICATE

from blindai.errors import BlindAIError, ModelNotReadyError
from blindai.server.http_limits import HttpLimits

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.network

MIB = 1024 * 1024
BOMB = 32
_WINDOWS = {"gzip": 31, "deflate": 15}  # as zlib says it
FUZZED, AT_A_TIME, SILENCE_S = 2000, 16, 1.0
DOCUMENTED = {501, 503}  # of 5xx; 505 is refused before anything is read
INFER = "/v2/models/model/infer"
PATIENCE = 5  # how many times slower than meant this machine may be


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("serving")) as running:
        yield running


@functools.cache
def bomb(wbits: int) -> bytes:
    """Zeros for 32 times what a body may have, compressed."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join(deflate.compress(bytes(MAX_BODY_BYTES)) for _ in range(BOMB)) + deflate.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("path", [INFER, "/v2/repository/models/b/load", "/v2/repository/models/b/upload"])
def test_a_bomb_is_not_inflated_beyond_the_limit(
    site: Site, encoding: str, path: str, tell: Callable[[str], None]
) -> None:
    body, before = bomb(_WINDOWS[encoding]), site.server.resident_bytes()
    with site.neighbour() as neighbour:
        answers = [site.raw.ask("POST", path, body, content_encoding=encoding) for _ in range(4)]
    grown = site.server.resident_bytes() - before
    assert {answer.status for answer in answers} <= {400, 413, 422}
    assert grown < 8 * MAX_BODY_BYTES
    tell(f"4 × {len(body)} bytes of {encoding} for {BOMB * MAX_BODY_BYTES // MIB} MiB: refused")
    tell(f"the server grew by {grown / MIB:.1f} MiB, the neighbour had {neighbour.right} right answers")


def test_a_zip_file_is_no_model(site: Site) -> None:
    zipped = b"PK\x03\x04" + bytes(26) + bomb(-15)
    (site.folder / "zip.onnx").write_bytes(zipped)
    with site.server.client("alpha") as client, pytest.raises(BlindAIError):
        client.upload_model(site.folder / "zip.onnx")


@pytest.mark.parametrize(
    "headers", [["x: y"] * 10_000, [f"x: {'y' * MIB}"], [f"{'x' * MIB}: y"], [f"x-{i}: {'z' * 900}" for i in range(99)]]
)
def test_huge_heads_are_refused(site: Site, headers: list[str]) -> None:
    with site.neighbour(), site.connect() as stream:
        with contextlib.suppress(OSError):  # it may close before all is sent
            stream.sendall(site.head("GET", "/v2", *headers))
        answer = answer_of(stream)
    assert answer.startswith(b"HTTP/1.1 431") or not answer  # cut before it had sent all
    assert site.is_alive()


def answer_of(stream: ssl.SSLSocket, request: bytes = b"") -> bytes:
    """Whatever comes until the server closes."""
    received = bytearray()
    with contextlib.suppress(OSError):
        stream.sendall(request)
        while piece := stream.recv(65536):
            received += piece
    return bytes(received)


def test_slow_clients_end_and_nobody_waits_for_them(site: Site, tell: Callable[[str], None]) -> None:
    with site.neighbour() as neighbour, contextlib.ExitStack() as stack:
        heads, bodies, answers = ([stack.enter_context(site.connect()) for _ in range(24)] for _ in range(3))
        for stream in heads:
            stream.sendall(b"GET /v2 HTTP/1.1\r\nx: ")
        for stream in bodies:
            stream.sendall(site.head("POST", INFER, "content-length: 1000000") + b"{")
        for stream in answers:  # they ask for a long answer again and again, and never read
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream.sendall(site.head("GET", "/v2/openapi.json") * 200)
        open_streams, ends_s = list(bodies), time.monotonic() + PATIENCE * 2 * IDLE_S
        while open_streams and time.monotonic() < ends_s:
            for stream in (*heads, *open_streams):
                with contextlib.suppress(OSError):  # it was cut
                    stream.sendall(b" ")  # a byte now and then
            time.sleep(0.25)
            open_streams = [stream for stream in open_streams if not has_ended(stream)]
        asked = neighbour.right
        tell(f"24 slow heads, 24 slow bodies (all cut: {not open_streams}), 24 answers not read")
        tell(f"the neighbour had {asked} right answers, the slowest after {neighbour.slowest_s * 1000:.0f} ms")
    assert not open_streams
    assert neighbour.slowest_s < PATIENCE * IDLE_S


def has_ended(stream: ssl.SSLSocket) -> bool:
    """Whether the server closed it."""
    stream.settimeout(0.001)
    try:
        return not stream.recv(65536)
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            stream.settimeout(30)


def test_idle_connections_and_pipelines_starve_nobody(site: Site, tell: Callable[[str], None]) -> None:
    body = json.dumps(infer_json()).encode()
    request = site.head("POST", INFER, f"content-length: {len(body)}") + body
    last = site.head("GET", "/v2/health/live", "connection: close")
    with site.neighbour() as neighbour, contextlib.ExitStack() as stack:
        began_s = time.monotonic()
        idle = [stack.enter_context(site.connect()) for _ in range(64)]
        pipelines = [stack.enter_context(site.connect()) for _ in range(8)]
        for stream in pipelines:
            stream.sendall(request * 20 + last)
        received = [answer_of(stream) for stream in pipelines]
        woken = [answer_of(stream, last) for stream in idle]
    too_long = time.monotonic() - began_s > HttpLimits().head_timeout_s  # then those that said nothing were cut
    assert all(answer.startswith(b"HTTP/1.1 200") or (too_long and not answer) for answer in woken)
    assert [answer.count(b"HTTP/1.1 200 OK") for answer in received] == [21] * 8
    assert [answer.count(b"[2.0,4.0,6.0]") for answer in received] == [20] * 8
    tell(f"64 idle connections, 8 × 21 pipelined requests answered in order, the neighbour {neighbour.right}")


def test_a_million_tiny_chunks_are_not_read(site: Site, tell: Callable[[str], None]) -> None:
    before = cpu_seconds(site.server.running.process_id)
    sent, piece = 0, b"6\r\n[[[[[[\r\n" * 10_000
    with site.connect() as stream:
        stream.sendall(site.head("POST", INFER, "transfer-encoding: chunked"))
        with contextlib.suppress(OSError):
            for _ in range(100):
                stream.sendall(piece)
                sent += 10_000
        answer = answer_of(stream)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")) or (not answer and sent < 1_000_000)
    assert site.is_alive()
    used_s = cpu_seconds(site.server.running.process_id) - before
    tell(f"refused ({answer[9:12].decode()}) while {sent} of 1,000,000 chunks were sent, {used_s:.2f} s of CPU")
    assert used_s < PATIENCE


@pytest.mark.parametrize("path", ["/v2/repository/index", INFER, "/v2/repository/models/b/load", "/v2/access/keys"])
@pytest.mark.parametrize("level", [b"[", b'{"a":'])
def test_deep_json_is_refused(site: Site, path: str, level: bytes) -> None:
    body = level * 250_000
    assert 400 <= site.raw.ask("POST", path, body).status < 500
    closed = body + b"1" + (b"]" if level == b"[" else b"}") * 250_000
    assert 400 <= site.raw.ask("POST", path, closed).status < 500
    assert site.is_alive()


@pytest.mark.parametrize("shape", [[2**40], [2**20, 2**20], [2**62, 4], [0, 2**62], [-1, 3], [2**64]])
def test_a_shape_costs_no_memory(site: Site, shape: list[int]) -> None:
    header = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": 4}}]}
    ).encode()
    before = site.server.resident_bytes()
    answers = [
        site.raw.ask("POST", INFER, infer_json(shape=shape)),
        site.raw.ask("POST", INFER, header + bytes(4), inference_header_content_length=str(len(header))),
    ]
    assert [answer.status for answer in answers] == [400, 400]
    assert site.server.resident_bytes() - before < 4 * MIB


async def test_a_kill_among_32_requests_costs_only_what_ran(site: Site, tell: Callable[[str], None]) -> None:
    path = site.folder / "count.onnx"
    path.write_bytes(counting_model())
    async with site.server.async_client("alpha") as client:
        others = set(site.server.running.model_processes())
        began_s = time.monotonic()
        await client.upload_model(path)
        load_s = time.monotonic() - began_s
        (process_id,) = set(site.server.running.model_processes()) - others
        idle_s = cpu_seconds(process_id)
        running = [asyncio.create_task(client.infer("count", np.array(FOREVER)))]
        while cpu_seconds(process_id) < idle_s + 0.1:  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.01)
        running += [asyncio.create_task(client.infer("count", np.array(number))) for number in range(31)]
        with site.neighbour() as neighbour:
            await asyncio.sleep(0.2)
            killed_s = time.monotonic()
            os.kill(process_id, signal.SIGKILL)
            answers = await asyncio.gather(*running, return_exceptions=True)
            back_s = time.monotonic() - killed_s
        await client.delete_model("count")
    assert isinstance(answers[0], ModelNotReadyError)
    assert answers[0].retry_after_s == 1
    assert [int(answer["y"]) for answer in answers[1:]] == list(range(31))  # type: ignore[index]
    tell("1 of 32 failed (503, Retry-After 1) and 31 were right")
    tell(f"all had an answer {back_s:.2f} s after the kill (first load {load_s:.2f} s), {neighbour.right} neighbour's")
    assert back_s < PATIENCE * (2 + load_s)


# ---- At random


async def test_a_fuzzer_finds_no_failure(site: Site, tell: Callable[[str], None]) -> None:
    statuses: collections.Counter[int] = collections.Counter()
    found: list[tuple[int, int]] = []
    numbers = iter(range(FUZZED))

    async def work() -> None:
        for number in numbers:
            status = await status_of(site, mutated(number, site.authorization))
            statuses[status] += 1
            if status >= 500 and status not in DOCUMENTED | {505}:
                found.append((number, status))

    with site.neighbour() as neighbour:
        await asyncio.gather(*(work() for _ in range(AT_A_TIME)))
    assert not found, found[:10]
    assert statuses[200] > 100
    assert sum(count for status, count in statuses.items() if 400 <= status < 500) > FUZZED // 3
    names = {0: "cut or waited for more"}
    counts = ", ".join(f"{count} × {names.get(status, status)}" for status, count in sorted(statuses.items()))
    tell(f"{FUZZED} requests: {counts}; the neighbour had {neighbour.right} right answers")


async def status_of(site: Site, request: bytes) -> int:
    """The status of the first answer; 0 if the server closes, or says nothing because it waits for more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.running.port, ssl=ANY_CERTIFICATE)
    try:
        writer.write(request)
        async with asyncio.timeout(SILENCE_S):
            line = await reader.readline()
        return int(line[9:12]) if line.startswith(b"HTTP/1.1 ") else 0
    except (TimeoutError, OSError):
        return 0
    finally:
        writer.transport.abort()
