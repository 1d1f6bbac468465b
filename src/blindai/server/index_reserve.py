"""Room on the disk for one more index, so that a full disk can still forget what is kept (docs/spec/store.md).

The room is a file with blocks of its own. On a full disk the new index is written into these very blocks, which then
take the index's name: nothing is given back that an upload beside it could take first.
Leaves out: when it is used (kept_store.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blindai.attester.sealing import NEW_SUFFIX

if TYPE_CHECKING:
    from pathlib import Path

RESERVE_NAME = "reserve"
_MADE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FOUND = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class IndexReserve:
    """A file of at least the index's size.

    Args:
        folder: the index's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESERVE_NAME

    def hold(self, size: int) -> None:
        """Have room for an index of so many bytes.

        Raises:
            OSError: there is no such room; what was held still is.
        """
        if self._size() >= size:
            return
        larger = self._path.with_name(RESERVE_NAME + NEW_SUFFIX)
        larger.unlink(missing_ok=True)
        try:
            _fill(larger, size)
        except OSError:
            larger.unlink(missing_ok=True)
            raise
        larger.rename(self._path)

    def become(self, path: Path, data: bytes) -> None:
        """Write a file into the room, which then has that file's name: whole or not at all.

        Raises:
            OSError: the room is too small or gone.
        """
        descriptor = os.open(self._path, _FOUND)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self._path.rename(path)

    def _size(self) -> int:
        return self._path.lstat().st_size if self._path.is_file() and not self._path.is_symlink() else 0


def _fill(path: Path, size: int) -> None:
    descriptor = os.open(path, _MADE, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
