"""How one file of a model lies on disk: AES-256-GCM chunks of 1 MiB under the file's own key.

The key is HKDF-SHA256 of the model's key with the file's random id as salt.
Nonce and additional data carry the chunk's index and whether it is the last, so a chunk that was changed, moved,
dropped, cut off or taken from another file does not open.
Zeros follow the content up to a padded size (docs/spec/sealed.md §4), and only that size shows.
Leaves out: which files there are, and who may read them (`model_store`).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from blindai.bundle import BundleFile
from blindai.channel.frames import padded_size
from blindai.errors import ModelStoreError, UnsealError
from blindai.wire import label

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK_BYTES = 1024 * 1024
KEY_BYTES = 32
TAG_BYTES = 16


class SealedFileWriter:
    """Seals one file chunk by chunk and hashes its clear bytes; holds at most one chunk.

    Args:
        key: the model's key.
        file_id: random, never used before.
        descriptor: the empty file; closed by `finish` or `close`.
        path: the file's name in its bundle.
        size: how many bytes will come.
    """

    def __init__(self, *, key: bytes, file_id: bytes, descriptor: int, path: str, size: int) -> None:
        self.file_id = file_id
        self.remaining = size
        self._path = path
        self._size = size
        self._cipher = _Cipher(key, file_id)
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._index = 0

    def write(self, data: memoryview) -> memoryview:
        """Take at most what completes a chunk; answers the rest."""
        taken = data[: min(self.remaining, CHUNK_BYTES - len(self._buffer))]
        self._hash.update(taken)
        self.remaining -= len(taken)
        self._buffer += taken
        if self.remaining and len(self._buffer) == CHUNK_BYTES:
            self._seal(last=False)
        return data[len(taken) :]

    def finish(self) -> BundleFile:
        """Pad and seal what is left; all `size` bytes must have come. It is on the disk after `sync_file`."""
        zeros = padded_size(self._size) - self._size
        while len(self._buffer) + zeros > CHUNK_BYTES:
            zeros -= self._pad(CHUNK_BYTES - len(self._buffer))
            self._seal(last=False)
        self._pad(zeros)
        self._seal(last=True)
        self.close()
        return BundleFile(path=self._path, size=self._size, sha256=self._hash.digest())

    def close(self) -> None:
        """Close the file, whatever has come."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _pad(self, zeros: int) -> int:
        self._buffer += bytes(zeros)
        return zeros

    def _seal(self, *, last: bool) -> None:
        sealed = memoryview(self._cipher.seal(self._buffer, self._index, last=last))
        try:
            while sealed:
                sealed = sealed[os.write(self._descriptor, sealed) :]
        except OSError as problem:
            raise disk_error(problem) from problem
        self._buffer.clear()
        self._index += 1


def sync_file(path: Path) -> None:
    """Have what was written to a file on the disk.

    Raises:
        ModelStoreError: the disk is full or broken.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise disk_error(problem) from problem


def read_sealed_file(path: Path, key: bytes, file_id: bytes, size: int) -> Iterator[bytes]:
    """The clear chunks of a file whose content has `size` bytes.

    Raises:
        FileNotFoundError: it was removed.
        UnsealError: it is not what was written.
    """
    cipher = _Cipher(key, file_id)
    padded = padded_size(size)
    count = _chunk_count(padded)
    with path.open("rb") as file:
        for index in range(count):
            offset = index * CHUNK_BYTES
            length = min(CHUNK_BYTES, padded - offset)
            chunk = cipher.open(file.read(length + TAG_BYTES), index, last=index == count - 1)
            if len(chunk) != length:
                raise UnsealError("a stored file is shorter than it was written")
            if any(chunk[max(0, size - offset) :]):
                raise UnsealError("a stored file's padding is not zero")
            if size > offset or index == 0:
                yield chunk[: size - offset]
        if file.read(1):
            raise UnsealError("a stored file is longer than it was written")


class _Cipher:
    """AES-256-GCM under a file's own key, so that a nonce is used once: each index is sealed once per file."""

    def __init__(self, key: bytes, file_id: bytes) -> None:
        file_key = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=file_id, info=label("stored-file")).derive(
            key
        )
        self._aead = AESGCM(file_key)
        self._associated = label("stored-chunk") + file_id

    def seal(self, chunk: bytearray, index: int, *, last: bool) -> bytes:
        nonce = _nonce(index, last=last)
        return self._aead.encrypt(nonce, chunk, self._associated + nonce)

    def open(self, sealed: bytes, index: int, *, last: bool) -> bytes:
        nonce = _nonce(index, last=last)
        try:
            return self._aead.decrypt(nonce, sealed, self._associated + nonce)
        except InvalidTag:
            raise UnsealError("a stored file was changed, cut or exchanged on disk") from None


def _nonce(index: int, *, last: bool) -> bytes:
    return index.to_bytes(8, "big") + int(last).to_bytes(4, "big")


def _chunk_count(padded: int) -> int:
    return -(-padded // CHUNK_BYTES)


def disk_error(problem: OSError) -> ModelStoreError:
    """What a full or broken disk means to the one who uploads."""
    return ModelStoreError(
        f"the model cannot be stored: {os.strerror(problem.errno or 0)}",
        hint="Free space on the server's disk, or give it another directory.",
    )
