"""Starts a model's process: decrypts the model into memory files, and lets the process inherit them.

The model never touches the disk in clear, and never lies whole in the server's memory: it is written chunk by chunk.
The process sees nothing of the server's environment, and its own words go nowhere.
Leaves out: what is said to it afterwards (`worker_pool`), and the sandbox.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import blindai
from blindai.errors import ModelNotReadyError
from blindai.server.worker_protocol import FileEntry, Load

if TYPE_CHECKING:
    from blindai.server.model_store import ModelStore, StoredModel

Launched = tuple[subprocess.Popen[bytes], socket.socket, Load]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def launch_worker(store: ModelStore, model: StoredModel, directory: str) -> Launched:
    """Decrypt a model and start its process; blocks, so it belongs in a thread.

    Args:
        store: where the model is read from.
        model: which.
        directory: an empty one, in which the process runs.

    Returns:
        The process, our end of its socket, and the message that tells it what it has inherited.

    Raises:
        ModelNotReadyError: no memory or no process to be had.
        ModelNotFoundError: the model was deleted.
        UnsealError: what lies on disk is not what was stored.
    """
    files = _memory_files(store, model)
    try:
        process, channel = _spawn(files, directory)
    finally:
        _close_all(files)
    return process, channel, _load_message(model, files)


def _memory_files(store: ModelStore, model: StoredModel) -> dict[str, int]:
    """Decrypt a model into sealed memory files, a chunk at a time: descriptors by path."""
    files: dict[str, int] = {}
    try:
        for file, chunks in store.open_bundle(model):
            descriptor = os.memfd_create("model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            files[file.path] = descriptor
            for chunk in chunks:
                _write_all(descriptor, chunk)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        _close_all(files)
        raise ModelNotReadyError("the server has no memory left for the model", hint="Try again later.") from None
    except BaseException:
        _close_all(files)
        raise
    return files


def _write_all(descriptor: int, data: bytes) -> None:
    """Written, never mapped: so the model is not in this process's memory."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _close_all(files: dict[str, int]) -> None:
    for descriptor in files.values():
        os.close(descriptor)


def _load_message(model: StoredModel, files: dict[str, int]) -> Load:
    manifest = model.manifest
    return Load(
        files=tuple(FileEntry(path=f.path, descriptor=files[f.path], size=f.size) for f in manifest.files),
        graph_optimization=manifest.session.graph_optimization,
        provider=manifest.session.provider,
    )


def _spawn(files: dict[str, int], directory: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a worker that inherits its end of a socket and the model's files, under the same numbers."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # fixed arguments
                [sys.executable, "-P", "-m", "blindai.server.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *files.values()),
                env=_environment(),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at the server lets its requests finish
                stderr=subprocess.DEVNULL,  # what a model makes a library print may be a user's data
            )
    except OSError:
        ours.close()
        raise ModelNotReadyError("the server cannot start a process for the model", hint="Try again later.") from None
    ours.setblocking(False)  # noqa: FBT003  # the standard library's signature
    return process, ours


def _environment() -> dict[str, str]:
    """Nothing of the server's own environment: no `ORT_*`, no proxy, no secret."""
    environment = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    root = Path(blindai.__file__).parents[1]
    if str(root) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        environment["PYTHONPATH"] = str(root)
    return environment
