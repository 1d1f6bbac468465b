"""Sealed messages: a request and its answer as byte streams, written and read by either end (docs/spec/sealed.md).

    client: RequestWriter ──► server: RequestReader
    client: AnswerReader  ◄── server: AnswerWriter

Nothing here does I/O: writers yield bytes, readers are fed them, and both hold at most one frame.
Leaves out: where keys come from (exchange.py) and when a request may run (sessions.py, keyring.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.channel.exchange import ANSWER_HEADER_BYTES, NONCE_BYTES, Exchange
from blindai.channel.frames import (
    HEAD_BLOCK_BYTES,
    Buffer,
    Frame,
    FrameOpener,
    FrameSealer,
    FrameType,
    PaddingBounds,
    cut_body,
)
from blindai.channel.heads import (
    RequestHead,
    ResponseHead,
    Trailer,
    parse_request_head,
    parse_response_head,
    parse_trailer,
)
from blindai.errors import SealedMessageError, TruncatedMessageError
from blindai.wire import label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ERROR_STATUS = 400


class RequestWriter:
    """Client: the bytes of one request, once.

    Attributes:
        exchange: the request's keys.
    """

    __slots__ = ("_full", "_sealer", "exchange")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._sealer = FrameSealer(exchange.request_keys)
        self._full = hashlib.sha256(label("request-full") + exchange.header)

    @property
    def digest(self) -> bytes:
        """`F` over what was yielded so far."""
        return self._full.digest()

    def write(self, head: RequestHead, body: Iterable[Buffer]) -> Iterator[bytes]:
        """Header, head and body frames; the body is read as it goes."""
        head_frame = self._sealer.seal_head(head.encode())
        self._full.update(head_frame)
        yield self.exchange.header + head_frame
        held: tuple[Buffer, int] | None = None
        for cut in cut_body(body, padded=head.padded):
            if held:
                yield self._seal(FrameType.MORE, held)
            held = cut
        assert held is not None  # noqa: S101  # cut_body yields at least once
        yield self._seal(FrameType.LAST, held)

    def _seal(self, kind: FrameType, cut: tuple[Buffer, int]) -> bytes:
        frame = self._sealer.seal(kind, cut[0], zeros=cut[1])
        self._full.update(frame)
        return frame


class RequestReader:
    """Server: reads the frames that follow a request's header.

    Attributes:
        exchange: the request's keys.
        head: None until frame 0 has been opened.
        finished: whether the last frame has authenticated.
    """

    __slots__ = ("_full", "_opener", "_padding", "exchange", "head")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.head: RequestHead | None = None
        self._opener = FrameOpener(exchange.request_keys)
        self._padding = PaddingBounds()
        self._full = hashlib.sha256(label("request-full") + exchange.header)

    @property
    def finished(self) -> bool:
        """Whether the last frame has authenticated."""
        return self._opener.finished

    def feed(self, received: Buffer) -> list[memoryview]:
        """Open what `received` completes and return the body data in it.

        Raises:
            SealedMessageError: anything but exactly the next frames.
        """
        self._full.update(received)  # `F` is over the frames as sent, and counts only if no byte follows the last one
        frames = self._opener.feed(received)
        if self.head is None and frames:
            self.head = parse_request_head(bytes(frames.pop(0).data))
        for frame in frames:
            self._padding.check(frame)
        return [frame.data for frame in frames if frame.data]

    def end(self) -> bytes:
        """Say that no more bytes come, and take `F`.

        Raises:
            TruncatedMessageError: the last frame has not arrived.
        """
        self._opener.end()
        return self._full.digest()


class AnswerWriter:
    """Server: the bytes of one answer, in the order start, body, end."""

    __slots__ = ("_sealer", "header")

    def __init__(self, exchange: Exchange, random: Callable[[int], bytes]) -> None:
        self.header = exchange.answer_prefix + random(NONCE_BYTES)
        self._sealer = FrameSealer(exchange.answer_keys(self.header))

    def start(self, head: ResponseHead) -> bytes:
        """Header and head frame."""
        return self.header + self._sealer.seal_head(head.encode())

    def body(self, pieces: Iterable[Buffer], *, padded: bool) -> Iterator[bytes]:
        """The body's frames."""
        for data, zeros in cut_body(pieces, padded=padded):
            if data or zeros:
                yield self._sealer.seal(FrameType.MORE, data, zeros=zeros)

    def end(self, trailer: Trailer) -> bytes:
        """The last frame, padded to hide the receipt's length."""
        data = trailer.encode()
        return self._sealer.seal(FrameType.LAST, data, zeros=-(4 + len(data)) % HEAD_BLOCK_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer that verified: head, body and trailer, and the header from which a session may derive."""

    header: bytes
    head: ResponseHead
    body: bytes
    trailer: Trailer


class AnswerReader:
    """Client: reads one answer and says whether it is a whole one to the request that was sent."""

    __slots__ = ("_body", "_exchange", "_head", "_header", "_max_body_bytes", "_opener", "_padding", "_trailer")

    def __init__(self, exchange: Exchange, *, max_body_bytes: int) -> None:
        self._exchange = exchange
        self._max_body_bytes = max_body_bytes
        self._header = bytearray()
        self._head: ResponseHead | None = None
        self._body = bytearray()
        self._trailer = b""
        self._opener: FrameOpener | None = None
        self._padding = PaddingBounds()

    def feed(self, received: Buffer) -> None:
        """Take bytes as they arrive.

        Raises:
            SealedMessageError: not an answer to this request, or changed.
        """
        view = memoryview(received)
        if self._opener is None:
            missing = ANSWER_HEADER_BYTES - len(self._header)
            self._header += view[:missing]
            view = view[missing:]
            if len(self._header) < ANSWER_HEADER_BYTES:
                return
            self._opener = FrameOpener(self._exchange.answer_keys(bytes(self._header)))
        for frame in self._opener.feed(view):
            self._take(frame)

    def finish(self, request_digest: bytes) -> Answer:
        """The answer, if it is whole and answers exactly what was sent (`F`).

        Raises:
            TruncatedMessageError: the last frame has not arrived.
            SealedMessageError: the server did not read exactly the request that was sent.
        """
        if self._opener is None:
            raise TruncatedMessageError("the answer ended before its last frame")
        self._opener.end()
        assert self._head is not None  # noqa: S101  # a last frame comes after a head (frames.py checks frame 0)
        trailer = parse_trailer(self._trailer)
        if self._head.status < ERROR_STATUS and trailer.request_digest != request_digest:
            raise SealedMessageError("the server answers a request that is not the one that was sent")
        return Answer(header=bytes(self._header), head=self._head, body=bytes(self._body), trailer=trailer)

    def _take(self, frame: Frame) -> None:
        if self._head is None:
            self._head = parse_response_head(bytes(frame.data))
            return
        if frame.type is FrameType.LAST:
            if frame.zeros >= HEAD_BLOCK_BYTES:
                raise SealedMessageError("more padding than a trailer has")
            self._trailer = bytes(frame.data)
            return
        self._padding.check(frame)
        if len(self._body) + len(frame.data) > self._max_body_bytes:
            raise SealedMessageError(f"the answer is larger than the {self._max_body_bytes} bytes that are accepted")
        self._body += frame.data
