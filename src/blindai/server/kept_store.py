"""The folder in which models outlive the server: what is written when, so that a kill leaves all or nothing.

A change counts from the moment in which the new index has its name; before that the old one holds, whatever else was
written. Files that no index names are removed at the next start. A TEE's counter, where there is one, tells an old
index that was put back from the last one.
Leaves out: what an index holds (store_index.py), and the models' own files (sealed_file.py).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from blindai.attester.sealing import NEW_SUFFIX, sync_folder, write_whole
from blindai.errors import InvalidSettingsError, ModelStoreError, UnsealError
from blindai.server.index_reserve import IndexReserve
from blindai.server.log import LOG
from blindai.server.sealed_file import disk_error
from blindai.server.store_index import ID_BYTES, MAX_INDEX_BYTES, StoreIndex, open_index, seal_index

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blindai.attester.sealing import Sealer
    from blindai.server.catalogue import Record
    from blindai.server.hand_over import HandOver
    from blindai.server.sharing import Share

INDEX_NAME = "index"
LOCK_NAME = "lock"
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class KeptStore:
    """Opens the folder, and keeps it to one server.

    Args:
        folder: made with mode 0700 if it is not there.
        sealer: the TEE's key and counter.
        random: source of the index's ids.
        handed_over: by whom, and to whom it will be at the end.

    Raises:
        InvalidManifestError: a release's manifest does not say what it measures to.
        InvalidSettingsError: another server has it, or it cannot be made.
        UnsealError: its index is not this TEE's, was changed, or is an old one.
    """

    def __init__(
        self,
        folder: Path,
        sealer: Sealer,
        random: Callable[[int], bytes] = os.urandom,
        *,
        handed_over: HandOver | None = None,
    ) -> None:
        self.files = folder / "files"
        self._folder = folder
        self._sealer = sealer
        self._random = random
        self._handed_over = handed_over
        self._is_settled = False
        self._reserve = IndexReserve(folder)
        self._lock = _locked(folder)
        try:
            _require_own(self.files)
            self.files.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            if handed_over:
                handed_over.take(folder, folder / INDEX_NAME)
            self._root_key = sealer.root_key()
            is_next, self.index = self._open()
            self._finish_rotation(is_next=is_next)
            self._remove_unnamed()
            self._refill(self._index_bytes())
        except OSError as problem:
            self.close()
            raise _cannot_keep(folder, problem) from None
        except BaseException:
            self.close()
            raise

    def save(self, records: tuple[Record, ...], shares: tuple[tuple[str, str, Share], ...]) -> None:
        """Make this what is kept; on return it is on the disk.

        Raises:
            ModelStoreError: the disk is full or broken, or the TEE does not count; what was kept before still is.
            TooLargeError: so much does not fit into an index.
        """
        if self._lock < 0:
            raise ModelStoreError("the store is closed", hint="nothing was changed")
        if not self._is_settled:
            self._settle()
        try:
            self._write(self.index.generation + 1, records, shares)
        except ModelStoreError:
            self._is_settled = False
            with contextlib.suppress(ModelStoreError):
                self._settle()
            raise

    def rotate(self) -> None:
        """Wrap all models' keys under a new root key; on return the old one is gone, and opens nothing that is kept.

        To be called before anything else is done; where it fails, only the next start can tell which key holds.

        Raises:
            ModelStoreError: the disk is full or broken, or the TEE does not keep a key or count.
        """
        try:
            self._root_key = self._sealer.next_key()  # on the disk before an index needs it
            self.save(self.index.records, self.index.shares)
            self._sealer.take_up()
        except OSError as problem:
            raise disk_error(problem) from problem

    def hand_over(self) -> None:
        """Give the next release, if one is named, what its owners let go; the next change makes it stale.

        Raises:
            ModelStoreError: the disk is full or broken, or the TEE does not keep a key or count.
        """
        if self._handed_over is None or not self._handed_over.is_to_come:
            return
        if not self._is_settled:
            self._settle()  # so that the counter and the index say the same
        try:
            self._handed_over.give(self._folder, self.index)
        except OSError as problem:
            raise disk_error(problem) from problem

    def _settle(self) -> None:
        """Write again what holds.

        What a failed change or a killed server wrote may lie in the operator's hands, uncounted, with the next
        generation: that one is used up here, so that it can never pass for a change that was answered.
        """
        counted = None
        with contextlib.suppress(UnsealError):  # then it cannot count either, and this fails; but the disk has it
            counted = self._sealer.generation()
        now = self.index.generation if counted is None else counted
        self._write(now + 1, self.index.records, self.index.shares)
        self._is_settled = True

    def _write(self, generation: int, records: tuple[Record, ...], shares: tuple[tuple[str, str, Share], ...]) -> None:
        index = StoreIndex(generation=generation, records=records, shares=shares)
        sealed = seal_index(index, root_key=self._root_key, index_id=self._random(ID_BYTES))
        try:
            self._replace(sealed)
        except OSError as problem:
            raise disk_error(problem) from problem
        self._sealer.advance(generation)
        self.index = index

    def close(self) -> None:
        """Let another server have the folder."""
        if self._lock >= 0:
            lock, self._lock = self._lock, -1
            os.close(lock)

    def _open(self) -> tuple[bool, StoreIndex]:
        """Whether it is the next key's, and the index."""
        is_next = False
        try:
            with (self._folder / INDEX_NAME).open("rb") as file:
                sealed = file.read(MAX_INDEX_BYTES + 1)
        except FileNotFoundError:
            index = StoreIndex(generation=0, records=(), shares=())
        else:
            is_next, index = self._unsealed(sealed)
        self._compare_with_counter(index)
        return is_next, index

    def _unsealed(self, sealed: bytes) -> tuple[bool, StoreIndex]:
        try:
            return False, open_index(sealed, root_key=self._root_key)
        except UnsealError:
            key = self._sealer.waiting_key()
            if key is None:
                raise
        self._root_key = key
        return True, open_index(sealed, root_key=key)

    def _finish_rotation(self, *, is_next: bool) -> None:
        """One that was killed: after it had written its index it is done to its end, before that it never was."""
        if is_next:
            self._sealer.take_up()
        else:
            self._sealer.drop_next()

    def _compare_with_counter(self, index: StoreIndex) -> None:
        """An index one ahead was written, and its writer killed before it counted: that is the last one too."""
        counted = self._sealer.generation()
        self._is_settled = counted is None
        if counted is None:
            LOG.warning("this TEE has no counter: an old store put back in place of a newer one is not noticed")
        elif index.generation == counted + 1:
            self._sealer.advance(index.generation)
        elif index.generation != counted:
            raise UnsealError(
                f"the store's index is of generation {index.generation}, and the TEE's counter says {counted}: "
                "it was put back from an older copy, removed, or belongs to another TEE",
                hint="restore the newest copy of the folder; nothing was removed",
            )

    def _remove_unnamed(self) -> None:
        """What an upload or a deletion left behind when its server was killed."""
        named = {file_id.hex() for record in self.index.records for file_id in record.file_ids}
        unnamed = [path for path in self.files.iterdir() if path.name not in named]
        for path in (*unnamed, *self._folder.glob("*" + NEW_SUFFIX)):
            if path.is_symlink() or not path.is_dir():
                path.unlink()

    def _replace(self, sealed: bytes) -> None:
        """The new index takes the old one's place; one that is no larger finds room on a full disk too."""
        grows = len(sealed) > self._index_bytes()
        if grows:
            self._reserve.hold(len(sealed))  # or what is kept could not be deleted any more
        sync_folder(self.files)  # the names of the files that the index is about to name
        try:
            write_whole(self._folder / INDEX_NAME, sealed)
        except OSError as problem:
            if grows or problem.errno not in _DISK_IS_FULL:
                raise
            self._reserve.become(self._folder / INDEX_NAME, sealed)
        sync_folder(self._folder)
        self._refill(len(sealed))

    def _index_bytes(self) -> int:
        try:
            return (self._folder / INDEX_NAME).stat().st_size
        except FileNotFoundError:
            return 0

    def _refill(self, size: int) -> None:
        """As soon as there is room: a deletion makes some after its index is kept, and the next change takes it."""
        with contextlib.suppress(OSError):
            self._reserve.hold(size)


def _locked(folder: Path) -> int:
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        folder.chmod(_FOLDER_MODE)
        lock = os.open(folder / LOCK_NAME, _LOCK_FLAGS, _FILE_MODE)
    except OSError as problem:
        raise _cannot_keep(folder, problem) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InvalidSettingsError(
            f"another server keeps its models in {folder}", hint="give each server a folder of its own"
        ) from None
    return lock


def _cannot_keep(folder: Path, problem: OSError) -> InvalidSettingsError:
    where = problem.filename or folder
    return InvalidSettingsError(
        f"models cannot be kept in {folder}: {where}: {problem.strerror}",
        hint="the server's user must own the folder, and be able to write there",
    )


def _require_own(files: Path) -> None:
    """Files that no index names are removed, and so it must not lead out of the store."""
    if files.is_symlink():
        raise InvalidSettingsError(f"{files} is a symbolic link, and must be a folder")
