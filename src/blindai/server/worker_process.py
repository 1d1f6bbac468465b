"""One model's process as the server sees it: batches go out, answers come back and are parsed as hostile.

Rows of joined requests are written one behind the other, so the process sees one request and knows nothing of batches.
A model may have taken its process over: its headers and outputs are copied before they are looked at, sizes are
compared before anything is copied, and nonsense ends the process.
Leaves out: which batch, when, and for how long (`scheduler`); how processes are started (`worker_launch`).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import numpy as np

from blindai.errors import BlindAIError, ModelNotReadyError, TooLargeError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import Tensor, decode_tensor
from blindai.server.arena import MAX_HEADER_BYTES, Arena, place
from blindai.server.log import LOG
from blindai.server.request_queue import Outcome
from blindai.server.runner import NO_FACE, ModelFace
from blindai.server.statistics import RunTimes
from blindai.server.worker_protocol import (
    BREAK_OFF,
    DOORBELL,
    FAILED,
    LOAD,
    LOADED,
    RESULT,
    RUN,
    Failed,
    Loaded,
    Result,
    Run,
    TensorEntry,
    check_outputs,
    decode_header,
    encode_header,
    error_of,
    unpack_specs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.oip.datatypes import Array
    from blindai.oip.tensors import TensorSpec
    from blindai.server.arena import Buffer
    from blindai.server.request_queue import Batch, QueuedRequest
    from blindai.server.runner import Ended, Finished
    from blindai.server.worker_launch import Launched
    from blindai.server.worker_protocol import OutputEntry

    Writer = Callable[[int, Buffer], None]

_QUICK_BYTES = 1024 * 1024  # more than this is copied in a thread: the event loop is everybody's
_LOAD_ID = 0
_NOT_AS_THEY_LIE = (Datatype.BYTES, Datatype.BOOL)  # the bytes of a BOOL may be any


class WorkerProcess:
    """One process and the batch that it runs (`runner.Runner`).

    Args:
        launched: the process, just started; belongs to this object from now on.
        max_answer_bytes: largest sum of a batch's outputs.
        on_finished: called with each batch's outcome.
        on_ended: called when the process ends by itself.
    """

    def __init__(self, launched: Launched, *, max_answer_bytes: int, on_finished: Finished, on_ended: Ended) -> None:
        self.face = NO_FACE
        self.rows_independent = False
        self.process_id: int | None = launched.process.pid
        self.batch: Batch | None = None
        self.on_finished = on_finished
        self.on_ended = on_ended
        self._launched = launched
        self._max_answer_bytes = max_answer_bytes
        self._loop = asyncio.get_running_loop()
        self._requests = Arena(launched.requests, writable=True)
        self._answers = Arena(launched.answers, writable=True)
        self.max_batch_bytes = self._requests.capacity
        self._loading: asyncio.Future[Loaded | BlindAIError] | None = None
        self._run_id = _LOAD_ID
        self._used = MAX_HEADER_BYTES, 0, MAX_HEADER_BYTES  # end of the tensors, header and end of the answer's
        self._header_length = 0
        self._wished: tuple[TensorSpec, ...] = ()
        self._alive = True
        self._copying: asyncio.Task[None] | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._loop.add_reader(launched.doorbell.fileno(), self._on_doorbell)

    async def load(self) -> None:
        """Load the model.

        Raises:
            InvalidModelError: the model cannot be run.
            ModelNotReadyError: the process died, or talks nonsense.
        """
        self._loading = self._loop.create_future()
        self._ring(LOAD, encode_header(self._launched.load), MAX_HEADER_BYTES)
        loaded = await self._loading
        if isinstance(loaded, BlindAIError):
            raise loaded
        try:
            inputs, outputs = unpack_specs(loaded.inputs), unpack_specs(loaded.outputs)
            optional = unpack_specs(loaded.optional)
        except ValueError:
            raise _died() from None
        if not set(loaded.providers) <= set(self._launched.load.providers):
            raise _died()
        self.face = ModelFace(
            inputs=inputs,
            outputs=outputs,
            precision=loaded.precision,
            providers=loaded.providers,
            optional=optional,
        )
        self.rows_independent = loaded.rows_independent

    def run(self, batch: Batch) -> None:
        """Start a batch; nothing may be running."""
        self.batch = batch
        self._run_id += 1
        try:
            sizes = _joined_sizes(batch)
            offsets, end = place(sizes)
            if end - MAX_HEADER_BYTES > self._requests.capacity:
                raise TooLargeError("the inputs take more memory than a request to a model has")
            header = encode_header(_run_message(batch.requests[0], batch.rows, sizes))
        except BlindAIError as error:
            self._loop.call_soon(self._finish, batch, Outcome(error=error))
            return
        self._wished = _wished(batch.requests[0].outputs, self.face.outputs)
        self._used = end, 0, MAX_HEADER_BYTES
        if batch.size <= _QUICK_BYTES:
            self._write(batch, offsets, self._requests.write)
            self._ring(RUN, header, end)
        else:
            self._copying = self._loop.create_task(self._run_large(batch, offsets, header, end))

    def break_off(self) -> None:
        """Tell the process to stop what it runs."""
        with contextlib.suppress(OSError):
            self._launched.control.send(BREAK_OFF.pack(self._run_id))

    def kill(self) -> None:
        """End the process at once; what it runs fails."""
        self._fail_all()

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        self.on_ended = _nobody_told
        self._fail_all()
        await self._gone()

    async def _run_large(self, batch: Batch, offsets: list[int], header: bytes, end: int) -> None:
        await asyncio.to_thread(self._write, batch, offsets, self._requests.write_large)
        self._copying = None
        if self._alive and batch.broken_off is not None:
            self._finish(batch, Outcome(error=batch.broken_off))
        elif self._alive:
            self._ring(RUN, header, end)

    def _write(self, batch: Batch, offsets: list[int], write: Writer) -> None:
        """Each input's rows, those of all requests one behind the other."""
        for index, start in enumerate(offsets):
            offset = start
            for request in batch.requests:
                buffer = request.buffers[index]
                write(offset, buffer)
                offset += len(buffer)

    def _ring(self, kind: int, header: bytes, end: int) -> None:
        self._requests.write_header(header)
        self._header_length = len(header)
        self._used = end, 0, MAX_HEADER_BYTES
        try:
            self._launched.doorbell.send(DOORBELL.pack(kind, len(header), self._run_id))
        except OSError:
            self._loop.call_soon(self._fail_all)

    def _on_doorbell(self) -> None:
        try:
            message = self._launched.doorbell.recv(DOORBELL.size + 1)
            if len(message) != DOORBELL.size:
                raise ValueError("a worker's doorbell is none, or its socket was closed")  # noqa: TRY301
            kind, length, run_id = DOORBELL.unpack(message)
            if run_id != self._run_id or (self._loading is None and self.batch is None) or self._copying is not None:
                raise ValueError("a worker answers what was not asked")  # noqa: TRY301
            self._answer(kind, self._answers.read_header(length))
        except BlockingIOError:
            return
        except (OSError, ValueError, BlindAIError):
            self._fail_all()

    def _answer(self, kind: int, header: bytes) -> None:
        self._used = self._used[0], len(header), MAX_HEADER_BYTES
        if kind == RESULT and self.batch is not None:
            self._read_result(self.batch, decode_header(header, Result))
        elif kind == FAILED and self.batch is not None:
            self._finish(self.batch, Outcome(error=error_of(decode_header(header, Failed))))
        elif kind == FAILED and self._loading is not None:
            self._end_loading(error_of(decode_header(header, Failed)))
        elif kind == LOADED and self._loading is not None:
            self._end_loading(decode_header(header, Loaded))
        else:
            raise ValueError("a worker's answer does not fit the question")

    def _end_loading(self, result: Loaded | BlindAIError) -> None:
        loading, self._loading = self._loading, None
        self._erase()
        if loading is not None and not loading.done():
            loading.set_result(result)

    def _read_result(self, batch: Batch, result: Result) -> None:
        if len(self._wished) != len(batch.requests[0].outputs or self.face.outputs):
            raise ValueError("a worker's answer has outputs that the model does not have")
        check_outputs(result.outputs, self._wished, self._max_answer_bytes)
        sizes = [entry.size for entry in result.outputs]
        offsets, end = place(sizes)
        if end - MAX_HEADER_BYTES > self._answers.capacity:
            raise ValueError("a worker's answer passes its memory")
        self._used = self._used[0], self._used[1], end
        times = RunTimes(input_ns=result.input_ns, infer_ns=result.infer_ns, output_ns=result.output_ns)
        is_quick = max(end - MAX_HEADER_BYTES, batch.size) <= _QUICK_BYTES
        if is_quick and all(spec.datatype is not Datatype.BYTES for spec in self._wished):
            self._finish(batch, Outcome(outputs=self._copied(result.outputs, offsets, self._wished), times=times))
        else:
            self._copying = self._loop.create_task(self._read_large(batch, result, offsets, times))

    async def _read_large(self, batch: Batch, result: Result, offsets: list[int], times: RunTimes) -> None:
        try:
            outputs = await asyncio.to_thread(self._copied, result.outputs, offsets, self._wished)
            await asyncio.to_thread(self._erase)
        except (ValueError, BlindAIError):
            self._copying = None
            self._fail_all()
            return
        self._copying = None
        if self.batch is batch:  # else the process has ended meanwhile
            self._finish(batch, Outcome(outputs=outputs, times=times))

    def _copied(
        self, entries: tuple[OutputEntry, ...], offsets: list[int], specs: tuple[TensorSpec, ...]
    ) -> tuple[Tensor, ...]:
        """The outputs in memory of our own, which the process cannot change any more; sizes were compared before."""
        outputs = []
        for entry, offset, spec in zip(entries, offsets, specs, strict=True):
            raw, datatype, shape = self._answers.copy(offset, entry.size), spec.datatype, entry.shape
            if datatype in _NOT_AS_THEY_LIE:
                outputs.append(decode_tensor(memoryview(raw), name=spec.name, datatype=datatype, shape=shape))
            else:
                data: Array = np.ndarray(shape, datatype.numpy, raw)
                outputs.append(Tensor(name=spec.name, datatype=datatype, shape=shape, data=data))
        return tuple(outputs)

    def _erase(self) -> None:
        """Nothing of a batch is left in shared memory when the next one comes."""
        requests_end, answer_header, answers_end = self._used
        self._requests.erase(self._header_length, requests_end)
        self._answers.erase(answer_header, answers_end)
        self._header_length, self._used = 0, (MAX_HEADER_BYTES, 0, MAX_HEADER_BYTES)

    def _finish(self, batch: Batch, outcome: Outcome) -> None:
        if self.batch is not batch:
            return
        self._erase()
        self.batch = None
        self.on_finished(self, batch, outcome)

    def _fail_all(self) -> None:
        """Nothing more comes from this process."""
        if not self._alive:
            return
        self._alive = False
        is_asked_for = self.on_ended is _nobody_told
        self._launched.process.kill()
        if not is_asked_for:
            self._launched.process.distrust()
        self._loop.remove_reader(self._launched.doorbell.fileno())
        if self._loading is not None and not self._loading.done():
            self._loading.set_result(_died())
        self._reaping = self._loop.create_task(self._reap(is_asked_for=is_asked_for))
        self.on_ended(self)
        batch, self.batch = self.batch, None
        if batch is not None:
            self.on_finished(self, batch, Outcome(error=batch.broken_off or _died()))

    async def _gone(self) -> None:
        """Until the process is reaped and the memory unmapped; whoever waits may be cancelled."""
        if self._reaping is not None:
            await asyncio.shield(self._reaping)

    async def _reap(self, *, is_asked_for: bool) -> None:
        if self._copying is not None:
            await asyncio.wait([self._copying])
        status = await self._launched.process.wait()
        self._requests.close()
        self._answers.close()
        self._launched.close()
        if not is_asked_for:
            LOG.warning("a model's process ended, exit status %d", status)


def _joined_sizes(batch: Batch) -> list[int]:
    if len(batch.requests) == 1:
        return [len(buffer) for buffer in batch.requests[0].buffers]
    return [
        sum(len(request.buffers[index]) for request in batch.requests)
        for index in range(len(batch.requests[0].buffers))
    ]


def _run_message(request: QueuedRequest, rows: int, sizes: list[int]) -> Run:
    alone = rows == request.rows
    return Run(
        tuple(
            TensorEntry(tensor.name, tensor.datatype.value, tensor.shape if alone else (rows, *tensor.shape[1:]), size)
            for tensor, size in zip(request.inputs, sizes, strict=True)
        ),
        request.outputs,
    )


def _wished(names: tuple[str, ...], specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """What an answer must have; for names that the model lacks there can be none."""
    if not names:
        return specs
    known = {spec.name: spec for spec in specs}
    return tuple(known[name] for name in names if name in known)


def _nobody_told(_runner: object) -> None:
    """The end was asked for."""


def _died() -> ModelNotReadyError:
    return ModelNotReadyError(
        "the model's process has ended", hint="Try again; another one is being started.", retry_after_s=1
    )
