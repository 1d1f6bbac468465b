"""The leaked-key attack's second half: whoever holds the server's TLS key reads the pinned-TLS door, and only that.

Real sockets and real TLS: the man in the middle ends one connection and opens another. With the leaked key the client
cannot notice him, which is why that door is never reported above `pinned-tls`; with any other key he gets no byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from attacks.conftest import adder_model
from attacks.world import INPUT, MODEL, OUTPUT

import blindai
from blindai.attestation.binding import Mode
from blindai.attestation.evidence import AttestationResult, Level
from blindai.attester.simulation import SimulationAttester, measure_software
from blindai.channel.attested import level_of
from blindai.errors import PeerKeyMismatchError
from blindai.server.http_server import HttpServer
from blindai.server.serve import create_app
from blindai.server.settings import Settings
from blindai.server.tls_identity import TlsIdentity, make_tls_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.network
VALUES = np.array(INPUT, dtype=np.float32)
SECRET_INPUT = np.array(INPUT, dtype="<f4").tobytes()
SECRET_OUTPUT = np.array(OUTPUT, dtype="<f4").tobytes()


@dataclass(slots=True)
class ManInTheMiddle:
    """Ends TLS with a key of his choice, and keeps what passes in clear."""

    server_port: int
    identity: TlsIdentity
    port: int = 0
    seen: bytearray = field(default_factory=bytearray)
    _opened: list[asyncio.StreamWriter] = field(default_factory=list)

    async def start(self) -> asyncio.Server:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        return await asyncio.start_server(self._serve, sock=listener, ssl=self.identity.context())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        there, back = await asyncio.open_connection("127.0.0.1", self.server_port, ssl=context)
        self._opened += (writer, back)
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def end(self, server: asyncio.Server) -> None:
        """Nothing of it is left when the loop ends."""
        server.close()
        for writer in self._opened:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := await reader.read(65536):
                self.seen += piece
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()


@dataclass(slots=True)
class Site:
    """A server whose TLS key has leaked, in a loop of its own beside the test."""

    loop: asyncio.AbstractEventLoop
    leaked: TlsIdentity
    port: int

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    @contextlib.contextmanager
    def between(self, identity: TlsIdentity) -> Iterator[ManInTheMiddle]:
        attacker = ManInTheMiddle(self.port, identity)
        server = self.run(attacker.start())
        try:
            yield attacker
        finally:
            self.run(attacker.end(server))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    leaked = make_tls_identity("127.0.0.1")
    listener = socket.create_server(("127.0.0.1", 0))
    found = Site(loop=loop, leaked=leaked, port=listener.getsockname()[1])

    async def start() -> Any:
        attester = SimulationAttester(random=os.urandom, measurement=measure_software())
        app = create_app(
            Settings(simulation=True), attester=attester, directory=tmp_path_factory.mktemp("store"), tls=leaked
        )
        server = HttpServer(app.handle)
        await server.listen(listener, leaked.context())
        return app, server

    app, server = found.run(start())
    path = tmp_path_factory.mktemp("model") / f"{MODEL}.onnx"
    path.write_bytes(adder_model())
    with blindai.connect(url_of(found.port), insecure_simulation=True) as owner:
        owner.upload_model(path)
    try:
        yield found
    finally:

        async def stop() -> None:
            await server.drain(5)
            await app.sealed.service.pool.close()
            app.sealed.service.store.close()
            await loop.shutdown_default_executor()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        found.run(stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def url_of(port: int) -> str:
    return f"https://127.0.0.1:{port}"


def infer(port: int, *, is_async: bool, **options: Any) -> tuple[list[float], str]:
    """What the victim gets, and the level that it is told."""
    if not is_async:
        with blindai.connect(url_of(port), insecure_simulation=True, **options) as victim:
            return victim.infer(MODEL, VALUES)["y"].tolist(), victim.attestation.level

    async def infer_async() -> tuple[list[float], str]:
        async with blindai.AsyncClient(url_of(port), insecure_simulation=True, **options) as victim:
            return (await victim.infer(MODEL, VALUES))["y"].tolist(), victim.attestation.level

    return asyncio.run(infer_async())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_with_the_leaked_tls_key_the_pinned_door_is_read(site: Site, is_async: bool) -> None:  # noqa: FBT001
    """What pinned TLS does not protect from, and the reason for its level."""
    with site.between(site.leaked) as attacker:
        outputs, level = infer(attacker.port, is_async=is_async, transport="tls")
        assert outputs == OUTPUT  # the victim notices nothing
        assert SECRET_INPUT in attacker.seen
        assert SECRET_OUTPUT in attacker.seen
    assert level == "simulated"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_with_the_leaked_tls_key_the_sealed_door_is_not(site: Site, is_async: bool) -> None:  # noqa: FBT001
    with site.between(site.leaked) as attacker:
        outputs, _ = infer(attacker.port, is_async=is_async)
        assert outputs == OUTPUT
        assert b"/v1/sealed" in attacker.seen  # he carries it, and sees that
        assert SECRET_INPUT not in attacker.seen
        assert SECRET_OUTPUT not in attacker.seen


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_with_another_key_he_gets_no_byte_of_a_request(site: Site, is_async: bool) -> None:  # noqa: FBT001
    with site.between(make_tls_identity("127.0.0.1")) as attacker:
        with pytest.raises(PeerKeyMismatchError, match="nothing was sent"):
            infer(attacker.port, is_async=is_async, transport="tls")
        requests = re.findall(rb"[A-Z]+ /\S* HTTP/1\.1", bytes(attacker.seen))
    # Once at first, and once to see whether the keys had changed.
    assert requests == [b"GET /.well-known/blindai/attestation HTTP/1.1"] * 2


def test_a_connection_that_was_good_does_not_make_the_next_one_so(site: Site) -> None:
    """The key is looked at on each connection, not once."""
    with blindai.connect(url_of(site.port), insecure_simulation=True, transport="tls") as victim:
        assert victim.infer(MODEL, VALUES)["y"].tolist() == OUTPUT
        with site.between(make_tls_identity("127.0.0.1")) as attacker:
            redirect(victim, attacker.port)
            with pytest.raises(PeerKeyMismatchError):
                victim.infer(MODEL, VALUES)
            assert SECRET_INPUT not in attacker.seen
            assert b"/v2/models" not in attacker.seen


def redirect(victim: Any, port: int) -> None:
    """The path now leads elsewhere: what is open breaks, and what is opened lands at the attacker's."""
    transport = victim._transport
    for connection in transport._idle:
        connection.close()
    transport._start_pool()
    transport._url = type(transport._url)(scheme="https", host="127.0.0.1", port=port)


@pytest.mark.parametrize("mode", list(Mode))
def test_real_evidence_over_pinned_tls_is_never_above_its_level(mode: Mode) -> None:
    found = AttestationResult(tees=(), simulated=False, claims=(), findings=())
    assert level_of(found, mode, pins_tls=True) is Level.PINNED_TLS
    assert level_of(found, mode) > Level.PINNED_TLS
