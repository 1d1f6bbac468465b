"""HTTP/1.1 inside an event loop, on aiohttp with everything switched off that could act on its own.

Nothing is ever sent twice, not even what aiohttp would call idempotent. Bodies are ordinary iterables and are pulled
in the loop's own thread, between other tasks. Leaves out: redirects, proxies, cookies, decompression, netrc, and the
meaning of what is carried.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import aiohttp
from yarl import URL

from blindai.client.http_message import AnswerBody, outgoing
from blindai.client.transport import (
    CHUNK_BYTES,
    MAX_IDLE_S,
    PINNED_VERSION,
    cannot_connect,
    check_pins,
    connection_lost,
    make_tls_context,
    not_http,
    spki_digest,
)
from blindai.errors import ChannelError, PeerKeyMismatchError

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Iterator

    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from blindai.client.http_message import Chunk
    from blindai.client.transport import HttpRequest, HttpResponse, ServerUrl

MAX_CONNECTIONS = 512
_ASKED: ContextVar[HttpRequest | None] = ContextVar("asked", default=None)  # by the task that aiohttp connects for
_PAUSE_S = 0.05
_LOOP_TURNS = 4  # read the end, shut TLS down, close, tell aiohttp


class _NotResentError(aiohttp.ClientError):
    """What a broken connection becomes before aiohttp's own loop could send the request again."""


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool, in which a failed exchange is not repeated and ends its connection at once.

    aiohttp alone would shut TLS down first, and wait up to 30 s for a server that may have stopped listening.
    """

    def __init__(self, url: ServerUrl, *, certificate: str | os.PathLike[str] | None = None) -> None:
        context = make_tls_context(certificate) if url.scheme == "https" else False
        super().__init__(ssl=context, limit=MAX_CONNECTIONS, keepalive_timeout=MAX_IDLE_S)
        self._url = url
        self._used: WeakKeyDictionary[aiohttp.ClientRequest, asyncio.Transport] = WeakKeyDictionary()
        self._shown: WeakKeyDictionary[asyncio.Transport, bytes] = WeakKeyDictionary()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's own signature
    ) -> Connection:
        """What aiohttp calls for each request, before it writes anything."""
        connection = await super().connect(req, traces, timeout)
        asked = _ASKED.get()
        if asked is not None and asked.pins is not None:
            try:
                check_pins(self._url, asked, self._shown_key(connection.transport))
            except PeerKeyMismatchError:
                _cut(connection.transport)
                connection.close()
                raise
        if connection.transport is not None:
            self._used[req] = connection.transport
        return connection

    def _shown_key(self, transport: asyncio.Transport | None) -> bytes | None:
        """The public key that the server proved in the handshake; None outside TLS 1.3, where we rely on none."""
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object") if transport else None
        if transport is None or tls is None or tls.version() != PINNED_VERSION:
            return None
        shown = self._shown.get(transport) or spki_digest(tls.getpeercert(binary_form=True))
        if shown is not None:
            self._shown[transport] = shown
        return shown

    async def attempt(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Middleware around aiohttp's sending and its reading of the answer's head."""
        try:
            return await handler(request)
        except BaseException as error:
            _cut(self._used.get(request))
            if isinstance(error, aiohttp.ClientConnectorError):
                raise  # nothing was sent, and aiohttp does not try again
            if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
                raise _NotResentError from error
            raise


def _cut(transport: asyncio.Transport | None) -> None:
    if transport is not None:
        transport.abort()


class _Upload:
    """A body as aiohttp pulls it: keeps the caller's own error, which aiohttp would wrap, and moves the deadline."""

    def __init__(self, pieces: Iterator[Chunk], timeout_s: float) -> None:
        self._pieces = pieces
        self._timeout_s = timeout_s
        self.deadline = asyncio.timeout(timeout_s)
        self.failure: Exception | None = None

    def __aiter__(self) -> _Upload:
        return self

    async def __anext__(self) -> Chunk:
        await asyncio.sleep(0)  # other tasks, and an early answer to this very request
        self.deadline.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
        try:
            piece = next(self._pieces, None)
        except Exception as error:
            self.failure = error
            raise
        if piece is None:
            self.deadline.reschedule(None)  # from here on, aiohttp watches the time between two reads
            raise StopAsyncIteration
        return piece


