"""A request as every door hands it in, and what goes back: `Call` and `Reply`.

Doors open messages and know nothing of models; handlers know models and nothing of messages. This is the seam.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from blindai.channel.heads import WireError
from blindai.errors import (
    BlindAIError,
    InferenceError,
    InternalError,
    ModelNotReadyError,
    ModelStoreError,
    OverloadedError,
    TooLargeError,
    UnsupportedEncodingError,
)
from blindai.server.content_encoding import ENCODINGS, inflated
from blindai.wire import compact_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from blindai.channel.frames import Buffer
    from blindai.oip.rest import HeaderMemory
    from blindai.receipts import ModelIdentity
    from blindai.server.access import Principal
    from blindai.server.budget import Share


JSON = (("content-type", "application/json"),)


def _nobody_leaves() -> None:
    """For doors that cancel by themselves."""


class Call(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One request, opened and authenticated up to its head; the body comes as it arrives.

    Attributes:
        principal: who asks.
        method: HTTP's; HEAD is answered as GET, and its door leaves the body out.
        path: as it stands in the request, percent-encoded, without a query.
        headers: values by lower-case names; of a header that came twice, the first.
        body: all of it, if its door has it already; else its pieces.
        door: which it came through, for metrics.
        memory: of what the same client sent before, if its door keeps one.
        let_leave_cancel: called by a handler that may be cancelled from then on, since only work would be lost; then
            a client that leaves cancels it.
    """

    principal: Principal
    method: str
    path: str
    headers: Mapping[str, str]
    body: AsyncIterator[memoryview] | memoryview
    door: str = "sealed"
    memory: HeaderMemory | None = None
    let_leave_cancel: Callable[[], None] = _nobody_leaves

    def __repr__(self) -> str:
        """Without headers and body, which are the user's."""
        return f"Call(door={self.door!r}, method={self.method!r}, path={self.path!r})"

    async def read_body(self, max_bytes: int, share: Share) -> memoryview:
        """The whole body, inflated if it is compressed.

        A handler that changes something reads it first, since only then is the request authentic.

        Raises:
            TooLargeError: more than `max_bytes`.
            OverloadedError: more than the server can hold now.
            UnsupportedEncodingError: compressed in another way than gzip or deflate.
            InvalidInputError: not compressed as it says.
        """
        encoding = self.headers.get("content-encoding")
        if encoding is None and isinstance(self.body, memoryview):
            _take(len(self.body), 0, max_bytes, share)
            return self.body
        body = bytearray()
        async for piece in self.pieces() if encoding is None else inflated(self.pieces(), encoding):
            _take(len(piece), len(body), max_bytes, share)
            body += piece
        return memoryview(body).toreadonly()

    async def read_no_body(self) -> None:
        """The end of a request without a body.

        Raises:
            TooLargeError: it has one.
        """
        async for piece in self.pieces():
            if len(piece):
                raise TooLargeError("this request takes no body")

    async def pieces(self) -> AsyncIterator[memoryview]:
        """The body, piece by piece."""
        if isinstance(self.body, memoryview):
            yield self.body
            return
        async for piece in self.body:
            yield piece


class Reply(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a handler answers. `model` is set when a model ran, and stands in the receipt."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: tuple[Buffer, ...] = ()
    model: ModelIdentity | None = None

    def __repr__(self) -> str:
        """Without the body, which is the user's."""
        return f"Reply(status={self.status}, model={self.model!r})"


def _take(size: int, held: int, max_bytes: int, share: Share) -> None:
    if held + size > max_bytes:
        raise TooLargeError(f"a request body has at most {max_bytes} bytes here")
    share.take(size)


def wire_error(error: Exception) -> tuple[int, WireError]:
    """Status and words of a failure; what is not one of ours says nothing about itself."""
    if isinstance(error, (InferenceError, ModelStoreError)):
        return error.status, WireError(code=error.code, message=str(error), hint=error.hint)
    if isinstance(error, BlindAIError):
        return 400, WireError(code=error.code, message=str(error), hint=error.hint)
    return InternalError.status, WireError(code=InternalError.code, message="the server failed on this request")


def error_reply(error: Exception, *headers: tuple[str, str]) -> Reply:
    """The answer that a failure becomes."""
    status, wire = wire_error(error)
    return Reply(status=status, headers=(*JSON, *_advice(error), *headers), body=(wire.encode(),))


def _advice(error: Exception) -> tuple[tuple[str, str], ...]:
    """What a client may do about it, as headers."""
    if isinstance(error, UnsupportedEncodingError):
        return (("accept-encoding", ", ".join(ENCODINGS)),)
    if isinstance(error, InferenceError) and error.retry_after_s is not None:
        return (("retry-after", str(error.retry_after_s)),)
    return (("retry-after", "1"),) if isinstance(error, OverloadedError | ModelNotReadyError) else ()


def json_reply(value: Any) -> Reply:
    """An answer of JSON."""
    return Reply(headers=JSON, body=(compact_json(value),))
