"""The processes that run models: one for each model digest, started on first need.

    model store → memory files → process (`worker_launch`, `worker`) ⇄ socket ⇄ `WorkerPool.infer`

When a process dies its requests fail with `ModelNotReadyError`, and the next request starts another.
What a process answers is parsed as hostile: a model may have taken it over.
Leaves out: the sandbox, batching, queue limits, back-off, idle processes, and tenants.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from typing import TYPE_CHECKING

from blindai.errors import (
    BlindAIError,
    DeadlineExceededError,
    ModelNotReadyError,
)
from blindai.server.log import LOG
from blindai.server.worker_launch import launch_worker
from blindai.server.worker_protocol import (
    LENGTH_BYTES,
    LOAD_ID,
    MAX_HEADER_BYTES,
    Failed,
    Loaded,
    Result,
    Run,
    decode_from_worker,
    encode_message,
    error_of,
    pack_tensors,
    unpack_specs,
    unpack_tensors,
)

if TYPE_CHECKING:
    import socket
    import subprocess
    from collections.abc import Iterator

    from blindai.oip.tensors import Tensor, TensorSpec
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.worker_launch import Launched
    from blindai.server.worker_protocol import FromWorker, Load

MAX_ANSWER_BYTES = 1024 * 1024 * 1024
_STREAM_LIMIT = 1024 * 1024


class WorkerPool:
    """Runs stored models; belongs to one event loop.

    Args:
        store: where models are read from.
        run_timeout_s: longest run of a model; its process ends with it.
        load_timeout_s: longest start of a process, loading included.
        max_answer_bytes: largest sum of a request's outputs.
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        run_timeout_s: float = 60.0,
        load_timeout_s: float = 300.0,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._store = store
        self._run_timeout_s = run_timeout_s
        self._load_timeout_s = load_timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._starts: dict[str, asyncio.Task[_Worker]] = {}
        self._empty_directory = tempfile.TemporaryDirectory(prefix="blindai-worker-")

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the processes that are up."""
        return tuple(worker.process_id for worker in self._running())

    async def load(self, model: StoredModel) -> None:
        """Start the model's process if it is not up.

        Raises:
            InvalidModelError: the model cannot be run.
            ModelNotReadyError: its process died while it loaded.
            DeadlineExceededError: it loads for too long.
        """
        await self._worker(model)

    async def metadata(self, model: StoredModel) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The model's inputs and outputs; loads it if need be, and raises what `load` does."""
        worker = await self._worker(model)
        return worker.inputs, worker.outputs

    async def infer(
        self, model: StoredModel, inputs: tuple[Tensor, ...], outputs: tuple[str, ...] = ()
    ) -> tuple[Tensor, ...]:
        """Run the model.

        Args:
            model: which.
            inputs: one tensor for each of its inputs.
            outputs: names of the wished outputs; empty means all.

        Raises:
            InvalidInputError: they do not fit the model.
            InternalError: the model failed on them.
            ModelNotReadyError: its process died.
            DeadlineExceededError: it ran for too long.
        """
        worker = await self._worker(model)
        return await worker.infer(inputs, outputs)

    async def stop(self, model: StoredModel) -> None:
        """End the model's process, whatever it is doing; its memory comes back."""
        start = self._starts.pop(model.digest, None)
        if start is not None:
            await _end(start)

    async def close(self) -> None:
        """End all processes."""
        starts, self._starts = tuple(self._starts.values()), {}
        for start in starts:
            await _end(start)
        self._empty_directory.cleanup()

    def _running(self) -> Iterator[_Worker]:
        for start in self._starts.values():
            if start.done() and not start.cancelled() and start.exception() is None and start.result().alive:
                yield start.result()

    async def _worker(self, model: StoredModel) -> _Worker:
        """The model's process, up and loaded; callers that come meanwhile wait for the same start."""
        start = self._starts.get(model.digest)
        if start is None or _is_over(start):
            start = asyncio.create_task(self._start(model, before=start))
            start.add_done_callback(_note_failure)
            self._starts[model.digest] = start
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            if start.cancelled():
                raise ModelNotReadyError("the model was stopped while it loaded", hint="Try again.") from None
            raise

    async def _start(self, model: StoredModel, *, before: asyncio.Task[_Worker] | None) -> _Worker:
        """Start a process once the one before it is gone."""
        if before is not None:
            await _end(before)
        process, channel, load = await self._launch(model)
        worker = _Worker(process, run_timeout_s=self._run_timeout_s, max_answer_bytes=self._max_answer_bytes)
        try:
            async with asyncio.timeout(self._load_timeout_s):
                await worker.connect(channel, load)
        except TimeoutError:
            await worker.end()
            raise DeadlineExceededError(f"the model was not loaded within {self._load_timeout_s:g} s") from None
        except BaseException:
            await worker.end()
            raise
        return worker

    async def _launch(self, model: StoredModel) -> Launched:
        """Start the process in a thread; a thread cannot be stopped, so on the way out its result is undone."""
        launch = asyncio.create_task(asyncio.to_thread(launch_worker, self._store, model, self._empty_directory.name))
        try:
            return await asyncio.shield(launch)
        except asyncio.CancelledError:
            with contextlib.suppress(BlindAIError):
                process, channel, _ = await launch
                channel.close()
                process.kill()
                await asyncio.to_thread(process.wait)
            raise


