"""A model's own process, forked by `fork_server`, which leaves it these descriptors.

    doorbells · breaks of runs · requests (a read-only arena) · answers (an arena) · the model's files

It loads one model from inherited memory files, then answers requests one after the other until its socket closes.
A second thread only waits for the server to break a run off, or to be gone.
Everything it imports and opens before loading is trusted; the model is not, so the process closes itself (`sandbox`)
before it reads a byte of it.
Leaves out: what joins requests to batches (the server does).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

# Read once, at import. A thread started by a library would stay outside the sandbox; and ONNX Runtime's telemetry,
# which is on by default, starts one, writes an identifier into the home folder and looks for its maker's servers.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from blindai.bundle import SessionOptions
from blindai.errors import TooLargeError
from blindai.oip.datatypes import Datatype
from blindai.oip.rest import MAX_BYTES_ELEMENTS
from blindai.oip.tensors import encode_tensor
from blindai.server.arena import MAX_HEADER_BYTES, Arena, place
from blindai.server.engine import RunSwitch
from blindai.server.piped_engine import PipedEngine
from blindai.server.sandbox import EXIT_STATUS, SandboxMissingError, close_process
from blindai.server.warm_up import libraries_of
from blindai.server.worker_protocol import (
    BREAK_OFF,
    DOORBELL,
    FAILED,
    LOAD,
    LOADED,
    RESULT,
    RUN,
    Load,
    Loaded,
    OutputEntry,
    Result,
    Run,
    decode_header,
    encode_header,
    failure_of,
    pack_specs,
    read_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.oip.tensors import Tensor

_clock = time.perf_counter_ns


class _ServerGone(Exception):  # noqa: N818  # the ordinary end of a worker
    """The socket closed."""


def main(doorbell: int, control: int, requests: int, answers: int, *files: int) -> None:
    """Serve one model on inherited descriptors until the server is gone; what it needs is open (`warm_up`)."""
    worker = Worker(
        channel=socket.socket(fileno=doorbell),
        requests=Arena(requests, writable=False),
        answers=Arena(answers, writable=True),
    )
    for descriptor in (requests, answers):
        os.close(descriptor)  # the mappings stay
    with contextlib.suppress(_ServerGone, ConnectionError):
        load = worker.receive_load()
        try:
            close_process(max_address_space_bytes=load.max_address_space_bytes, libraries=libraries_of(load.providers))
        except SandboxMissingError:
            sys.exit(EXIT_STATUS)
        threading.Thread(target=worker.watch, args=(socket.socket(fileno=control),), daemon=True).start()
        if worker.load(load, files):
            worker.serve()


class Worker:
    """The process's state: its engine and the run that it works on.

    Args:
        channel: doorbells, both ways.
        requests: what the server writes.
        answers: what this process writes.
    """

    def __init__(self, *, channel: socket.socket, requests: Arena, answers: Arena) -> None:
        self._channel = channel
        self._requests = requests
        self._answers = answers
        self._engine = PipedEngine()
        self._max_answer_bytes = 0
        self._current: tuple[int, RunSwitch] | None = None
        self._broken_id = 0

    def receive_load(self) -> Load:
        """The server's first message."""
        kind, length, _ = self._receive()
        if kind != LOAD:
            raise _ServerGone
        return decode_header(self._requests.read_header(length), Load)

    def load(self, message: Load, descriptors: Sequence[int]) -> bool:
        """Load the model and say so; or say why not, which is the end."""
        session = SessionOptions(graph_optimization=message.graph_optimization)
        self._engine = PipedEngine(session, threads=message.threads, providers=message.providers)
        self._max_answer_bytes = min(message.max_answer_bytes, self._answers.capacity)
        try:
            with _mapped_files(message, descriptors) as files:
                self._engine.load(files, rows_wanted=message.rows_wanted)
            answer = encode_header(
                Loaded(
                    inputs=pack_specs(self._engine.inputs),
                    outputs=pack_specs(self._engine.outputs),
                    rows_independent=self._engine.rows_independent,
                    precision=self._engine.precision,
                    providers=self._engine.providers,
                    optional=pack_specs(self._engine.optional),
                )
            )
        except Exception as error:  # noqa: BLE001  # whatever it was, the server is told and this process ends
            self._send(FAILED, encode_header(failure_of(error)), 0)
            return False
        self._send(LOADED, answer, 0)
        return True

    def serve(self) -> None:
        """Answer runs for ever."""
        while True:
            kind, length, run_id = self._receive()
            if kind != RUN:
                raise _ServerGone
            try:
                answer = self._run(decode_header(self._requests.read_header(length), Run), run_id)
            except Exception as error:  # noqa: BLE001  # one request's failure is not the next one's
                self._send(FAILED, encode_header(failure_of(error)), run_id)
            else:
                self._send(RESULT, answer, run_id)
            finally:
                self._current = None

    def watch(self, control: socket.socket) -> None:
        """In a thread: break runs off as told, and end at once when the server is gone, even in the middle of a run."""
        while True:
            message = control.recv(BREAK_OFF.size)
            if len(message) != BREAK_OFF.size:
                os._exit(0)
            (self._broken_id,) = BREAK_OFF.unpack(message)  # first, since the run may only be starting
            current = self._current
            if current is not None and current[0] == self._broken_id:
                current[1].break_off()  # each run has its own, so a late one breaks nothing

    def _run(self, message: Run, run_id: int) -> bytes:
        started = _clock()
        switch = RunSwitch()
        self._current = (run_id, switch)
        if self._broken_id == run_id:
            switch.break_off()
        offsets, _ = place(entry.size for entry in message.tensors)
        views = [
            self._requests.view(offset, entry.size) for offset, entry in zip(offsets, message.tensors, strict=True)
        ]
        inputs = read_inputs(message.tensors, views)
        ready = _clock()
        outputs = self._engine.run(inputs, message.outputs, switch)
        done = _clock()
        entries = self._write(outputs)
        return encode_header(Result(entries, ready - started, done - ready, _clock() - done))

    def _write(self, outputs: Sequence[Tensor]) -> tuple[OutputEntry, ...]:
        """Put the answer into its arena, once it is known to fit."""
        texts = sum(output.data.size for output in outputs if output.datatype is Datatype.BYTES)
        if texts > MAX_BYTES_ELEMENTS:
            raise TooLargeError(
                f"the model's outputs have {texts} BYTES elements, at most {MAX_BYTES_ELEMENTS} go back"
            )
        if (
            sum(output.data.nbytes for output in outputs if output.datatype is not Datatype.BYTES)
            > self._max_answer_bytes
        ):
            raise self._too_large()
        buffers = [encode_tensor(output) for output in outputs]
        sizes = [len(buffer) for buffer in buffers]
        offsets, end = place(sizes)
        if sum(sizes) > self._max_answer_bytes or end - MAX_HEADER_BYTES > self._answers.capacity:
            raise self._too_large()
        for offset, buffer in zip(offsets, buffers, strict=True):
            self._answers.write(offset, buffer)
        return tuple(OutputEntry(output.shape, size) for output, size in zip(outputs, sizes, strict=True))

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"the model's outputs take more than the {self._max_answer_bytes} bytes of one answer",
            hint="Ask for fewer outputs, or send fewer rows at a time.",
        )

    def _receive(self) -> tuple[int, int, int]:
        doorbell = self._channel.recv(DOORBELL.size)
        if len(doorbell) != DOORBELL.size:
            raise _ServerGone
        kind, length, run_id = DOORBELL.unpack(doorbell)
        return kind, length, run_id

    def _send(self, kind: int, header: bytes, run_id: int) -> None:
        self._answers.write_header(header)
        self._channel.send(DOORBELL.pack(kind, len(header), run_id))


@contextlib.contextmanager
def _mapped_files(message: Load, descriptors: Sequence[int]) -> Iterator[dict[str, bytes | memoryview]]:
    """The model's files as read-only views, unmapped and closed afterwards."""
    with contextlib.ExitStack() as stack:
        files: dict[str, bytes | memoryview] = {}
        for file, descriptor in zip(message.files, descriptors, strict=True):
            stack.callback(os.close, descriptor)
            if not file.size:
                files[file.path] = b""  # an empty file cannot be mapped
                continue
            mapped = stack.enter_context(mmap.mmap(descriptor, file.size, prot=mmap.PROT_READ))
            files[file.path] = stack.enter_context(memoryview(mapped))
        yield files
