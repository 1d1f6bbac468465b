"""Frames: how a byte stream is cut, padded, encrypted and read back exactly (docs/spec/sealed.md §3).

    frame i = u32 len ‖ u8 type ‖ AES-256-GCM(key, base XOR i, u32 n ‖ data[n] ‖ zeros, aad = L("frame") ‖ type)

Both ends, both directions, one-shot messages and sessions use these. Leaves out: whose keys, and what the data means.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from blindai.errors import SealedMessageError, TruncatedMessageError
from blindai.wire import label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Buffer = bytes | memoryview | bytearray

MAX_PLAINTEXT_BYTES = 1 << 20
MAX_DATA_BYTES = MAX_PLAINTEXT_BYTES - 4
MAX_HEAD_BYTES = 64 * 1024
HEAD_BLOCK_BYTES = 1024
KEY_BYTES = 32
KEYS_BYTES = KEY_BYTES + 12
MAX_FRAMES = 1 << 32
_TAG_BYTES = 16
_OVERHEAD_BYTES = 1 + _TAG_BYTES  # the type, and GCM's tag: what `len` counts beside the plaintext
_MAX_HEAD_PLAINTEXT_BYTES = -(-(4 + MAX_HEAD_BYTES) // HEAD_BLOCK_BYTES) * HEAD_BLOCK_BYTES
_SMALLEST_PADDED_BYTES = 1024
_LARGEST_POWER_BYTES = 16 * 1024


class FrameType(IntEnum):
    """What a frame says about its successor."""

    MORE = 0
    LAST = 1


_KINDS = tuple(FrameType)
_U32 = struct.Struct(">I")
_LENGTH_AND_TYPE = struct.Struct(">IB")
_AAD = tuple(label("frame") + bytes([kind]) for kind in FrameType)


class Frame(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # cheaper to make than a dataclass: three a request
    """One opened frame: its data, and how many zero bytes followed it."""

    type: FrameType
    data: memoryview
    zeros: int


class FrameSealer:
    """Encrypts frames 0, 1, 2, … under one key; each number is used once."""

    __slots__ = ("_aead", "_base", "_index")

    def __init__(self, keys: bytes) -> None:
        self._aead = AESGCM(keys[:KEY_BYTES])
        self._base = int.from_bytes(keys[KEY_BYTES:], "big")
        self._index = 0

    def seal(self, kind: FrameType, data: Buffer, *, zeros: int = 0) -> bytes:
        """The next frame as it is sent. `4 + len(data) + zeros` may not pass 1 MiB."""
        if 4 + len(data) + zeros > MAX_PLAINTEXT_BYTES or self._index >= MAX_FRAMES:
            raise SealedMessageError("a frame holds at most 1 MiB, and a message at most 2^32 frames")
        plaintext = b"".join((_U32.pack(len(data)), data, bytes(zeros)))
        nonce = (self._base ^ self._index).to_bytes(12, "big")
        self._index += 1
        ciphertext = self._aead.encrypt(nonce, plaintext, _AAD[kind])
        return _LENGTH_AND_TYPE.pack(len(ciphertext) + 1, kind) + ciphertext

    def seal_head(self, data: bytes) -> bytes:
        """Frame 0: the whole head alone, plaintext padded to a multiple of 1024."""
        if len(data) > MAX_HEAD_BYTES:
            raise SealedMessageError(f"a head has at most {MAX_HEAD_BYTES} bytes, this one has {len(data)}")
        return self.seal(FrameType.MORE, data, zeros=-(4 + len(data)) % HEAD_BLOCK_BYTES)


class FrameOpener:
    """Reads frames 0, 1, 2, … from bytes as they arrive, and refuses whatever is not exactly the next one."""

    __slots__ = ("_aead", "_base", "_index", "_missing", "_rest", "finished")

    def __init__(self, keys: bytes) -> None:
        self._aead = AESGCM(keys[:KEY_BYTES])
        self._base = int.from_bytes(keys[KEY_BYTES:], "big")
        self._index = 0
        self._rest = bytearray()  # of a frame that has not arrived whole, or was refused
        self._missing = 0  # so long must `_rest` be before there is anything to open or to refuse
        self.finished = False

    def feed(self, received: Buffer) -> list[Frame]:
        """Open each frame that `received` completes; what came whole is opened where it lies.

        Raises:
            SealedMessageError: changed, reordered, of an unknown type, too large, wrongly padded, or surplus bytes.
        """
        if self._rest:
            self._rest += received
            if len(self._rest) < self._missing:
                return []
            received, self._rest = self._rest, bytearray()
        view, at = memoryview(received), 0
        frames = []
        try:
            while size := self._arrived(view, at):
                frames.append(self._open(view[at + 4 : at + size]))
                at += size
        finally:
            self._rest += view[at:]  # a refused frame stays, and is refused again
        return frames

    def end(self) -> None:
        """Say that no more bytes come.

        Raises:
            TruncatedMessageError: the last frame has not arrived whole.
        """
        if not self.finished:
            raise TruncatedMessageError("the message ended before its last frame")

    def _arrived(self, view: memoryview, at: int) -> int:
        """Bytes of the frame that begins there, or 0 if it is not there whole; it is judged as soon as that can be."""
        self._missing = 0
        held = len(view) - at
        if self.finished and held:
            raise SealedMessageError("bytes follow the last frame")
        if held < _U32.size:
            self._missing = _U32.size
            return 0
        (length,) = _U32.unpack_from(view, at)
        limit = MAX_PLAINTEXT_BYTES if self._index else _MAX_HEAD_PLAINTEXT_BYTES
        if not _OVERHEAD_BYTES + 4 <= length <= _OVERHEAD_BYTES + limit:  # §3: "checked before allocation"
            raise SealedMessageError("a frame's length is outside its bounds")
        if self._index >= MAX_FRAMES:
            raise SealedMessageError("a message has at most 2^32 frames")
        self._missing = _U32.size + length
        return self._missing if held >= self._missing else 0

    def _open(self, sent: memoryview) -> Frame:
        """The next frame, from its type on."""
        if sent[0] >= len(_KINDS):
            raise SealedMessageError(f"unknown frame type {sent[0]}")
        kind = _KINDS[sent[0]]
        nonce = (self._base ^ self._index).to_bytes(12, "big")
        try:
            plaintext = self._aead.decrypt(nonce, sent[1:], _AAD[kind])
        except InvalidTag:
            raise SealedMessageError(f"frame {self._index} does not authenticate") from None
        end = 4 + int.from_bytes(plaintext[:4], "big")
        zeros = len(plaintext) - end
        if zeros < 0:
            raise SealedMessageError("a frame names more data than it holds")
        if plaintext[end:] != bytes(zeros):
            raise SealedMessageError("a frame's padding is not zero")
        if self._index == 0:
            _check_head(kind, end - 4, len(plaintext))
        self._index += 1
        self.finished = kind is FrameType.LAST
        return Frame(type=kind, data=memoryview(plaintext)[4:end], zeros=zeros)


def _check_head(kind: FrameType, size: int, plaintext_bytes: int) -> None:
    if kind is not FrameType.MORE or size > MAX_HEAD_BYTES or plaintext_bytes % HEAD_BLOCK_BYTES:
        raise SealedMessageError("frame 0 must hold the head alone, at most 64 KiB, padded to a multiple of 1024")


def padded_size(size: int) -> int:
    """Bytes on the wire for a body of `size` bytes: 1, 2, 4, 8 or 16 KiB, then Padmé (PURBs, PoPETs 2019, §4)."""
    if size <= _LARGEST_POWER_BYTES:
        return max(_SMALLEST_PADDED_BYTES, 1 << (size - 1).bit_length() if size else 0)
    exponent = size.bit_length() - 1
    zeroed_bits = exponent - exponent.bit_length()
    mask = (1 << zeroed_bits) - 1
    return (size + mask) & ~mask


def cut_body(body: Iterable[Buffer], *, padded: bool) -> Iterable[tuple[Buffer, int]]:
    """Cut a body into (data, zeros) pairs that each fit a frame; there is always at least one.

    With `padded`, data and zeros add up to `padded_size` of the body, and no frame but the last ones holds zeros.
    """
    if isinstance(body, tuple):  # it is in memory already, as every short one is: often one frame takes it all
        size = sum([memoryview(piece).nbytes for piece in body])
        zeros = _zeros(size, padded=padded)
        if size + zeros <= MAX_DATA_BYTES:
            return ((b"".join(body), zeros),)
    return _cut_frames(body, padded=padded)


def _zeros(size: int, *, padded: bool) -> int:
    return padded_size(size) - size if padded else 0


def _cut_frames(body: Iterable[Buffer], *, padded: bool) -> Iterator[tuple[Buffer, int]]:
    size = 0
    held: Buffer = b""
    for piece in _filled(body):
        size += len(piece)
        if held:
            yield held, 0
        held = piece
    zeros = _zeros(size, padded=padded)
    first = min(zeros, MAX_DATA_BYTES - len(held))
    yield held, first
    for offset in range(first, zeros, MAX_DATA_BYTES):
        yield b"", min(MAX_DATA_BYTES, zeros - offset)


def _filled(body: Iterable[Buffer]) -> Iterator[bytearray]:
    """Regroup pieces into full frames, so that frame sizes do not show how the body was put together."""
    filling = bytearray()
    for piece in body:
        view = memoryview(piece).cast("B")
        while view:
            taken = min(len(view), MAX_DATA_BYTES - len(filling))
            filling += view[:taken]
            view = view[taken:]
            if len(filling) == MAX_DATA_BYTES:
                yield filling
                filling = bytearray()
    if filling:
        yield filling


class PaddingBounds:
    """Holds a peer to the padding rules: zeros only after the body, and no more than `padded_size` allows."""

    __slots__ = ("_ended", "_size", "_zeros")

    def __init__(self) -> None:
        self._ended = False  # a frame without data, or with zeros, says that the body is over
        self._size = 0
        self._zeros = 0

    def check(self, frame: Frame) -> None:
        """Count one body frame.

        Raises:
            SealedMessageError: data after padding or after a frame without data, more padding than Padmé allows, or a
                frame that holds nothing at all and is not the last (of those there is no bound).
        """
        if frame.type is FrameType.MORE and not frame.data and not frame.zeros:
            raise SealedMessageError("a frame holds nothing, and more follow")
        if self._ended and frame.data:
            raise SealedMessageError("data follows the end of the body")
        self._ended = self._ended or not frame.data or frame.zeros > 0
        self._size += len(frame.data)
        self._zeros += frame.zeros
        if self._zeros and self._size + self._zeros > padded_size(self._size):
            raise SealedMessageError("more padding than the body's size allows")
