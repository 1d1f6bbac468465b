"""The server as one value: an ASGI application with its whole outer surface in `ROUTES`.

What stands here is all that the path can reach before a message is opened. Leaves out: what is inside messages.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.channel.exchange import MEDIA_TYPE
from blindai.errors import ConnectionLostError, InferenceError, TooLargeError
from blindai.server.attestation_door import MAX_REQUEST_BYTES, AttestationDoor
from blindai.server.attestation_door import PATH as ATTESTATION_PATH
from blindai.server.calls import error_reply
from blindai.server.log import LOG
from blindai.server.sealed_door import OuterError, SealedDoor
from blindai.server.start_check import check_start_models
from blindai.server.triton_repository import StartModels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

SEALED_PATH = "/v1/sealed"
SWEEP_EVERY_S = 5.0
_ROUTE = re.compile(rb"[A-Za-z0-9_-]{0,64}\Z")
_JSON = b"application/json"
_NO_STORE = (b"cache-control", b"no-store")
_SEALED = (b"content-type", MEDIA_TYPE.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Http:
    """One request as ASGI gives it."""

    scope: MutableMapping[str, Any]
    receive: Receive
    send: Send

    def headers(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.scope["headers"] if found == name]

    async def body(self) -> AsyncIterator[bytes]:
        """The body's pieces.

        Raises:
            ConnectionLostError: the client left before its end.
        """
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionLostError("the client left")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def answer(self, status: int, body: bytes = b"", *headers: tuple[bytes, bytes]) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self.send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
        await self.send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """The ASGI application."""

    attestation: AttestationDoor
    sealed: SealedDoor
    start: StartModels = field(default_factory=StartModels)

    async def prepare(self) -> None:
        """Load the models of the repository, before anything listens; what was started ends if one cannot be served.

        Raises:
            InvalidSettingsError: what is wrong with the repository.
        """
        service = self.sealed.service
        try:
            await check_start_models(self.start, store=service.store, pool=service.pool)
        except BaseException:
            await service.pool.close()
            raise

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, or the server's own lifetime."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            http = _Http(scope=scope, receive=receive, send=send)
            handler = ROUTES.get((scope["method"], scope["path"]))
            try:
                await (handler(self, http) if handler else http.answer(404))
            except ConnectionLostError:
                LOG.debug("a client left before its request ended")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        sweeper = asyncio.create_task(self._sweep())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        sweeper.cancel()
        try:
            await self.sealed.service.pool.close()
        finally:
            self.sealed.service.store.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _sweep(self) -> None:
        """Keys and sessions end in time even when nobody asks for them."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                self.sealed.keys.sweep()
                self.sealed.sessions.sweep(self.sealed.clock.boot())
            except Exception as error:  # noqa: BLE001  # whatever it was, the next key must still end in time
                LOG.error("a sweep failed: %s", type(error).__name__)


async def _attest_cached(app: App, http: _Http) -> None:
    document = await app.attestation.cached()
    await http.answer(200, document, (b"content-type", _JSON), (b"cache-control", b"public, max-age=60"))


async def _attest_fresh(app: App, http: _Http) -> None:
    try:
        request = bytearray()
        async for piece in http.body():
            request += piece
            if len(request) > MAX_REQUEST_BYTES:
                raise TooLargeError(f"at most {MAX_REQUEST_BYTES} bytes")  # one way to answer errors
        client = http.scope.get("client")
        document = await app.attestation.fresh(bytes(request), source=client[0] if client else "")
    except InferenceError as error:
        reply = error_reply(error)
        await http.answer(reply.status, b"".join(reply.body), (b"content-type", _JSON), _NO_STORE)
        return
    await http.answer(200, document, (b"content-type", _JSON), _NO_STORE)


async def _sealed(app: App, http: _Http) -> None:
    """The outer half of the sealed door: method, media type and route are all that HTTP decides."""
    routes = http.headers(b"blindai-route")
    if http.headers(b"content-type") != [MEDIA_TYPE.encode()] or len(routes) > 1:
        await http.answer(400)
        return
    route = routes[0] if routes else b""
    if not _ROUTE.match(route):
        await http.answer(400)
        return
    answer = _SealedAnswer(http)
    try:
        await answer.end(await app.sealed.answer(route=route.decode(), received=http.body(), write=answer.write))
    except OuterError as error:
        await http.answer(error.status)


class _SealedAnswer:
    """Sends a short answer in one piece, with its length, and a long one as it is made."""

    def __init__(self, http: _Http) -> None:
        self._http = http
        self._started = False

    async def write(self, piece: bytes) -> None:
        if not self._started:
            self._started = True
            headers = [_SEALED, _NO_STORE]
            await self._http.send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._http.send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, piece: bytes) -> None:
        if self._started:
            await self._http.send({"type": "http.response.body", "body": piece})
        else:
            await self._http.answer(200, piece, _SEALED, _NO_STORE)


async def _live(_app: App, http: _Http) -> None:
    await http.answer(200, b'{"live":true}', (b"content-type", _JSON))


async def _ready(_app: App, http: _Http) -> None:
    await http.answer(200, b'{"ready":true}', (b"content-type", _JSON))


ROUTES: dict[tuple[str, str], Callable[[App, _Http], Awaitable[None]]] = {
    ("GET", ATTESTATION_PATH): _attest_cached,
    ("POST", ATTESTATION_PATH): _attest_fresh,
    ("POST", SEALED_PATH): _sealed,
    ("GET", "/v2/health/live"): _live,
    ("GET", "/v2/health/ready"): _ready,
}
