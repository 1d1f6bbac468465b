"""The server as one value: everything that the HTTPS listener serves, with its outer surface in `ROUTES`.

What stands here can be reached before a message is opened; every other path is the pinned-TLS door's.
Leaves out: HTTP (http_protocol.py), listening (serve.py), and what is inside messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.channel.activation import ACTIVATION_PATH
from blindai.channel.activation import MAX_REQUEST_BYTES as MAX_CREDENTIAL_BYTES
from blindai.channel.exchange import MEDIA_TYPE
from blindai.errors import InferenceError, TooLargeError
from blindai.server.attestation_door import MAX_REQUEST_BYTES, AttestationDoor
from blindai.server.attestation_door import PATH as ATTESTATION_PATH
from blindai.server.calls import error_reply
from blindai.server.http_request import JSON, NO_STORE
from blindai.server.log import LOG
from blindai.server.readiness import LIVE_PATH, READY_PATH, Readiness
from blindai.server.sealed_request import OuterError
from blindai.server.start_check import check_start_models
from blindai.server.triton_repository import StartModels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from blindai.server.activation_door import ActivationDoor
    from blindai.server.http_request import HttpRequest
    from blindai.server.sealed_door import SealedDoor
    from blindai.server.tls_door import TlsDoor

SEALED_PATH = "/v1/sealed"
SWEEP_EVERY_S = 5.0
_ROUTE = re.compile(rb"[A-Za-z0-9_-]{0,64}\Z")
_SEALED = (b"content-type", MEDIA_TYPE.encode())
_CACHED = (b"cache-control", b"public, max-age=60")


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """The doors, and the server's lifetime."""

    attestation: AttestationDoor
    activation: ActivationDoor
    sealed: SealedDoor
    tls: TlsDoor
    readiness: Readiness
    start: StartModels = field(default_factory=StartModels)

    async def prepare(self) -> None:
        """Load the models of the repository, before anything but health is answered.

        Raises:
            InvalidSettingsError: what is wrong with the repository.
        """
        with self.readiness.not_ready():
            await check_start_models(self.start, self.sealed.service)

    async def handle(self, request: HttpRequest) -> None:
        """Answer one request.

        Raises:
            ConnectionLostError: the client left.
        """
        methods = ROUTES.get(request.path)
        if methods is None:
            await self.tls.answer(request)
            return
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
            await request.refuse(405, "bad_request", "not a method of this path", (b"allow", allowed.encode()))
            return
        await handler(self, request)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The server's lifetime: keys end in time meanwhile; afterwards no process and no stored model is left."""
        stapler = self.attestation.stapler
        tasks = [asyncio.create_task(task) for task in (self._sweep(), *((stapler.keep_fresh(),) if stapler else ()))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            try:
                await self.sealed.service.pool.close()
            finally:
                self.sealed.service.changes.close()
                self.sealed.service.store.close()

    async def _sweep(self) -> None:
        """Keys and sessions end in time even when nobody asks for them."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                self.sealed.keys.sweep()
                self.sealed.sessions.sweep(self.sealed.clock.boot())
            except Exception as error:  # noqa: BLE001  # whatever it was, the next key must still end in time
                LOG.error("a sweep failed: %s", type(error).__name__)


async def _attest_cached(app: App, request: HttpRequest) -> None:
    document = await app.attestation.cached()
    app.sealed.service.metrics.attestations["cached"] += 1
    await request.answer(200, document, headers=(JSON, _CACHED))


async def _attest_fresh(app: App, request: HttpRequest) -> None:
    async def answered() -> bytes:
        return await app.attestation.fresh(await _read(request, MAX_REQUEST_BYTES), source=request.source)

    await _hand_out(app, request, "fresh", answered)


async def _activate(app: App, request: HttpRequest) -> None:
    async def answered() -> bytes:
        credential = await _read(request, MAX_CREDENTIAL_BYTES)
        request.let_leave_cancel()
        return await app.activation.answer(credential, source=request.source)

    await _hand_out(app, request, "activation", answered)


async def _read(request: HttpRequest, max_bytes: int) -> bytes:
    asked = bytearray()
    async for piece in request.body():
        asked += piece
        if len(asked) > max_bytes:
            raise TooLargeError(f"at most {max_bytes} bytes")
    return bytes(asked)


async def _hand_out(app: App, request: HttpRequest, kind: str, answered: Callable[[], Awaitable[bytes]]) -> None:
    """One way to answer what was made for this caller alone, and errors."""
    try:
        answer = await answered()
    except InferenceError as error:
        reply = error_reply(error)
        await request.answer(reply.status, *reply.body, headers=(JSON, NO_STORE))
        return
    app.sealed.service.metrics.attestations[kind] += 1
    await request.answer(200, answer, headers=(JSON, NO_STORE))


async def _sealed(app: App, request: HttpRequest) -> None:
    """The outer half of the sealed door: method, media type and route are all that HTTP decides."""
    notes = request.notes
    if not isinstance(notes, _Notes) or notes.headers is not request.headers:
        request.notes = notes = _Notes(request)
    if notes.route is None:
        await request.answer(400)
        return
    answer, whole = _SealedAnswer(request), request.take_whole()
    try:
        last = await app.sealed.answer(
            route=notes.route,
            received=request.body() if whole is None else None,
            ahead=whole or b"",
            write=answer.write,
            let_leave_cancel=request.let_leave_cancel,
        )
    except OuterError as error:
        await request.answer(error.status)
        return
    await answer.end(last)


class _Notes:
    """What was read of a connection's last head: the route that it names, or None if it is no sealed request's."""

    __slots__ = ("headers", "route")

    def __init__(self, request: HttpRequest) -> None:
        self.headers = request.headers
        routes = request.values(b"blindai-route") or [b""]
        is_sealed = request.values(b"content-type") == [MEDIA_TYPE.encode()]
        self.route = routes[0].decode() if is_sealed and len(routes) == 1 and _ROUTE.match(routes[0]) else None


class _SealedAnswer:
    """Sends a short answer in one piece, with its length, and a long one as it is made."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request
        self._has_begun = False

    async def write(self, piece: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            await self._request.begin(200, (_SEALED, NO_STORE))
        await self._request.write(piece)

    async def end(self, piece: bytes) -> None:
        if self._has_begun:
            await self._request.write(piece)
            await self._request.end()
        else:
            await self._request.answer(200, piece, headers=(_SEALED, NO_STORE))


async def _health(app: App, request: HttpRequest) -> None:
    await app.readiness.answer(request)


ROUTES: dict[str, dict[str, Callable[[App, HttpRequest], Awaitable[None]]]] = {
    ATTESTATION_PATH: {"GET": _attest_cached, "POST": _attest_fresh},
    ACTIVATION_PATH: {"POST": _activate},
    SEALED_PATH: {"POST": _sealed},
    LIVE_PATH: {"GET": _health},
    READY_PATH: {"GET": _health},
}
