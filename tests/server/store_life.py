"""A store's life in a process that may be killed at any moment: what it does, and what must be there afterwards.

Run as a script with a folder: it does `STEPS` in turn and writes a line before and after each, and one when an index
has got its name. With `--at`, it kills itself at that call of the operating system; without, it says at the end which
phase each call belonged to. With `--tpm`, a TPM seals, and commands to it are calls too.
The calls are counted by the interpreter's own profiling hook, which sees each before it happens.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.attester.sealing import InsecureKeyFile
from blindai.attester.tpm2.device import open_tpm
from blindai.attester.tpm2.sealer import TpmSealer
from blindai.bundle import UploadHeader
from blindai.server.kept_store import INDEX_NAME, KeptStore
from blindai.server.model_config import ServingConfig
from blindai.server.model_store import ModelStore
from blindai.server.sharing import Share

if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from blindai.attester.sealing import Sealer

CALLS = {"sendall", "posix_fallocate", "open", "write", "fsync", "replace", "rename", "mkdir", "unlink"}
STEPS = (
    ("upload", "a", "1", 3_000_000),
    ("upload", "b", "1", 10),
    ("serve otherwise", "b", "1", 0),
    ("upload", "a", "2", 2_000_000),
    ("rotate", "", "", 0),
    ("share", "a", "", 0),
    ("delete", "a", "1", 0),
    ("replace", "b", "1", 500_000),
    ("upload", "c", "1", 1_200_000),
    ("delete", "c", "1", 0),
    ("rotate", "", "", 0),
)
PHASES = ("upload", "seal", "delete", "rotate")

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
            case "share":
                shared = True
    return kept, shared


def content_of(name: str, version: str, size: int) -> bytes:
    """Bytes that tell which model they are of."""
    word = f"{name} {version} {size} canary ".encode()
    return (word * (size // len(word) + 1))[:size]


Device = Callable[[bytes], bytes]


def sealer_in(folder: Path, tpm: Device | None) -> Sealer:
    """A TPM's, or the simulation's."""
    return InsecureKeyFile(folder) if tpm is None else TpmSealer(folder, tpm)


def open_store(folder: Path, tpm: Device | None = None) -> ModelStore:
    """The store in a folder."""
    return ModelStore(folder, kept=KeptStore(folder, sealer_in(folder, tpm)))


def found_in(store: ModelStore) -> tuple[Kept, bool]:
    """What a store has; every file is read, and must be whole."""
    kept: Kept = {}
    for model in store.models():
        ((file, chunks),) = list(store.open_bundle(model))
        assert b"".join(chunks) == content_of(model.name, model.version, file.size)
        kept[model.name, model.version] = (file.size, model.config.max_batch_size)
    return kept, store.sharing.of("public", "a").lets_run("x")


def rotated(store: ModelStore, folder: Path, tpm: Device | None) -> ModelStore:
    """The store, started again under a new key."""
    store.close()
    kept = KeptStore(folder, sealer_in(folder, tpm))
    kept.rotate()
    return ModelStore(folder, kept=kept)


def do(store: ModelStore, step: tuple[str, str, str, int], killer: Killer) -> None:
    """One step, but for a rotation."""
    kind, name, version, size = step
    match kind:
        case "upload" | "replace":
            header = UploadHeader(version=version, files=(("m.onnx", size),), default_shape=None, load=False)
            incoming = store.begin_upload(name, header)
            incoming.write(content_of(name, version, size))
            killer.phase = "seal"
            incoming.complete()
            incoming.register(replaces=kind == "replace")
        case "serve otherwise":
            store.reconfigure(store.resolve(name, version), ServingConfig(max_batch_size=8))
        case "delete":
            store.delete(name, version)
        case "share":
            store.share("public", name, Share(run=frozenset({"x"})))


class Killer:
    """Notes the phase of each call of the operating system, kills the process at one, and tells what it has renamed."""

    def __init__(self, at: int | None) -> None:
        self._at = at
        self.phase = "opening"
        self.calls: list[str] = []

    def __call__(self, frame: FrameType, event: str, function: Any) -> None:
        """What `sys.setprofile` calls."""
        if event == "c_call" and function.__name__ in CALLS:
            if len(self.calls) == self._at:
                tell(f"killed in {self.phase}")
                os.kill(os.getpid(), signal.SIGKILL)
            self.calls.append(self.phase)
        if event == "c_return" and function.__name__ == "rename" and frame.f_locals["target"].name == INDEX_NAME:
            tell("renamed")  # a path to that of the index


def main(folder: Path, at: int | None, socket: str | None) -> None:
    """Open the store, and do every step."""
    killer = Killer(at)
    tpm = None if socket is None else open_tpm(f"unix:{socket}")  # which talks to one at a time
    tell("opening")
    sys.setprofile(killer)
    store = open_store(folder, tpm)
    for number, step in enumerate(STEPS):
        killer.phase = "upload" if step[0] == "replace" else step[0]
        tell(f"begun {number}")
        if step[0] == "rotate":
            store = rotated(store, folder, tpm)
        else:
            do(store, step, killer)
        tell(f"done {number}")
    sys.setprofile(None)
    store.close()
    tell(f"calls {' '.join(phase.replace(' ', '-') for phase in killer.calls)}")


def tell(line: str) -> None:
    """On stdout, at once; the hook must not count it."""
    profile = sys.getprofile()
    sys.setprofile(None)
    os.write(1, f"{line}\n".encode())
    sys.setprofile(profile)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", type=int)
    parser.add_argument("--tpm")
    given = parser.parse_args()
    main(given.folder, given.at, given.tpm)
