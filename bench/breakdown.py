"""What each microsecond of the server's main process is spent on, for the tiny MLP with 32 requests in the air.

    python bench/breakdown.py

The server's own code from HTTP's bytes to HTTP's bytes, in this process, without sockets and TLS; the model runs in its
own process, which is not counted. Requests go through ever more of the server; what a step costs is the difference.
CPU time of the thread in windows of 32 requests, the quickest tenth of them: work beside it only adds.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import models
import uvloop
from load import SealedSession, request_bytes
from rich.console import Console
from rich.table import Table
from serving import http_spec, inputs_file

from blindai.attester.simulation import SimulationAttester, measure_software
from blindai.bundle import UploadHeader
from blindai.client.transport import HttpResponse
from blindai.server.http_protocol import HttpConnection
from blindai.server.http_server import HttpServer
from blindai.server.serve import calm_collector, create_app
from blindai.server.settings import Settings
from blindai.server.tls_identity import make_tls_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blindai.client.transport import HttpRequest

CONNECTIONS, WINDOWS, QUICKEST = 32, int(os.environ.get("BREAKDOWN_WINDOWS", "200")), 0.1


class Wire:
    """A transport that keeps what the server writes."""

    def __init__(self, answered: Callable[[], None]) -> None:
        self.written = bytearray()
        self._answered = answered

    def write(self, data: bytes) -> None:
        """One whole answer, since they are small."""
        self.written += data
        self._answered()

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_extra_info(self, _name: str) -> None:
        """Nobody is there."""

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    resume_reading = close = abort = pause_reading


class InProcess:
    """The server without a network."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path, isolation: str) -> None:
        settings = Settings(simulation=True, isolation=isolation, idle_worker_s=3600)
        self._loop = loop
        self.app = create_app(
            settings,
            attester=SimulationAttester(random=os.urandom, measurement=measure_software()),
            directory=folder,
            tls=make_tls_identity("localhost"),
        )
        self._server = HttpServer(self.app.handle)
        self._left = 0
        self._done: asyncio.Future[None] = loop.create_future()
        self.connections: list[tuple[HttpConnection, Wire]] = []
        for _ in range(CONNECTIONS):
            connection, wire = HttpConnection(self._server), Wire(self._answered)
            connection.connection_made(wire)  # type: ignore[arg-type]  # as much of one as is used
            self.connections.append((connection, wire))

    def store(self, model: models.BenchModel) -> None:
        """An upload without the way there."""
        data = model.path.read_bytes()
        header = UploadHeader(version=None, files=((model.path.name, len(data)),), default_shape=None, load=False)
        upload = self.app.sealed.service.store.begin_upload(model.name, header)
        upload.write(data)
        upload.complete()
        upload.register()

    def send(self, request: HttpRequest) -> HttpResponse:
        """One request of the SDK's."""
        body = request.body if isinstance(request.body, bytes) else b"".join(request.body or ())
        data = request_bytes(request.path, body, dict(request.headers)).replace(b"POST", request.method.encode(), 1)
        wire = self.connections[0][1]
        self._loop.run_until_complete(self._window([data]))
        top, _, answer = bytes(wire.written).partition(b"\r\n\r\n")
        wire.written.clear()
        if request.on_data is not None:
            request.on_data(answer)
        fields = (line.decode().lower().partition(": ")[::2] for line in top.split(b"\r\n")[1:])
        return HttpResponse(status=int(top.split()[1]), headers=dict(fields), body=answer)

    def cost_us(self, requests: Sequence[bytes]) -> float:
        """CPU of this thread per request, of one window."""
        begun_s = time.thread_time()
        self._loop.run_until_complete(self._window(requests))
        took_s = time.thread_time() - begun_s
        for _, wire in self.connections[: len(requests)]:
            assert wire.written.startswith(b"HTTP/1.1 200"), bytes(wire.written)
            wire.written.clear()
        return took_s / len(requests) * 1e6

    async def _window(self, requests: Sequence[bytes]) -> None:
        self._left, self._done = len(requests), self._loop.create_future()
        for (connection, _), data in zip(self.connections, requests, strict=False):
            connection.data_received(data)
        await self._done

    def _answered(self) -> None:
        self._left -= 1
        if not self._left and not self._done.done():
            self._done.set_result(None)


