"""HTTP/1.1 on one connection, with bounds that hold before anybody has proved anything (RFC 9112).

httptools parses, strictly; this orders requests (one runs at a time, those sent behind it wait), refuses what could be
read in two ways, and watches sizes and time of heads, bodies and answers. Every limit stands in http_limits.py.
Leaves out: listening and draining (http_server.py), how large bodies may be (`budget`, `frames`), HTTP/2, upgrades.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import httptools

from blindai.channel.heads import WireError
from blindai.errors import ConnectionLostError
from blindai.server.http_head import KnownHead, judge, path_of
from blindai.server.http_request import HttpRequest
from blindai.server.log import LOG

if TYPE_CHECKING:
    from blindai.channel.frames import Buffer
    from blindai.server.http_server import HttpServer

_FRAMING = (b"content-length", b"transfer-encoding")
_REFUSALS = {
    400: (b"400 Bad Request", "bad_request", "this is not HTTP/1.1 as this server reads it"),
    431: (b"431 Request Header Fields Too Large", "too_large", "the request's head is too large"),  # RFC 6585 §5
    503: (b"503 Service Unavailable", "overloaded", "too many connections; try again in a second"),
    505: (b"505 HTTP Version Not Supported", "bad_request", "this server speaks HTTP/1.1"),
}


class HttpConnection(asyncio.Protocol):
    """One connection; its server makes it, and looks at its deadlines."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.source = ""
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._is_above_limit = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._known: KnownHead | None = None
        self.notes: object = None  # what a handler wishes to keep as long as the connection lives
        self._in_head = True  # a connection that never says anything ends as one that stops in a head
        self._unparsed_bytes = 0  # since the parser last got somewhere: through a head, or further in a body
        self._refusal = 0  # a status, set while the parser runs
        self._is_deaf = False  # what comes behind the last request is not read
        self._unfed: memoryview | None = None  # behind a request that waits
        self._received: HttpRequest | None = None  # whose body is being read
        self._waiting: deque[HttpRequest] = deque()
        self._running: HttpRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self.is_reading_paused = False
        self._drained: asyncio.Future[None] | None = None
        self._since_s = self._loop.time()  # head or idleness; the body's last look; which of them, `check` knows
        self._write_paused_s = 0.0
        self._body_bytes = self._progress_bytes = self._chunks = 0

    @property
    def is_idle(self) -> bool:
        """Whether it would not be missed."""
        return self._running is None and not self._waiting

    @property
    def is_writing_paused(self) -> bool:
        """Whether the client does not read what it is answered."""
        return self._drained is not None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The handler that runs."""
        return self._task

    @property
    def _is_between(self) -> bool:
        """Whether nothing of a request is there that does not run already."""
        return self._is_whole and not self._waiting

    @property
    def _is_whole(self) -> bool:
        """Whether what came last was the end of a request."""
        return self._received is None and not self._in_head

    # ── the transport's side ──

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        """Accept it, if there is room to tell it anything."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.source = str(peer[0]) if peer else ""
        limit = self._limits.max_connections
        if self.server.is_draining or len(self.server.connections) >= 2 * limit:
            transport.abort()
            return
        self._is_above_limit = len(self.server.connections) >= limit
        self.server.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for this client learns that it left."""
        del exc
        self.server.leave(self)
        self._transport = None
        self._waiting.clear()
        self._unfed = None
        self._leave(self._running)
        self._leave(self._received)
        if self._running and self._running.is_abandonable and self._task:
            self._task.cancel()
        self._release_writer()
        self._received = None
        del self._parser  # it holds this connection, which would stay until the collector looked, with what it received

    def data_received(self, data: bytes) -> None:
        """Some bytes; those behind a request that waits are kept until it has run."""
        self.server.received_bytes += len(data)
        if self._unfed is not None:
            self._unfed = memoryview(bytes(self._unfed) + data)
            return
        if not self._repeats(data):
            was_between = self._is_between
            self._feed(memoryview(data))
            if was_between:
                self._learn(data)
        self._advance()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered: it has until `idle_timeout_s` to read on."""
        self._drained = self._loop.create_future()
        self._write_paused_s = self._loop.time()

    def resume_writing(self) -> None:
        """It has read on."""
        self._release_writer()

    # ── the parser's side ──

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self._in_head = True
        self._url = b""
        self._headers = []
        if self._running is None:
            self._since_s = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers are dropped."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there: from now on the body must come."""
        self._in_head = False
        self._unparsed_bytes = self._body_bytes = self._progress_bytes = self._chunks = 0
        self._since_s = self._loop.time()
        version, headers = self._parser.get_http_version(), tuple(self._headers)
        upgrades = self._parser.should_upgrade()
        if upgrades and any(name in _FRAMING for name, _ in headers):
            self._refusal = 400  # the parser takes what follows for the other protocol, and not for the body it is
        self._refusal = self._refusal or judge(version, headers, self._limits.max_headers)
        request = HttpRequest(
            self,
            self._parser.get_method().decode("ascii"),
            path_of(self._url),
            headers,
            keep_alive=self._parser.should_keep_alive() and not upgrades,
            is_http_10=version == "1.0",
        )
        self._received = request
        self._waiting.append(request)

    def on_chunk_header(self) -> None:
        """One more chunk; tiny ones cost more than their size says."""
        self._chunks += 1
        if self._chunks > self._limits.spare_chunks + self._body_bytes // self._limits.chunk_bytes:
            self._refusal = 400

    def on_body(self, body: bytes) -> None:
        """Some more of the body."""
        self._unparsed_bytes = 0
        self._body_bytes += len(body)
        self._progress_bytes += len(body)
        if self._received is not None:
            self._received.receive(body)

    def on_message_complete(self) -> None:
        """The request has ended; what comes next is another head."""
        self._unparsed_bytes = 0
        if self._received is not None:
            self._received.complete()
            self._is_deaf = not self._received.keep_alive
            self._received = None

    # ── what happens next ──

    def update_reading(self) -> None:
        """Read no further while a request waits behind another, or its body waits to be taken."""
        received, transport = self._received, self._transport
        if transport is None or transport.is_closing():
            return
        behind = self._running is not None and (bool(self._waiting) or self._unfed is not None)
        full = received is not None and received.buffered_bytes > self._limits.max_buffered_bytes
        if (behind or full) == self.is_reading_paused:
            return
        self.is_reading_paused = not self.is_reading_paused
        if self.is_reading_paused:
            transport.pause_reading()
        else:
            self._since_s, self._progress_bytes = self._loop.time(), 0  # while we did not read, it was not the client
            transport.resume_reading()

    def write(self, data: Buffer) -> None:
        """Hand bytes to the transport, if it is still there."""
        if self._transport is not None:
            self.server.sent_bytes += len(data)
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has read on, or left."""
        if self._drained is not None:
            await self._drained

    def check(self, now_s: float) -> None:
        """End the connection if its time is over; called every now and then."""
        if self._drained is not None and now_s - self._write_paused_s > self._limits.idle_timeout_s:
            self.cut()
        elif self._received is not None:
            self._check_body(now_s)
        elif self._running is None and self._in_head and now_s - self._since_s > self._limits.head_timeout_s:
            self.cut()
        elif self._running is None and not self._in_head and now_s - self._since_s > self._limits.keep_alive_s:
            self._end_idle()

    def close(self) -> None:
        """End the connection once what was written has left."""
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """End the connection without waiting for the other side, which has shown that it does not answer."""
        if self._transport is not None:
            self._transport.abort()

    def _repeats(self, data: bytes) -> bool:
        """Take a whole request whose head is known."""
        known = self._known
        if known is None or not self._is_between or self._is_deaf or not known.begins(data):
            return False
        self._unparsed_bytes = 0  # an empty line before it, which the parser has passed over
        request = HttpRequest(self, known.method, known.path, known.headers, keep_alive=True, is_http_10=False)
        request.receive_whole(data[len(known.head) :])
        self._waiting.append(request)
        return True

    def _learn(self, data: bytes) -> None:
        """Remember the head of a request that came alone and whole."""
        if len(self._waiting) == 1 and self._is_whole and not (self._refusal or self._chunks or self._unfed):
            self._known = KnownHead.of(self._waiting[0], data, self._body_bytes)

    def _feed(self, data: memoryview) -> None:
        """Hand at most as much to the parser as a head may still have; it keeps what it cannot finish yet."""
        while data and not (self._is_deaf or self._transport is None or self._transport.is_closing()):
            if self._waiting and self._received is None:
                self._unfed = data
                return
            piece = data[: self._limits.max_head_bytes - self._unparsed_bytes]
            data = data[len(piece) :]
            self._unparsed_bytes += len(piece)
            self._parse(piece)
            if self._refusal:
                self._refuse(self._refusal)
                return

    def _parse(self, piece: memoryview) -> None:
        if not piece:
            self._refusal = 431 if self._in_head else 400
            return
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            return  # the request itself is whole; nothing else is spoken here, and the connection ends behind it
        except httptools.HttpParserError:
            if not self._is_deaf:
                self._refusal = self._refusal or 400

    def _advance(self) -> None:
        """Start the next request if none runs."""
        while self._running is None and self._waiting and self._transport is not None:
            if self._transport.is_closing():
                return
            request = self._waiting.popleft()
            if self._is_above_limit:
                self._refuse(503)
                return
            self._running = request
            self._task = self._loop.create_task(self._run(request))
        if self.is_reading_paused or self._waiting or self._received is not None or self._unfed is not None:
            self.update_reading()

    async def _run(self, request: HttpRequest) -> None:
        try:
            await self.server.handler(request)
        except ConnectionLostError:
            LOG.debug("a client left before its request ended")
        except Exception as error:  # noqa: BLE001  # nothing of a request may reach the log or end the connection's task
            LOG.error("a handler failed: %s", type(error).__name__)
        finally:
            self._finish(request)

    def _finish(self, request: HttpRequest) -> None:
        """The handler has ended: close, drop the rest of the body, or go on with the next request."""
        self._running = self._task = None
        if self._transport is None or self._transport.is_closing():
            return
        self._since_s = self._loop.time()
        if not request.is_answered:
            self.cut()
            return
        if not request.keep_alive:
            self.close()
            return
        unfed, self._unfed = self._unfed, None
        if unfed is not None and not self._waiting:
            self._feed(unfed)
        else:
            self._unfed = unfed
        self._advance()

    def _refuse(self, status: int) -> None:
        """Say why, if the client can still tell which request is meant; then end the connection."""
        request = self._running
        can_tell = request is None or (request is self._received and not request.has_begun)
        self._leave(request)
        self._leave(self._received)
        self._waiting.clear()
        self._received = None
        if not can_tell:
            self.cut()
            return
        line, code, words = _REFUSALS[status]
        body = WireError(code=code, message=words).encode()
        self.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (line, len(body), body)
        )
        if self._transport is not None:
            self._transport.close()

    def _check_body(self, now_s: float) -> None:
        """While we do not read, it is not the client that is slow."""
        if self.is_reading_paused or now_s - self._since_s < self._limits.idle_timeout_s:
            return
        if self._progress_bytes < self._limits.min_progress_bytes:
            self.cut()
            return
        self._since_s, self._progress_bytes = now_s, 0

    def _end_idle(self) -> None:
        """A client that has not even read its answer will not answer the end of its connection either."""
        assert self._transport is not None  # noqa: S101  # `check` is called for open connections
        if self._transport.get_write_buffer_size() or self._transport.is_closing():
            self.cut()
        else:
            self.close()

    def _release_writer(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    @staticmethod
    def _leave(request: HttpRequest | None) -> None:
        if request is not None:
            request.leave()
