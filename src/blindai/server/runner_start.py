"""Starts one runner of a model: a process, or with `isolation = "thread"` a thread, loaded within its time.

Leaves out: how many there may be (`worker_pool`), when (`instances`), and how a process is spawned (`worker_launch`).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError, DeadlineExceededError
from blindai.server.cpu_quota import available_cpus
from blindai.server.forking import ForkServers, cannot_start
from blindai.server.worker_launch import WorkerLimits, launch_worker
from blindai.server.worker_process import WorkerProcess

if TYPE_CHECKING:
    from blindai.server.instances import Instances
    from blindai.server.model_store import ModelStore
    from blindai.server.runner import Runner
    from blindai.server.worker_launch import Launched

_MIB = 1024 * 1024
MAX_ANSWER_BYTES = 1024 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How models are run.

    Attributes:
        run_timeout_s: longest run of a model; then it is broken off.
        load_timeout_s: longest start of a process, loading included.
        idle_worker_s: after which a process that nobody uses ends.
        max_workers: processes at a time.
        max_request_bytes: largest sum of a batch's inputs.
        max_answer_bytes: largest sum of a batch's outputs.
        max_worker_bytes: address space of one process.
        isolation: what shares a process (`settings.Settings.isolation`).
        batching: whether waiting requests may run as one batch.
        providers: execution providers that may run models, in order.
    """

    run_timeout_s: float = 60.0
    load_timeout_s: float = 300.0
    idle_worker_s: float = 60.0
    max_workers: int = 64
    max_request_bytes: int = 256 * _MIB
    max_answer_bytes: int = MAX_ANSWER_BYTES
    max_worker_bytes: int = 16 * 1024 * _MIB
    isolation: str = "tenant"
    batching: bool = True
    providers: tuple[str, ...] = ("cpu",)


class RunnerStarter:
    """Starts runners; belongs to one event loop.

    Args:
        store: where models are read from.
        options: how they are run.
        directory: an empty one, in which processes run.
    """

    def __init__(self, store: ModelStore, options: PoolOptions, directory: str) -> None:
        self._store = store
        self._options = options
        self._forks = ForkServers(directory, idle_s=options.idle_worker_s, providers=options.providers)
        self._cpus = available_cpus()

    async def close(self) -> None:
        """End what processes are forked from; they have ended before."""
        await self._forks.close()

    async def start(self, instances: Instances) -> Runner:
        """Start a runner of a model, and load it.

        Raises:
            InvalidModelError: the model cannot be run.
            ModelNotReadyError: its process died while it loaded.
            DeadlineExceededError: it loads for too long.
        """
        try:
            async with asyncio.timeout(self._options.load_timeout_s):
                return await self._loaded_runner(instances)
        except TimeoutError:
            raise DeadlineExceededError(f"the model was not loaded within {self._options.load_timeout_s:g} s") from None

    async def _loaded_runner(self, instances: Instances) -> Runner:
        model, options = instances.model, self._options
        config = model.config
        limits = WorkerLimits(
            threads=min(config.intra_op_threads, self._cpus) or max(1, self._cpus // max(1, config.instances)),
            max_request_bytes=options.max_request_bytes,
            max_answer_bytes=options.max_answer_bytes,
            max_address_space_bytes=options.max_worker_bytes,
            rows_wanted=options.batching and config.batching == "auto",
            providers=options.providers,
        )
        if options.isolation == "thread":
            from blindai.server.engine_thread import EngineThread  # noqa: PLC0415  # else no ONNX Runtime in this process

            thread = EngineThread(limits, on_finished=instances.finished, on_ended=instances.ended)
            await thread.load(self._store, model)
            return thread
        launched = await self._launch(instances, limits)
        worker = WorkerProcess(
            launched,
            max_answer_bytes=options.max_answer_bytes,
            on_finished=instances.finished,
            on_ended=instances.ended,
        )
        try:
            await worker.load()
        except BaseException:
            await worker.end()
            raise
        return worker

    async def _launch(self, instances: Instances, limits: WorkerLimits) -> Launched:
        """Start the process; a thread of it cannot be stopped, so on the way out its result is undone."""
        launch = asyncio.create_task(self._launched(instances, limits))
        try:
            return await asyncio.shield(launch)
        except asyncio.CancelledError:
            with contextlib.suppress(BlindAIError):
                launched = await launch
                launched.process.kill()
                await launched.process.wait()
                launched.close()
            raise

    async def _launched(self, instances: Instances, limits: WorkerLimits) -> Launched:
        try:
            server = self._forks.of(instances.owner)
        except OSError:
            raise cannot_start() from None
        try:
            await server.until_ready()
            return await asyncio.to_thread(launch_worker, self._store, instances.model, server, limits)
        except BaseException:
            server.children -= 1
            raise
