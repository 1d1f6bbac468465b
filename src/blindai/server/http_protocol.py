"""HTTP with bounds that hold before anybody has proved anything: sizes of heads, and time for heads, bodies, answers.

uvicorn's protocol parses; this counts and watches the clock around it.
Leaves out: how many requests run (uvicorn's `limit_concurrency`) and how large bodies may be (`budget`, `frames`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"  # RFC 6585 §5
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one connection may take.

    Attributes:
        max_connections: twice as many are accepted, so that those above it can be told; the rest is cut.
        max_head_bytes: of a request's head, and of what stands between two pieces of a body or after it.
        head_timeout_s: from the connection, or the first byte of a later request, to the end of its head.
        idle_timeout_s: in which `min_progress_bytes` of a body arrive, and an answer that waits is read on.
        min_progress_bytes: so that a byte now and then does not hold a connection for ever.
    """

    max_connections: int = 1024
    max_head_bytes: int = 64 * 1024
    head_timeout_s: float = 30.0
    idle_timeout_s: float = 60.0
    min_progress_bytes: int = 8 * 1024


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. Made by uvicorn, hence a class for each set of limits (`bounded_protocol`)."""

    limits: ClassVar[HttpLimits] = HttpLimits()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True
        self._unparsed_bytes = 0  # since the parser last got somewhere: through a head, or further in a body
        self._progress_bytes = 0
        self._request_deadline: asyncio.TimerHandle | None = None  # head, then body
        self._answer_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A connection that never says anything ends as one that stops in a head."""
        super().connection_made(transport)
        if len(self.connections) > 2 * self.limits.max_connections:
            transport.abort()
            return
        self._watch_request(self.limits.head_timeout_s, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer outlives its connection."""
        self._watch_request(None)
        self._watch_answer(watched=False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand at most as much to the parser as a head may still have; it keeps what it cannot finish yet."""
        rest = memoryview(data)
        while rest and not self.transport.is_closing():
            piece = rest[: self.limits.max_head_bytes - self._unparsed_bytes]
            if not piece:
                self._refuse_head()
                return
            self._unparsed_bytes += len(piece)
            super().data_received(piece)  # type: ignore[arg-type]  # httptools takes any buffer
            rest = rest[len(piece) :]
        if self._in_head and self._unparsed_bytes and self._request_deadline is None and not self._is_answering():
            self._watch_request(self.limits.head_timeout_s, self._cut)

    def on_headers_complete(self) -> None:
        """The head is there: from now on the body must come."""
        self._in_head = False
        self._unparsed_bytes = self._progress_bytes = 0
        self._watch_request(self.limits.idle_timeout_s, self._check_progress)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some more of the body."""
        self._unparsed_bytes = 0
        self._progress_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has ended; what comes next is another head."""
        self._in_head = True
        self._unparsed_bytes = 0
        self._watch_request(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A head that had begun behind this request has its own time from now."""
        super().on_response_complete()
        if self._in_head and self._unparsed_bytes and not self.transport.is_closing():
            self._watch_request(self.limits.head_timeout_s, self._cut)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered: it has until then to read on."""
        super().pause_writing()
        self._watch_answer(watched=True)

    def resume_writing(self) -> None:
        """It has read on."""
        self._watch_answer(watched=False)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """A client that has not even read its answer will not answer the end of its connection either."""
        if self.transport.get_write_buffer_size():
            self._cut()
        else:
            super().timeout_keep_alive_handler()

    def _check_progress(self) -> None:
        """While we do not read, it is not the client that is slow."""
        if self._progress_bytes < self.limits.min_progress_bytes and not self.flow.read_paused:
            self._cut()
            return
        self._progress_bytes = 0
        self._watch_request(self.limits.idle_timeout_s, self._check_progress)

    def _watch_request(self, timeout_s: float | None, then: Callable[[], None] | None = None) -> None:
        if self._request_deadline is not None:
            self._request_deadline.cancel()
        self._request_deadline = None if timeout_s is None or then is None else self.loop.call_later(timeout_s, then)

    def _watch_answer(self, *, watched: bool) -> None:
        if self._answer_deadline is not None:
            self._answer_deadline.cancel()
        self._answer_deadline = self.loop.call_later(self.limits.idle_timeout_s, self._cut) if watched else None

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation leaves out the time before the first
        return cycle is not None and not cycle.response_complete

    def _refuse_head(self) -> None:
        if self._is_answering():
            self._cut()
            return
        self.transport.write(_HEAD_TOO_LARGE)
        self.transport.close()

    def _cut(self) -> None:
        """End the connection without waiting for the other side, which has shown that it does not answer."""
        self.transport.abort()


def bounded_protocol(limits_: HttpLimits) -> type[BoundedHttpProtocol]:
    """The class that uvicorn makes connections of."""

    class Configured(BoundedHttpProtocol):
        limits = limits_

    return Configured
