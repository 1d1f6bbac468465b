"""Keys that only this TEE and this measurement can have, for what outlives the server (docs/spec/store.md).

Leaves out: what is sealed with them (server/store_index.py).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Protocol

from blindai.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ROOT_KEY_BYTES = 32
INSECURE_KEY_NAME = "insecure-simulation-sealing-key"
NEW_SUFFIX = ".new"  # of what is not yet whole
_NEXT_SUFFIX = ".next"


class Sealer(Protocol):
    """What a TEE offers for keeping secrets on a disk that its host owns."""

    @property
    def kind(self) -> str:
        """The word for it in the attested runtime policy (`sealing`)."""

    def root_key(self) -> bytes:
        """32 bytes, the same at every start of the same software in the same TEE; may block.

        Raises:
            UnsealError: the TEE does not give the key to this software.
        """

    def next_key(self) -> bytes:
        """Draw another root key, on the disk on return; the one in use stays in use until `take_up`.

        Raises:
            OSError: the disk is full or broken.
            UnsealError: the TEE does not keep it.
        """

    def waiting_key(self) -> bytes | None:
        """The one that `next_key` drew before this server was killed, or None where there is none.

        Raises:
            UnsealError: the TEE does not give it to this software.
        """

    def take_up(self) -> None:
        """Have the next key in the place of the one in use, which is then gone; on the disk on return."""

    def drop_next(self) -> None:
        """Forget a next key that came to nothing."""

    def generation(self) -> int | None:
        """What the TEE's counter says, or None where a TEE has none and so cannot tell an old store from a new one."""

    def advance(self, generation: int) -> None:
        """Count up to `generation`, from one less or if it was counted already; it can never be less again.

        Raises:
            UnsealError: it cannot, or says something else.
        """


class MovableSealer(Sealer, Protocol):
    """A TEE that also keeps a key for other software, which it knows by what that measures to."""

    def require_reference(self, reference: Mapping[str, Any]) -> None:
        """Whether a manifest's values of this TEE say exactly what some software measures to.

        Raises:
            InvalidManifestError: they do not.
        """

    def fresh_key(self) -> bytes:
        """Draw a next key with a counter of its own: the one in use, if any, is another measurement's.

        Raises:
            UnsealError: the TEE does not keep it.
        """

    def give(self, path: Path, reference: Mapping[str, Any]) -> bytes:
        """Another root key, which only software of these reference values gets, kept at `path` with this counter.

        Args:
            path: on the disk on return.
            reference: a manifest's values of this TEE.

        Raises:
            InvalidManifestError: they do not say what it measures to.
            UnsealError: the TEE does not keep it.
        """

    def take(self, path: Path, reference: Mapping[str, Any]) -> tuple[bytes, int]:
        """The root key that software of these reference values gave to this one, and what its counter says.

        Raises:
            InvalidManifestError: as above.
            UnsealError: it was given to other software, by other software, on another machine, or is used up.
        """

    def retire(self, path: Path, reference: Mapping[str, Any]) -> None:
        """Use up what was given: the counter that `take` has read goes, so nobody opens that store again.

        Raises:
            UnsealError: the TEE does not do it.
        """


class InsecureKeyFile:
    """The simulation's sealer, which protects nothing: the key lies in a file beside what it seals.

    It has no counter, so an old store put back in place of a newer one is not noticed.
    """

    kind = "insecure-key-file"

    def __init__(self, folder: Path, random: Callable[[int], bytes] = os.urandom) -> None:
        self._path = folder / INSECURE_KEY_NAME
        self._random = random

    def root_key(self) -> bytes:
        """The key, drawn at the first start.

        Raises:
            UnsealError: the file is there and holds no key.
        """
        if not self._path.exists():
            write_whole(self._path, self._random(ROOT_KEY_BYTES))
        return _read_key(self._path)

    def next_key(self) -> bytes:
        """Another key, in a file of its own."""
        write_whole(next_to(self._path), self._random(ROOT_KEY_BYTES))
        sync_folder(self._path.parent)
        return _read_key(next_to(self._path))

    def waiting_key(self) -> bytes | None:
        """What that file holds, if it is there."""
        waiting = next_to(self._path)
        return _read_key(waiting) if waiting.exists() else None

    def take_up(self) -> None:
        """It gets the key's name."""
        take_name(self._path)

    def drop_next(self) -> None:
        """It goes."""
        next_to(self._path).unlink(missing_ok=True)

    def generation(self) -> None:
        """None: a file that the host can write cannot count against the host."""

    def advance(self, generation: int) -> None:
        """Nothing to count with."""


def _read_key(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != ROOT_KEY_BYTES:
        raise UnsealError(f"{path} holds {len(key)} bytes, and a sealing key has {ROOT_KEY_BYTES}")
    return key


def next_to(path: Path) -> Path:
    """Where the next key lies while a rotation is under way."""
    return path.with_name(path.name + _NEXT_SUFFIX)


def take_name(path: Path) -> None:
    """In one step the next key is the key; on the disk on return."""
    next_to(path).rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_own(path: Path, most: int) -> bytes:
    """A file of at most so many bytes, and not a link, a pipe or a device that the disk's owner has put there.

    Raises:
        OSError: it is not there, or a link.
        UnsealError: it is no file, or larger.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnsealError(f"{path} is no file")
        data = file.read(most + 1)
    if len(data) > most:
        raise UnsealError(f"{path} has more than {most} bytes")
    return data


def write_whole(path: Path, data: bytes) -> None:
    """A new private file, whole or not at all: it has its name only once it is on the disk."""
    new = path.with_name(path.name + NEW_SUFFIX)
    new.unlink(missing_ok=True)  # what a killed server left, or a link to somebody else's file
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        new.unlink()  # on a full disk, what it takes may be all that there is
        raise
    new.rename(path)
