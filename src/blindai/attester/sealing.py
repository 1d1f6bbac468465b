"""Keys that only this TEE and this measurement can have, for what outlives the server (docs/spec/store.md).

Leaves out: what is sealed with them (server/store_index.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from blindai.errors import UnsealError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROOT_KEY_BYTES = 32
INSECURE_KEY_NAME = "insecure-simulation-sealing-key"


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

    def generation(self) -> int | None:
        """What the TEE's counter says, or None where a TEE has none and so cannot tell an old store from a new one."""

    def advance(self, generation: int) -> None:
        """Count up to `generation`, from one less or if it was counted already; it can never be less again.

        Raises:
            UnsealError: it cannot, or says something else.
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
        key = self._path.read_bytes()
        if len(key) != ROOT_KEY_BYTES:
            raise UnsealError(f"{self._path} holds {len(key)} bytes, and a sealing key has {ROOT_KEY_BYTES}")
        return key

    def generation(self) -> None:
        """None: a file that the host can write cannot count against the host."""

    def advance(self, generation: int) -> None:
        """Nothing to count with."""


def write_whole(path: Path, data: bytes) -> None:
    """A new private file, whole or not at all: it has its name only once it is on the disk."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)  # what a killed server left, or a link to somebody else's file
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