def _is_over(start: asyncio.Task[_Worker]) -> bool:
    """Whether a start has failed, or its process has died since."""
    return start.done() and (start.cancelled() or start.exception() is not None or not start.result().alive)


def _note_failure(start: asyncio.Task[_Worker]) -> None:
    """Every waiting request raises it; if none waits any more, asyncio need not complain."""
    if not start.cancelled():
        start.exception()


async def _end(start: asyncio.Task[_Worker]) -> None:
    """Stop a start, or the process that came of it."""
    start.cancel()
    await asyncio.wait([start])
    if not start.cancelled() and start.exception() is None:
        await start.result().end()


class _Worker:
    """One process and the requests that wait for it."""

    def __init__(self, process: subprocess.Popen[bytes], *, run_timeout_s: float, max_answer_bytes: int) -> None:
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self.alive = True
        self._process = process
        self._run_timeout_s = run_timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._waiting: dict[int, asyncio.Future[tuple[Tensor, ...]]] = {}
        self._next_id = LOAD_ID + 1
        self._deadline: asyncio.TimerHandle | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._reaping: asyncio.Task[int] | None = None

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def connect(self, channel: socket.socket, load: Load) -> None:
        """Load the model, then start to read answers."""
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=channel, limit=_STREAM_LIMIT)
        except BaseException:
            channel.close()
            raise
        try:
            self._writer.write(encode_message(load))
            message = await _read_message(reader)
            if isinstance(message, Failed):
                raise error_of(message)
            if not isinstance(message, Loaded):
                raise _died()
            self.inputs, self.outputs = unpack_specs(message.inputs), unpack_specs(message.outputs)
        except (OSError, EOFError, ValueError):
            raise _died() from None
        self._reading = asyncio.create_task(self._read_answers(reader))

    async def infer(self, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> tuple[Tensor, ...]:
        if not self.alive or self._writer is None:
            raise _died()
        request_id, self._next_id = self._next_id, self._next_id + 1
        entries, buffers = pack_tensors(inputs)
        head = encode_message(Run(id=request_id, tensors=entries, outputs=outputs))
        answer: asyncio.Future[tuple[Tensor, ...]] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        if self._deadline is None:
            self._watch()
        self._writer.writelines([head, *buffers])
        try:
            with contextlib.suppress(ConnectionError):  # the answer's failure says it better
                await self._writer.drain()
            return await answer
        finally:
            answer.cancel()  # the client may have gone away

    async def end(self) -> None:
        """Kill the process and wait until it is gone."""
        self._fail_all()
        if self._reading is not None:
            self._reading.cancel()
        await self._gone()

    async def _read_answers(self, reader: asyncio.StreamReader) -> None:
        """Hand each answer to its request until the process is gone or talks nonsense."""
        with contextlib.suppress(OSError, EOFError, ValueError, BlindAIError):
            while True:
                message = await _read_message(reader)
                if isinstance(message, Loaded) or message.id not in self._waiting:
                    break
                answer = error_of(message) if isinstance(message, Failed) else await self._read_tensors(reader, message)
                if message.id in self._waiting:  # it may have run out of time while its tensors came
                    _settle(self._waiting.pop(message.id), answer)
                    self._watch()
        self._fail_all()
        status = await self._gone()
        LOG.warning("a model's process ended, exit status %d", status)

    async def _read_tensors(self, reader: asyncio.StreamReader, message: Result) -> tuple[Tensor, ...]:
        sizes = [entry.size for entry in message.tensors]
        if min(sizes, default=0) < 0 or sum(sizes) > self._max_answer_bytes:
            raise ValueError("a worker's answer is too long")
        buffers = [await reader.readexactly(size) for size in sizes]
        return unpack_tensors(message.tensors, buffers)

    def _watch(self) -> None:
        """Give the request that the process works on its time; it works on one, the oldest."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._run_timeout_s, self._run_out_of_time)

    def _run_out_of_time(self) -> None:
        """Only the end of the process stops a run; what else waits may try again."""
        oldest = next(iter(self._waiting))
        _settle(
            self._waiting.pop(oldest), DeadlineExceededError(f"the model ran longer than {self._run_timeout_s:g} s")
        )
        self._fail_all()

    def _fail_all(self) -> None:
        """Nothing more comes from this process."""
        if self.alive:
            self.alive = False
            self._process.kill()
        waiting, self._waiting = tuple(self._waiting.values()), {}
        for answer in waiting:
            _settle(answer, _died())
        self._watch()

    async def _gone(self) -> int:
        """The exit status, once the socket is closed and the process reaped; whoever waits may be cancelled."""
        if self._reaping is None:
            self._reaping = asyncio.create_task(self._reap())
        return await asyncio.shield(self._reaping)

    async def _reap(self) -> int:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        return await asyncio.to_thread(self._process.wait)


async def _read_message(reader: asyncio.StreamReader) -> FromWorker:
    length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
    if length > MAX_HEADER_BYTES:
        raise ValueError("a worker's header is too long")
    return decode_from_worker(await reader.readexactly(length))


def _settle(answer: asyncio.Future[tuple[Tensor, ...]], value: tuple[Tensor, ...] | BlindAIError) -> None:
    """Answer a request, unless its client has gone away."""
    if answer.done():
        return
    if isinstance(value, BlindAIError):
        answer.set_exception(value)
    else:
        answer.set_result(value)


def _died() -> ModelNotReadyError:
    return ModelNotReadyError("the model's process has ended", hint="Try again; the next request starts another.")
