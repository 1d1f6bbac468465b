"""The processes that run models: one for each model digest and share (a tenant, or a client), started on first need.

    model store → memory files → process (`worker_launch`, `worker`) ⇄ socket ⇄ `worker_process` ⇄ `WorkerPool.infer`

When a process dies its requests fail with `ModelNotReadyError`, and the next request starts another.
Leaves out: the sandbox, batching, queue limits, back-off, idle processes, and tenants.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError, DeadlineExceededError, ModelNotReadyError
from blindai.server.model_config import RunWish
from blindai.server.worker_launch import launch_worker
from blindai.server.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blindai.oip.tensors import Tensor, TensorSpec
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.worker_launch import Launched

_NO_WISH = RunWish()
MAX_ANSWER_BYTES = 1024 * 1024 * 1024


class WorkerPool:
    """Runs stored models; belongs to one event loop.

    Args:
        store: where models are read from.
        run_timeout_s: longest run of a model; its process ends with it.
        load_timeout_s: longest start of a process, loading included.
        max_answer_bytes: largest sum of a request's outputs.
        directory: where it makes the empty folder in which its processes run; the system's for such if `None`.
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        run_timeout_s: float = 60.0,
        load_timeout_s: float = 300.0,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        directory: Path | None = None,
    ) -> None:
        self._store = store
        self._run_timeout_s = run_timeout_s
        self._load_timeout_s = load_timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._starts: dict[tuple[str, str], asyncio.Task[WorkerProcess]] = {}
        self._empty_directory = tempfile.TemporaryDirectory(prefix="blindai-worker-", dir=directory)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the processes that are up."""
        return tuple(worker.process_id for worker in self._running())

    async def load(self, model: StoredModel, share: str) -> None:
        """Start the model's process if it is not up.

        Raises:
            InvalidModelError: the model cannot be run.
            ModelNotReadyError: its process died while it loaded.
            DeadlineExceededError: it loads for too long.
        """
        await self._worker(model, share)

    async def metadata(self, model: StoredModel, share: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The model's inputs and outputs; loads it if need be, and raises what `load` does."""
        worker = await self._worker(model, share)
        return worker.inputs, worker.outputs

    async def infer(
        self,
        model: StoredModel,
        share: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...] = (),
        *,
        wish: RunWish = _NO_WISH,
    ) -> tuple[Tensor, ...]:
        """Run the model.

        Args:
            model: which.
            share: whose process (`Principal.share`).
            inputs: one tensor for each of its inputs.
            outputs: names of the wished outputs; empty means all.
            wish: what it asks of the scheduler.

        Raises:
            InvalidInputError: they do not fit the model.
            InternalError: the model failed on them.
            ModelNotReadyError: its process died.
            DeadlineExceededError: it ran for too long.
        """
        worker = await self._worker(model, share)
        del wish
        return await worker.infer(inputs, outputs)

    async def stop(self, model: StoredModel) -> None:
        """End the model's processes, whatever they are doing; their memory comes back."""
        for key in [key for key in self._starts if key[0] == model.digest]:
            await _end(self._starts.pop(key))

    async def close(self) -> None:
        """End all processes."""
        starts, self._starts = tuple(self._starts.values()), {}
        for start in starts:
            await _end(start)
        self._empty_directory.cleanup()

    def _running(self) -> Iterator[WorkerProcess]:
        for start in self._starts.values():
            if start.done() and not start.cancelled() and start.exception() is None and start.result().alive:
                yield start.result()

    async def _worker(self, model: StoredModel, share: str) -> WorkerProcess:
        """The model's process, up and loaded; callers that come meanwhile wait for the same start."""
        key = (model.digest, share)
        start = self._starts.get(key)
        if start is None or _is_over(start):
            start = asyncio.create_task(self._start(model, before=start))
            start.add_done_callback(lambda done: self._forget_failed(key, done))
            self._starts[key] = start
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            if start.cancelled():
                raise ModelNotReadyError("the model was stopped while it loaded", hint="Try again.") from None
            raise

    def _forget_failed(self, key: tuple[str, str], start: asyncio.Task[WorkerProcess]) -> None:
        """Every waiting request raises the failure; if none waits any more, asyncio need not complain of it."""
        if (start.cancelled() or start.exception() is not None) and self._starts.get(key) is start:
            del self._starts[key]

    async def _start(self, model: StoredModel, *, before: asyncio.Task[WorkerProcess] | None) -> WorkerProcess:
        """Start a process once the one before it is gone."""
        if before is not None:
            await _end(before)
        process, channel, load = await self._launch(model)
        worker = WorkerProcess(process, run_timeout_s=self._run_timeout_s, max_answer_bytes=self._max_answer_bytes)
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


def _is_over(start: asyncio.Task[WorkerProcess]) -> bool:
    """Whether a start has failed, or its process has died since."""
    return start.done() and (start.cancelled() or start.exception() is not None or not start.result().alive)


async def _end(start: asyncio.Task[WorkerProcess]) -> None:
    """Stop a start, or the process that came of it."""
    start.cancel()
    await asyncio.wait([start])
    if not start.cancelled() and start.exception() is None:
        await start.result().end()
