"""One HTTP request as a handler sees it: head, body as it arrives, and one answer.

Leaves out: parsing and deadlines (http_protocol.py), and what is asked (app.py).
"""

from __future__ import annotations

import asyncio
import http
from typing import TYPE_CHECKING

from blindai.channel.heads import WireError
from blindai.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from blindai.channel.frames import Buffer
    from blindai.server.http_protocol import HttpConnection

Headers = tuple[tuple[bytes, bytes], ...]
JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
NO_STORE: tuple[bytes, bytes] = (b"cache-control", b"no-store")
_ONE_WRITE_BYTES = 64 * 1024
_WITHOUT_LENGTH = frozenset({204, 304})  # No Content, Not Modified
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


class HttpRequest:
    """One request. Made by its connection; read and answered by one handler, in one task.

    Attributes:
        method: in capitals.
        path: the target's path, percent-encoded as it came, without a query.
        headers: names in lower case, in the order of arrival.
        source: the peer's address.
        keep_alive: whether another request may follow on the connection.
        is_complete: whether the body has ended.
        is_answered: whether the answer has been handed over whole.
        has_begun: whether a part of the answer has been handed over.
        has_left: whether the connection is gone.
        is_abandonable: whether the handler is cancelled if the client leaves.
    """

    __slots__ = (
        "_connection",
        "_has_continued",
        "_is_chunked",
        "_pieces",
        "_waiter",
        "buffered_bytes",
        "has_begun",
        "has_left",
        "headers",
        "is_abandonable",
        "is_answered",
        "is_complete",
        "is_http_10",
        "keep_alive",
        "method",
        "path",
        "source",
    )

    def __init__(
        self,
        connection: HttpConnection,
        method: str,
        path: str,
        headers: Headers,
        *,
        keep_alive: bool,
        is_http_10: bool,
    ) -> None:
        self._connection = connection
        self.method, self.path, self.headers = method, path, headers
        self.source = connection.source
        self.keep_alive, self.is_http_10 = keep_alive, is_http_10
        self._has_continued = is_http_10
        self.is_complete = self.is_answered = self.has_begun = self.has_left = self.is_abandonable = False
        self.buffered_bytes = 0
        self._is_chunked = False
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None

    @property
    def notes(self) -> object:
        """What the handlers of this connection's requests keep: nothing at first."""
        return self._connection.notes

    @notes.setter
    def notes(self, notes: object) -> None:
        self._connection.notes = notes

    def values(self, name: bytes) -> list[bytes]:
        """Every value of a header (lower-case name)."""
        return [value for found, value in self.headers if found == name]

    def take_whole(self) -> bytes | None:
        """All of the body, if it has arrived already; else `body` gives it as it comes."""
        return (self._take() if self._pieces else b"") if self.is_complete else None

    async def body(self) -> AsyncIterator[bytes]:
        """The body's pieces as they arrive.

        Raises:
            ConnectionLostError: the client left before its end.
        """
        while True:
            if self._pieces:
                yield self._take()
            elif self.has_left:
                raise ConnectionLostError("the client left")
            elif self.is_complete:
                return
            else:
                await self._more()

    def let_leave_cancel(self) -> None:
        """From now on nothing is lost but work if the handler is cancelled, so a client that leaves cancels it.

        Raises:
            ConnectionLostError: it has left already.
        """
        if self.has_left:
            raise ConnectionLostError("the client left")
        self.is_abandonable = True

    async def answer(self, status: int, *body: Buffer, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answer in one piece, with its length.

        Raises:
            ConnectionLostError: the client left.
        """
        size = 0
        for piece in body:
            size += len(piece) if type(piece) is bytes else memoryview(piece).nbytes
        end = b"\r\n" if status in _WITHOUT_LENGTH else b"content-length: %d\r\n\r\n" % size
        head = (_STATUS_LINES[status], *self._own_headers(), *_lines(headers), end)
        if self.method == "HEAD":
            self._write(b"".join(head))
        elif size <= _ONE_WRITE_BYTES:
            self._write(b"".join((*head, *body)))
        else:
            self._write(b"".join(head))
            for piece in body:
                self._write(memoryview(piece).cast("B"))
        self.is_answered = True
        if self._connection.is_writing_paused:
            await self._connection.drain()

    async def refuse(self, status: int, code: str, words: str, *headers: tuple[bytes, bytes]) -> None:
        """Answer with an error in JSON, as every door words them."""
        body = WireError(code=code, message=words).encode()
        await self.answer(status, body, headers=(JSON, NO_STORE, *headers))

    async def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin an answer whose length is not known yet."""
        self._is_chunked = not self.is_http_10
        if not self._is_chunked:
            self.keep_alive = False  # the end of the connection is the end of the answer
        coding = (b"transfer-encoding: chunked\r\n",) if self._is_chunked else ()
        self._write(b"".join((_STATUS_LINES[status], *self._own_headers(), *_lines(headers), *coding, b"\r\n")))

    async def write(self, piece: bytes) -> None:
        """Go on with an answer that was begun; waits while the client does not read.

        Raises:
            ConnectionLostError: the client left.
        """
        if piece and self.method != "HEAD":
            self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece)
        await self._connection.drain()

    async def end(self) -> None:
        """End an answer that was begun."""
        if self._is_chunked and self.method != "HEAD":
            self._write(b"0\r\n\r\n")
        self.is_answered = True
        await self._connection.drain()

    def receive(self, piece: bytes) -> None:
        """From the connection: more of the body. One that nobody will read is dropped."""
        if self.is_answered or self.has_left:
            return
        self._pieces.append(piece)
        self.buffered_bytes += len(piece)
        self._wake()

    def receive_whole(self, body: bytes) -> None:
        """From the connection: all of the body, before anybody waits for it."""
        self._pieces.append(body)
        self.buffered_bytes = len(body)
        self.is_complete = True

    def complete(self) -> None:
        """From the connection: the body has ended."""
        self.is_complete = True
        self._wake()

    def leave(self) -> None:
        """From the connection: nobody is there any more."""
        self.has_left = True
        self._wake()

    def _take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self.buffered_bytes = 0
        if self._connection.is_reading_paused:
            self._connection.update_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _more(self) -> None:
        if not self._has_continued:
            self._has_continued = True
            if not self.has_begun and self.values(b"expect") == [b"100-continue"]:
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110 §10.1.1
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _own_headers(self) -> tuple[bytes, ...]:
        if self._connection.server.is_draining:
            self.keep_alive = False
        date = self._connection.server.date_line()
        if not self.keep_alive:
            return date, b"connection: close\r\n"
        return (date, b"connection: keep-alive\r\n") if self.is_http_10 else (date,)

    def _write(self, data: Buffer) -> None:
        if self.has_left:
            raise ConnectionLostError("the client left")
        self.has_begun = True
        self._connection.write(data)


def _lines(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    return [b"%b: %b\r\n" % pair for pair in headers]
