"""Starts a model's process: decrypts the model into memory files, and has a fork server give them to a child.

The model never touches the disk in clear, and never lies whole in the server's memory: it is written chunk by chunk.
Leaves out: the fork server (`forking`), what is said to the process afterwards (`worker_process`), and the sandbox.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import ModelNotReadyError
from blindai.server.arena import create_arena, read_only
from blindai.server.forking import cannot_start
from blindai.server.worker_protocol import FileEntry, Load

if TYPE_CHECKING:
    from blindai.server.forking import ForkServer, ModelProcess
    from blindai.server.model_store import ModelStore, StoredModel

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What one process may use.

    Attributes:
        threads: of one operator.
        max_request_bytes: of all raw inputs of one batch.
        max_answer_bytes: of all raw outputs of one batch.
        max_address_space_bytes: of the process; for the sandbox.
        rows_wanted: whether the graph is asked if it keeps rows apart.
        providers: execution providers that may run it, in order.
    """

    threads: int
    max_request_bytes: int
    max_answer_bytes: int
    max_address_space_bytes: int
    rows_wanted: bool
    providers: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A process that was just started, and our ends of what joins us.

    Attributes:
        process: the process.
        doorbell: socket for doorbells.
        control: socket on which runs are broken off.
        requests: memory file that we write.
        answers: memory file that the process writes.
        load: the message that tells it what it has inherited.
    """

    process: ModelProcess
    doorbell: socket.socket
    control: socket.socket
    requests: int
    answers: int
    load: Load

    def close(self) -> None:
        """Give up our ends, which ends the process."""
        self.doorbell.close()
        self.control.close()
        os.close(self.requests)
        os.close(self.answers)


def launch_worker(store: ModelStore, model: StoredModel, server: ForkServer, limits: WorkerLimits) -> Launched:
    """Decrypt a model and start its process; blocks, so it belongs in a thread.

    Args:
        store: where the model is read from.
        model: which.
        server: what forks the process; ready.
        limits: what the process may use.

    Raises:
        ModelNotReadyError: no memory or no process to be had.
        ModelNotFoundError: the model was deleted.
        UnsealError: what lies on disk is not what was stored.
    """
    files = _memory_files(store, model)
    try:
        return _start(files, server, _load_message(model, limits), limits)
    except OSError:
        raise cannot_start() from None
    finally:
        _close_all(files)


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
        raise ModelNotReadyError(
            "the server has no memory left for the model", hint="Try again later.", retry_after_s=1
        ) from None
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


def _load_message(model: StoredModel, limits: WorkerLimits) -> Load:
    manifest = model.manifest
    return Load(
        files=tuple(FileEntry(f.path, f.size) for f in manifest.files),
        graph_optimization=manifest.session.graph_optimization,
        providers=limits.providers,
        threads=limits.threads,
        max_answer_bytes=limits.max_answer_bytes,
        max_address_space_bytes=limits.max_address_space_bytes,
        rows_wanted=limits.rows_wanted,
    )


def _start(files: dict[str, int], server: ForkServer, load: Load, limits: WorkerLimits) -> Launched:
    """Start a process that has its ends and the model's files; it cannot write requests."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        (doorbell, its_doorbell), (control, its_control) = (_pair(ours, theirs) for _ in range(2))
        requests, answers = (
            _owned(ours, create_arena(name, size))
            for name, size in (("requests", limits.max_request_bytes), ("answers", limits.max_answer_bytes))
        )
        ends = (its_doorbell.fileno(), its_control.fileno(), _owned(theirs, read_only(requests)), answers)
        process = server.fork((*ends, *files.values()))
        ours.pop_all()
    return Launched(process=process, doorbell=doorbell, control=control, requests=requests, answers=answers, load=load)


def _pair(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two ends on which messages keep their bounds; ours never blocks."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.setblocking(False)  # noqa: FBT003  # the standard library's signature
    return ours.enter_context(left), theirs.enter_context(right)


def _owned(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor
