"""A store's life in a process that may be killed at any moment: what it does, and what must be there afterwards.

Run as a script with a folder: it does `STEPS` in turn and writes a line before and after each. With a number, it kills
itself at that call of the operating system; without, it says at the end how many there were.
The calls are counted by the interpreter's own profiling hook, which sees each before it happens.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.attester.sealing import InsecureKeyFile
from blindai.bundle import UploadHeader
from blindai.server.kept_store import KeptStore
from blindai.server.model_config import ServingConfig
from blindai.server.model_store import ModelStore
from blindai.server.sharing import Share

if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

CALLS = {"open", "write", "fsync", "replace", "rename", "mkdir", "unlink"}
STEPS = (
    ("upload", "a", "1", 3_000_000),
    ("upload", "b", "1", 10),
    ("serve otherwise", "b", "1", 0),
    ("upload", "a", "2", 2_000_000),
    ("share", "a", "", 0),
    ("delete", "a", "1", 0),
    ("replace", "b", "1", 500_000),
    ("upload", "c", "1", 1_200_000),
    ("delete", "c", "1", 0),
)

# Name and version → the content's size, and most rows of a batch.
Kept = dict[tuple[str, str], tuple[int, int]]


def kept_after(steps: int) -> tuple[Kept, bool]:
    """What is kept when so many steps were answered, and whether `a` is shared."""
    kept: Kept = {}
    shared = False
    for kind, name, version, size in STEPS[:steps]:
        match kind:
            case "upload" | "replace":
                kept[name, version] = (size, 0)
            case "serve otherwise":
                kept[name, version] = (kept[name, version][0], 8)
            case "delete":
                del kept[name, version]
            case _:
                shared = True
    return kept, shared


def content_of(name: str, version: str, size: int) -> bytes:
    """Bytes that tell which model they are of."""
    word = f"{name} {version} {size} canary ".encode()
    return (word * (size // len(word) + 1))[:size]


def open_store(folder: Path) -> ModelStore:
    """The store in a folder."""
    return ModelStore(folder, kept=KeptStore(folder, InsecureKeyFile(folder)))


def found_in(store: ModelStore) -> tuple[Kept, bool]:
    """What a store has; every file is read, and must be whole."""
    kept: Kept = {}
    for model in store.models():
        ((file, chunks),) = list(store.open_bundle(model))
        assert b"".join(chunks) == content_of(model.name, model.version, file.size)
        kept[model.name, model.version] = (file.size, model.config.max_batch_size)
    return kept, store.sharing.of("public", "a").lets_run("x")


def do(store: ModelStore, step: tuple[str, str, str, int]) -> None:
    """One step."""
    kind, name, version, size = step
    match kind:
        case "upload" | "replace":
            header = UploadHeader(version=version, files=(("m.onnx", size),), default_shape=None, load=False)
            incoming = store.begin_upload(name, header)
            incoming.write(content_of(name, version, size))
            incoming.complete()
            incoming.register(replaces=kind == "replace")
        case "serve otherwise":
            store.reconfigure(store.resolve(name, version), ServingConfig(max_batch_size=8))
        case "delete":
            store.delete(name, version)
        case _:
            store.share("public", name, Share(run=frozenset({"x"})))


class Killer:
    """Counts calls of the operating system, and kills the process at one of them."""

    def __init__(self, at: int | None) -> None:
        self._at = at
        self.calls = 0

    def __call__(self, _frame: FrameType, event: str, function: Any) -> None:
        """What `sys.setprofile` calls."""
        if event == "c_call" and function.__name__ in CALLS:
            if self.calls == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.calls += 1


def main(folder: Path, at: int | None) -> None:
    """Open the store, and do every step."""
    killer = Killer(at)
    tell("opening")
    sys.setprofile(killer)
    store = open_store(folder)
    for number, step in enumerate(STEPS):
        tell(f"begun {number}")
        do(store, step)
        tell(f"done {number}")
    sys.setprofile(None)
    store.close()
    tell(f"calls {killer.calls}")


def tell(line: str) -> None:
    """On stdout, at once; the hook must not count it."""
    profile = sys.getprofile()
    sys.setprofile(None)
    os.write(1, f"{line}\n".encode())
    sys.setprofile(profile)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
