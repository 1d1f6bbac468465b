"""A model's own process: `python -m blindai.server.worker FD`, started by `worker_pool` and by nobody else.

It loads one model from inherited memory files, then answers requests one after the other until its socket closes.
Everything it imports and opens before loading is trusted; the model is not, so the process closes itself (`sandbox`)
before it reads a byte of it.
Leaves out: batching.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import select
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

# Read once, at import. A thread started by a library would stay outside the sandbox; and ONNX Runtime's telemetry,
# which is on by default, starts one, writes an identifier into the home folder and looks for its maker's servers.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from blindai.bundle import SessionOptions
from blindai.server.engine import Engine
from blindai.server.sandbox import EXIT_STATUS, SandboxMissingError, close_process
from blindai.server.warm_up import warm_up
from blindai.server.worker_protocol import (
    LENGTH_BYTES,
    LOAD_ID,
    Load,
    Loaded,
    Result,
    Run,
    decode_from_server,
    encode_message,
    failure_of,
    pack_specs,
    pack_tensors,
    unpack_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.server.worker_protocol import Buffer, FromServer

_MAX_ADDRESS_SPACE_BYTES = 16 * 1024 * 1024 * 1024
_MAX_BUFFERS = 512  # of one sendmsg; the system's IOV_MAX is 1024


class _ServerGone(Exception):  # noqa: N818  # the ordinary end of a worker
    """The socket closed."""


def main(descriptor: int) -> None:
    """Serve one model on an inherited socket until it closes."""
    threads = available_cpus()
    warm_up()
    try:
        close_process(max_address_space_bytes=_MAX_ADDRESS_SPACE_BYTES)
    except SandboxMissingError:
        sys.exit(EXIT_STATUS)
    with socket.socket(fileno=descriptor) as channel, contextlib.suppress(_ServerGone, ConnectionError):
        threading.Thread(target=_exit_when_closed, args=(descriptor,), daemon=True).start()
        engine = _load(channel, threads)
        while engine is not None:
            _answer(channel, engine)


def _load(channel: socket.socket, threads: int) -> Engine | None:
    message, _ = _receive(channel)
    if not isinstance(message, Load):
        return None
    session = SessionOptions(graph_optimization=message.graph_optimization, provider=message.provider)
    engine = Engine(session, threads=threads)
    try:
        with _mapped_files(message) as files:
            engine.load(files)
        answer = encode_message(Loaded(inputs=pack_specs(engine.inputs), outputs=pack_specs(engine.outputs)))
    except Exception as error:  # noqa: BLE001  # whatever it was, the server is told and this process ends
        _send(channel, [encode_message(failure_of(LOAD_ID, error))])
        return None
    _send(channel, [answer])
    return engine


@contextlib.contextmanager
def _mapped_files(message: Load) -> Iterator[dict[str, bytes | memoryview]]:
    """The model's files as read-only views, unmapped and closed afterwards."""
    with contextlib.ExitStack() as stack:
        files: dict[str, bytes | memoryview] = {}
        for file in message.files:
            stack.callback(os.close, file.descriptor)
            if not file.size:
                files[file.path] = b""  # an empty file cannot be mapped
                continue
            mapped = stack.enter_context(mmap.mmap(file.descriptor, file.size, prot=mmap.PROT_READ))
            files[file.path] = stack.enter_context(memoryview(mapped))
        yield files


def _answer(channel: socket.socket, engine: Engine) -> None:
    message, buffers = _receive(channel)
    if not isinstance(message, Run):
        raise _ServerGone
    try:
        outputs = engine.run(unpack_tensors(message.tensors, buffers), message.outputs)
        entries, data = pack_tensors(outputs)
        answer: list[Buffer] = [encode_message(Result(id=message.id, tensors=entries)), *data]
    except Exception as error:  # noqa: BLE001  # one request's failure is not the next one's
        answer = [encode_message(failure_of(message.id, error))]
    _send(channel, answer)


def _receive(channel: socket.socket) -> tuple[FromServer, list[memoryview]]:
    length = int.from_bytes(_read(channel, LENGTH_BYTES), "big")
    message = decode_from_server(_read(channel, length))
    sizes = [entry.size for entry in message.tensors] if isinstance(message, Run) else []
    return message, [_read(channel, size) for size in sizes]


def _read(channel: socket.socket, size: int) -> memoryview:
    """Exactly `size` bytes, in memory of their own, so that they are aligned for any datatype."""
    buffer = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        received = channel.recv_into(buffer[filled:])
        if not received:
            raise _ServerGone
        filled += received
    return buffer


def _send(channel: socket.socket, buffers: Sequence[Buffer]) -> None:
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    pending = [view for view in views if view.nbytes]
    while pending:
        sent = channel.sendmsg(pending[:_MAX_BUFFERS])
        while pending and sent >= pending[0].nbytes:
            sent -= pending.pop(0).nbytes
        if sent:
            pending[0] = pending[0][sent:]


def _exit_when_closed(descriptor: int) -> None:
    """End at once when the server is gone, even in the middle of a run."""
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    poll.poll()
    os._exit(0)


def available_cpus() -> int:
    """How many threads can really run: the affinity, cut to the control group's quota."""
    affinity = len(os.sched_getaffinity(0))
    return max(1, min(affinity, math.ceil(_cgroup_quota() or affinity)))


def _cgroup_quota() -> float | None:
    """The smallest quota of this process's control group (version 2) and those above it, in CPUs."""
    quotas = []
    try:
        own = Path("/proc/self/cgroup").read_text("ascii").rpartition("0::")[2].strip()
        group = Path("/sys/fs/cgroup") / own.lstrip("/")
        for path in (group, *group.parents):
            with contextlib.suppress(OSError):
                quotas.append(parse_quota((path / "cpu.max").read_text("ascii")))
    except (OSError, ValueError):
        return None
    return min((quota for quota in quotas if quota is not None), default=None)


def parse_quota(cpu_max: str) -> float | None:
    """CPUs in a `cpu.max` file: `max 100000` is none, `150000 100000` is 1.5.

    Raises:
        ValueError: another form.
    """
    quota, period = cpu_max.split()
    return None if quota == "max" else int(quota) / int(period)


if __name__ == "__main__":
    main(int(sys.argv[1]))