class AsyncTransport:
    """Sends requests to one server from one event loop, the one in which the first request is made."""

    def __init__(self, url: ServerUrl, *, certificate: str | os.PathLike[str] | None = None) -> None:
        self._certificate = certificate
        self._url = url
        self._closed = False
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_answer_s = 0.0

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send one request and take its answer.

        If the server answers and hangs up before it has the whole body, that answer is returned where the platform
        still hands it over.

        Raises:
            ConnectionLostError: the server cannot be reached, or the connection broke, stood still or took too long.
            ChannelError: the answer is too large, or not plain HTTP/1.1.
        """
        deadline = asyncio.timeout(request.deadline_s)
        try:
            async with deadline:
                return await self._send(request)
        except TimeoutError as error:
            if deadline.expired():
                raise connection_lost(self._url, error) from error
            raise  # the caller's own

    async def _send(self, request: HttpRequest) -> HttpResponse:
        out = outgoing(self._url, request)
        session = await self._ready_session()
        if out.whole is not None:
            return await self._exchange(session, request, out.headers, out.whole or None)
        upload = _Upload(out.pieces, request.timeout_s)
        try:
            async with upload.deadline:
                return await self._exchange(session, request, out.headers, upload)
        except Exception as error:
            if upload.failure is None and isinstance(error, TimeoutError) and upload.deadline.expired():
                raise connection_lost(self._url, error) from error
            if upload.failure is None:
                raise
        raise upload.failure  # outside the handler, so that it is not chained to what aiohttp made of it

    async def close(self) -> None:
        """Close every connection."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ready_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ChannelError("the client is closed", hint="make a new one")
        if self._session is None:
            self._loop, self._session = loop, self._open_session()
        elif self._loop is not loop:
            raise ChannelError("the client belongs to another event loop", hint="make one client in each event loop")
        elif loop.time() - self._last_answer_s > _PAUSE_S:
            # If the caller's code held the loop meanwhile, it has not yet seen which connections the server has closed.
            session = self._session
            for _ in range(_LOOP_TURNS):
                await asyncio.sleep(0)
            if self._closed:  # meanwhile
                raise ChannelError("the client is closed", hint="make a new one")
            return session
        return self._session

    def _open_session(self) -> aiohttp.ClientSession:
        connector = _Connector(self._url, certificate=self._certificate)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # no proxy variables, no .netrc
            auto_decompress=False,
            read_bufsize=CHUNK_BYTES,
            skip_auto_headers=("Accept", "Content-Type"),
            middlewares=(connector.attempt,),
        )

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        request: HttpRequest,
        headers: list[tuple[str, str]],
        data: bytes | _Upload | None,
    ) -> HttpResponse:
        async with await self._start(session, request, headers, data) as response:
            try:
                body = AnswerBody(request, response.status, response.headers.items())
                while piece := await self._some(response):
                    body.feed(piece)
                answer = body.response()
            finally:
                if response.connection is not None:  # not back in the pool: the answer or the upload is unfinished
                    _cut(response.connection.transport)
        self._last_answer_s = asyncio.get_running_loop().time()
        return answer

    async def _start(
        self,
        session: aiohttp.ClientSession,
        request: HttpRequest,
        headers: list[tuple[str, str]],
        data: bytes | _Upload | None,
    ) -> aiohttp.ClientResponse:
        """Send the request and read the head of the answer."""
        url = URL(f"{self._url}{request.path}", encoded=True)
        patience = aiohttp.ClientTimeout(total=None, sock_connect=request.timeout_s, sock_read=request.timeout_s)
        _ASKED.set(request)
        try:
            return await session.request(
                request.method, url, headers=headers, data=data, timeout=patience, allow_redirects=False
            )
        except aiohttp.ClientConnectorCertificateError as error:
            raise cannot_connect(self._url, error.certificate_error) from error
        except aiohttp.ClientConnectorError as error:
            raise cannot_connect(self._url, error.os_error) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise cannot_connect(self._url, error) from error
        except aiohttp.ClientResponseError as error:
            raise not_http(self._url, error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise connection_lost(self._url, error.__cause__ or error) from error

    async def _some(self, response: aiohttp.ClientResponse) -> bytes:
        """What has arrived; empty at the end."""
        try:
            return await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise connection_lost(self._url, error) from error
