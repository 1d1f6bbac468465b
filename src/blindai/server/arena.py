"""Memory that the server and one model's process share: a message's header and its tensors, written once, read once.

    0 ── header (msgpack), at most 1 MiB ── first tensor ── next, each at the next multiple of 64 ── end

One side writes an arena, the other reads it: the server writes requests, the process writes answers. Places follow from
sizes alone, so a message cannot name overlapping ones. Sealed: neither side can shrink it under the other.
Pages that nobody wrote take no memory. What was used is zeroed by the server as soon as it has been read.
Leaves out: what the header says (`worker_protocol`) and who may write when (`worker`, `worker_process`).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blindai.oip.datatypes import Array

    Buffer = bytes | bytearray | memoryview

MAX_HEADER_BYTES = 1024 * 1024
ALIGNMENT = 64
HEADROOM_BYTES = 64 * 1024  # for the gaps between tensors
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_PUNCH_FROM_BYTES = 4 * 1024 * 1024  # below this, zeroing costs less than the page faults that come after a hole
_PAGE = mmap.PAGESIZE
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_LIBC = ctypes.CDLL(None, use_errno=True)  # calls release the interpreter's lock, as `mmap.madvise` does not


class Arena:
    """One side's mapping of the shared memory.

    Args:
        descriptor: a memory file; stays the caller's.
        writable: whether this side writes it, or zeroes it.

    Attributes:
        capacity: bytes of tensors that it takes, the gaps included.
    """

    def __init__(self, descriptor: int, *, writable: bool) -> None:
        size = os.fstat(descriptor).st_size
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, size, prot=protection)
        self._view = memoryview(self._map)
        self._bytes: Array = np.frombuffer(self._view, np.uint8)
        self.capacity = size - MAX_HEADER_BYTES

    def write_header(self, header: bytes) -> None:
        """Put the header, of at most `MAX_HEADER_BYTES`, in its place."""
        self._view[: len(header)] = header

    def read_header(self, length: int) -> bytes:
        """A copy of the header, so that the other side cannot change it while it is read.

        Raises:
            ValueError: it is longer than a header can be.
        """
        if length > MAX_HEADER_BYTES:
            raise ValueError("a header in shared memory is too long")
        return bytes(self._view[:length])

    def write(self, offset: int, data: Buffer) -> None:
        """Put bytes at a place that `place` gave."""
        self._view[offset : offset + len(data)] = data

    def write_large(self, offset: int, data: Buffer) -> None:
        """The same without the interpreter's lock: for a thread, and megabytes."""
        np.copyto(self._bytes[offset : offset + len(data)], np.frombuffer(data, np.uint8))

    def view(self, offset: int, size: int) -> memoryview:
        """The bytes at a place; the other side may change them at any time."""
        return self._view[offset : offset + size]

    def copy(self, offset: int, size: int) -> bytearray | memoryview:
        """The bytes at a place, as they are now; without the interpreter's lock if they are many."""
        if size < _PUNCH_FROM_BYTES:
            return bytearray(self._view[offset : offset + size])
        return self._bytes[offset : offset + size].copy().data

    def erase(self, header_length: int, end: int) -> None:
        """Zero what one message used: its header, and everything up to the end of its last tensor."""
        self._zero(0, header_length)
        used = end - MAX_HEADER_BYTES
        if used >= _PUNCH_FROM_BYTES and self._punch(MAX_HEADER_BYTES, used):
            return
        self._zero(MAX_HEADER_BYTES, end)

    def close(self) -> None:
        """Unmap it; no view of it may be left."""
        self._bytes = np.empty(0, np.uint8)
        self._view.release()
        self._map.close()

    def _zero(self, start: int, end: int) -> None:
        if end - start <= _PAGE:
            self._view[start:end] = bytes(end - start)  # of a few bytes, numpy's way costs more than the bytes
        else:
            self._bytes[start:end] = 0

    def _punch(self, offset: int, size: int) -> bool:
        """Give the pages back; they read as zeros."""
        whole = -(-size // _PAGE) * _PAGE
        length = min(whole, self.capacity)
        mode = ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE)
        done = _LIBC.fallocate(self._descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length))
        return bool(done == 0)


def create_arena(name: str, max_bytes: int) -> int:
    """A sealed memory file for tensors of so many bytes; it takes memory only where it is written.

    Raises:
        OSError: the system has none left.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        size = MAX_HEADER_BYTES + max_bytes + HEADROOM_BYTES
        os.ftruncate(descriptor, -(-size // _PAGE) * _PAGE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_only(descriptor: int) -> int:
    """Another descriptor of a memory file, through which it cannot be written or mapped for writing."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def place(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Where tensors of these sizes lie, and where the last ends; `end - MAX_HEADER_BYTES` must fit the capacity.

    Raises:
        ValueError: a size below zero.
    """
    offsets, end = [], MAX_HEADER_BYTES
    for size in sizes:
        if size < 0:
            raise ValueError("a tensor in shared memory has a size below zero")
        start = -(-end // ALIGNMENT) * ALIGNMENT
        offsets.append(start)
        end = start + size
    return offsets, end
