"""A sealed request as it arrives: its header, then its head, then its body piece by piece (docs/spec/sealed.md §3, §5).

Leaves out: whose keys open it and whether it may run (sealed_door.py), and what is answered (sealed_answer.py).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from blindai.channel.exchange import (
    MAGIC_BYTES,
    REQUEST_HEADER_BYTES,
    REQUEST_MAGIC,
    SESSION_HEADER_BYTES,
    SESSION_REQUEST_MAGIC,
)
from blindai.channel.sealed import RequestReader
from blindai.receipts import BodyCommitment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blindai.channel.exchange import Exchange
    from blindai.channel.heads import RequestHead
    from blindai.channel.keyring import HeldKey
    from blindai.errors import BlindAIError
    from blindai.oip.rest import HeaderMemory
    from blindai.server.access import Principal

_HEADER_BYTES = {REQUEST_MAGIC: REQUEST_HEADER_BYTES, SESSION_REQUEST_MAGIC: SESSION_HEADER_BYTES}


class OuterError(Exception):
    """A failure before the content key is known: an empty answer with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Incoming:
    """The request's bytes. `read_header`, then `read_head`; iterating gives the body's data, each piece authenticated.

    Args:
        received: the bytes as they arrive, never an empty piece; `None` if all are there.
        ahead: those that have arrived.

    Attributes:
        commitments: the receipt's, to the request as far as it was iterated and to the response to come; None if no
            receipt is wished.
    """

    __slots__ = ("_ahead", "_digest", "_pieces", "_reader", "_received", "commitments")

    def __init__(self, received: AsyncIterator[bytes] | None, ahead: bytes = b"") -> None:
        self._received = received
        self._ahead = ahead
        self._pieces: deque[memoryview] = deque()
        self._digest: bytes | None = None
        self.commitments: tuple[BodyCommitment, BodyCommitment] | None = None

    async def read_header(self) -> bytes:
        """What stands before the frames, a session's or one-shot.

        Raises:
            OuterError: another magic, or an end too early.
        """
        data = self._ahead
        while (size := _header_bytes(data)) > len(data):
            piece = await self._next()
            if not piece:
                raise OuterError(400)
            data += piece
        self._ahead = data[size:]
        return data[:size]

    async def read_head(self, exchange: Exchange) -> RequestHead:
        """Frame 0, and as much of the body as came with it.

        Raises:
            SealedMessageError: not exactly the frames that these keys open.
            TruncatedMessageError: an end too early.
        """
        self._reader = RequestReader(exchange)
        while self._reader.head is None:
            await self._read_on()
        head = self._reader.head
        if head.wants_receipt:
            self.commitments = BodyCommitment.to_both(head.salt)
        return head

    def take_whole(self) -> memoryview | None:
        """All of the body's data, if all bytes had arrived before they were read and the data lie in one piece.

        Of others the end is awaited, since no byte may follow the last frame (§3).
        """
        if self._received is not None or not self._reader.finished or len(self._pieces) > 1:
            return None
        self._digest = self._reader.end()
        whole = self._pieces.popleft() if self._pieces else memoryview(b"")
        if self.commitments is not None:
            self.commitments[0].update(whole)
        return whole

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> memoryview:
        """The next of the body's data; the end is told only once the last frame has authenticated."""
        while not self._pieces:
            if self._digest is not None:
                raise StopAsyncIteration
            await self._read_on()
        piece = self._pieces.popleft()
        if self.commitments is not None:
            self.commitments[0].update(piece)
        return piece

    @property
    def digest(self) -> bytes | None:
        """`F`, if the request was read to its last frame."""
        if self._digest is None and self._reader.finished:
            return self._reader.end()
        return self._digest

    async def _read_on(self) -> None:
        received = self._ahead or await self._next()
        self._ahead = b""
        if received:
            self._pieces.extend(self._reader.feed(received))
        else:
            self._digest = self._reader.end()

    async def _next(self) -> bytes:
        """What arrives next; empty at the end."""
        return b"" if self._received is None else await anext(self._received, b"")


def _header_bytes(beginning: bytes) -> int:
    """How long the header is that begins so, as far as that can be told."""
    if len(beginning) < MAGIC_BYTES:
        return MAGIC_BYTES
    size = _HEADER_BYTES.get(beginning[:MAGIC_BYTES])
    if size is None:
        raise OuterError(400)
    return size


@dataclass(slots=True, kw_only=True)
class Opened:
    """A request whose keys are known. It may run for `principal`; with a `refusal` it must not, and is answered so.

    Attributes:
        let_run_s: boot time at which it was let run, before its keyset's end: the start that a receipt tells.
    """

    held: HeldKey
    exchange: Exchange
    message: Incoming
    head: RequestHead | None = None
    principal: Principal | None = None
    memory: HeaderMemory | None = None
    refusal: BlindAIError | None = None
    let_run_s: float = 0.0