class Steps:
    """Sources of requests, each going through more of the server than the one before."""

    def __init__(self, server: InProcess, model: models.BenchModel, folder: Path) -> None:
        spec = http_spec("https://localhost", model, model.name)
        self._plain = request_bytes(spec["path"], base64.b64decode(spec["body"]), spec["headers"])
        inputs = inputs_file(model, folder)
        self._sessions = {}
        for receipts in (False, True):
            session = SealedSession({"url": "", "model": model.name, "receipts": receipts, "inputs": inputs})
            session.open_session(server.send)
            self._sessions[receipts] = session

    def requests(self, name: str) -> list[bytes]:
        """One window of them."""
        if name == "health":
            return [request_bytes("/v2/health/live", b"", {}).replace(b"POST", b"GET", 1)] * CONNECTIONS
        if name == "plain":
            return [self._plain] * CONNECTIONS
        session = self._sessions[name == "receipts"]
        window = session.window(CONNECTIONS / 6000)
        for sealed in window.requests:
            sealed.answer = b"not looked at"  # so its number counts as spent
        return [sealed.data for sealed in window.requests][:CONNECTIONS]

    def over(self, name: str) -> None:
        """The window's numbers are free again."""
        if name in ("sealed", "receipts"):
            self._sessions[name == "receipts"].release()


def tls_us(sizes: tuple[int, int]) -> float:
    """OpenSSL's part for one request and one answer in records of TLS 1.3, without the socket."""
    context = make_tls_identity("localhost").context()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    request, answer = bytes(sizes[0]), bytes(sizes[1])
    found = []
    for _ in range(WINDOWS):
        took_s = 0.0
        for _ in range(CONNECTIONS):
            client.write(request)
            begun_s = time.thread_time()
            server.read(sizes[0])
            server.write(answer)
            took_s += time.thread_time() - begun_s
            client.read(sizes[1])
        found.append(took_s / CONNECTIONS * 1e6)
    return quickest(found)


def quickest(found: list[float]) -> float:
    """The median of the quickest tenth."""
    return statistics.median(sorted(found)[: max(1, int(QUICKEST * len(found)))])


def costs(isolation: str) -> dict[str, float]:
    """Microseconds per request for each kind of request, measured in turn."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    found: dict[str, list[float]] = {name: [] for name in ("health", "plain", "sealed", "receipts")}
    with tempfile.TemporaryDirectory() as folder:
        server = loop.run_until_complete(_made(loop, Path(folder), isolation))
        model = models.tiny_mlp()
        server.store(model)
        steps = Steps(server, model, Path(folder))
        calm_collector()
        for _ in range(WINDOWS):
            for name, costs_us in found.items():
                costs_us.append(server.cost_us(steps.requests(name)))
                steps.over(name)
        loop.run_until_complete(server.app.sealed.service.pool.close())
        server.app.sealed.service.store.close()
    loop.close()
    return {name: quickest(costs_us) for name, costs_us in found.items()}


async def _made(loop: asyncio.AbstractEventLoop, folder: Path, isolation: str) -> InProcess:
    return InProcess(loop, folder, isolation)


def main() -> None:
    """Print the table."""
    by_isolation: dict[str, dict[str, float]] = {one: costs(one) for one in ("tenant", "thread")}
    table = Table(
        "what", *by_isolation, title="main process, µs of CPU per request, 32 in the air", title_justify="left"
    )
    rows: tuple[tuple[str, Any], ...] = (
        ("HTTP, task, dispatch, answer (health GET)", lambda cost: cost["health"]),
        ("+ inference in clear: decode, find, queue, run, encode", lambda cost: cost["plain"] - cost["health"]),
        ("= pinned-TLS door, without TLS and sockets", lambda cost: cost["plain"]),
        ("+ sealed session: keys, 2 × open, 3 × seal, heads, window", lambda cost: cost["sealed"] - cost["plain"]),
        ("+ receipt: commitments, JSON, Ed25519", lambda cost: cost["receipts"] - cost["sealed"]),
        ("= sealed door with receipt, without TLS and sockets", lambda cost: cost["receipts"]),
    )
    for what, of in rows:
        table.add_row(what, *(f"{of(cost):.1f}" for cost in by_isolation.values()))
    for what, sizes in (("TLS records of a plain request", (330, 330)), ("TLS records of a sealed one", (1100, 1200))):
        table.add_row(what, f"{tls_us(sizes):.1f}", "")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
