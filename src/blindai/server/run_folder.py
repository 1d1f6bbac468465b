"""The server's own folder while it runs; those of servers that were killed are removed.

A killed server leaves sealed models behind whose key is gone: nobody can open them, and they fill the disk.
Each folder holds a locked file, so that the folder of a server that runs is never taken for one.
Leaves out: folders of other users, and folders without that file, which are not ours to judge.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.errors import InvalidSettingsError
from blindai.server.log import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "blindai-"
LOCK_NAME = "lock"


@contextlib.contextmanager
def run_folder(parent: Path) -> Iterator[Path]:
    """A new private folder, removed at the end.

    Raises:
        InvalidSettingsError: there cannot be one.
    """
    remove_stale_folders(parent)
    try:
        folder, lock = _locked_folder(parent)
    except OSError as error:
        raise InvalidSettingsError(f"cannot make a folder in {parent}: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_stale_folders(parent: Path) -> None:
    """Remove the folders of this user's servers that are gone."""
    with contextlib.suppress(OSError):
        for folder in parent.glob(f"{PREFIX}*"):
            if _remove_if_stale(folder):
                LOG.info("removed what a killed server had left")


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A folder and its lock. A server that cleans up may be faster with a new folder; then there is another."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if _is_locked_by_us(lock, folder):
                return folder, lock
            os.close(lock)


def _is_locked_by_us(lock: int, folder: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), (folder / LOCK_NAME).stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _remove_if_stale(folder: Path) -> bool:
    """Only a real folder of this user, with our file in it, whose owner no longer holds it."""
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(lock)
