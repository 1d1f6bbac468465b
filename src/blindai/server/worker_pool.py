"""The processes that run models: one or more for each model digest and share (a tenant, or a client).

    model store → memory files → process (`worker_launch`, `worker`) ⇄ arenas ⇄ `worker_process`
    `WorkerPool.infer` → `scheduler` (queue, batches) → that process; `instances` and `runner_start` start it

Started on first need, ended when nobody has used them for a while or somebody else needs their place.
`isolation` says what shares a process; requests of different shares never run in one batch whatever it says.
Leaves out: who may run what, and the sandbox.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError, OverloadedError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import encode_tensor
from blindai.server.batching import check_batch
from blindai.server.instances import Instances
from blindai.server.metrics import Metrics
from blindai.server.model_config import RunWish
from blindai.server.request_queue import queued_request, signature_of
from blindai.server.runner_start import PoolOptions, RunnerStarter
from blindai.server.statistics import ModelStatistics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blindai.oip.tensors import Tensor
    from blindai.server.arena import Buffer
    from blindai.server.model_config import QueuePolicy
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.runner import ModelFace, Runner

_NO_WISH = RunWish()
_DEFAULTS = PoolOptions()


class WorkerPool:
    """Runs stored models; belongs to one event loop.

    Args:
        store: where models are read from.
        options: how they are run.
        directory: where it makes the empty folder in which its processes run; the system's for such if `None`.
        metrics: where batches and restarts are counted; nobody's if `None`.
    """

    def __init__(
        self,
        store: ModelStore,
        options: PoolOptions = _DEFAULTS,
        *,
        directory: Path | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._options = options
        self._metrics = metrics or Metrics()
        self._instances: dict[tuple[str, str], list[Instances]] = {}
        self._statistics: dict[tuple[str, str, str, str], ModelStatistics] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._ending: dict[Instances, asyncio.Event] = {}
        self._empty_directory = tempfile.TemporaryDirectory(prefix="blindai-worker-", dir=directory)
        self._starter = RunnerStarter(store, options, self._empty_directory.name)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the processes that are ready."""
        runners = (runner for instances in self._all() for runner in instances.runners)
        return tuple(runner.process_id for runner in runners if runner.process_id is not None)

    @property
    def waiting(self) -> int:
        """Requests in all queues."""
        return sum(instances.scheduler.waiting for instances in self._all())

    async def load(self, model: StoredModel, share: str) -> None:
        """Start the model's processes if they are not up.

        Raises:
            InvalidModelError: the model cannot be run.
            ModelNotReadyError: its process died while it loaded, and when it may be tried again.
            DeadlineExceededError: it loads for too long.
            OverloadedError: there are too many processes, all of them in use.
        """
        await self._find(model, share).ready()

    async def face(self, model: StoredModel, share: str) -> ModelFace:
        """What the model is served as; loads it if need be, and raises what `load` does."""
        instances = self._find(model, share)
        if not instances.runners:
            await instances.ready()
        return instances.face

    async def metadata(self, model: StoredModel, share: str) -> ModelFace:
        """The model's own word of itself; loads it if need be, and raises what `load` does."""
        runner = await self._find(model, share).ready()
        return runner.face

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
            TooLargeError: its outputs are larger than an answer may be.
            OverloadedError: too many requests wait for it.
            ModelNotReadyError: its process died, or the request waited too long.
            DeadlineExceededError: it ran for too long.
        """
        statistics = self.statistics(model)
        came_ns = time.monotonic_ns()
        config = model.config
        try:
            if config.max_batch_size:
                check_batch(inputs, config.max_batch_size)
            has_text = Datatype.BYTES in [tensor.datatype for tensor in inputs]
            buffers = await _encoded(inputs) if has_text else None
            request = queued_request(inputs, outputs, statistics, buffers)
            request.deadline_s = wish.deadline_s
            if config.queue.priority_levels:
                request.priority = _priority(wish, config.queue)
            instances = self._find(model, share)
            if instances.scheduler.rule.may_join and not wish.alone:
                request.signature, request.rows = signature_of(inputs, outputs, share)
            if not instances.runners:
                instances.ensure_started()
            return await instances.scheduler.infer(request, _queue_timeout_s(wish, config.queue))
        except BlindAIError:
            statistics.fail.add(time.monotonic_ns() - came_ns)
            raise

    def statistics(self, model: StoredModel) -> ModelStatistics:
        """Counts of a model version, which go on counting."""
        key = model.tenant, model.name, model.version, model.digest
        found = self._statistics.get(key)
        if found is None:
            found = self._statistics[key] = ModelStatistics()
        return found

    async def stop(self, model: StoredModel) -> None:
        """End the model's processes, whatever they are doing; their memory comes back, and its counts are forgotten."""
        for instances in [instances for instances in self._all() if instances.model.digest == model.digest]:
            await self._close(instances)
        for key in [key for key in self._statistics if key[-1] == model.digest]:
            del self._statistics[key]

    def forget(self, model: StoredModel) -> None:
        """Forget a model version's counts: it is no more, though an equal model may run under another name."""
        self._statistics.pop((model.tenant, model.name, model.version, model.digest), None)

    async def close(self) -> None:
        """End all processes."""
        for instances in list(self._all()):
            await self._close(instances)
        while self._closing:
            await asyncio.wait(self._closing)
        await self._starter.close()
        self._empty_directory.cleanup()

    def _all(self) -> Iterator[Instances]:
        for entries in self._instances.values():
            yield from entries

    def _find(self, model: StoredModel, share: str) -> Instances:
        """The model's instances; equal files that are served otherwise are others."""
        place = (model.digest, share if self._options.isolation == "tenant" else "")
        for instances in self._instances.get(place, ()):
            if instances.model.config is model.config or instances.model.config == model.config:
                return instances
        made = Instances(
            model,
            owner=place[1] or place[0],
            batching=self._options.batching,
            run_timeout_s=self._options.run_timeout_s,
            idle_s=self._options.idle_worker_s,
            start_runner=self._start_runner,
            on_idle=self._close_soon,
            metrics=self._metrics,
        )
        self._instances.setdefault(place, []).append(made)
        return made

    def _close_soon(self, instances: Instances) -> None:
        task = asyncio.get_running_loop().create_task(self._close(instances))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, instances: Instances) -> None:
        for place, entries in list(self._instances.items()):
            if instances in entries:
                entries.remove(instances)
                if not entries:
                    del self._instances[place]
        if instances in self._ending:
            await self._ending[instances].wait()
            return
        self._ending[instances] = gone = asyncio.Event()  # its processes count until they are gone
        try:
            await instances.close()
        finally:
            del self._ending[instances]
            gone.set()

    async def _start_runner(self, instances: Instances) -> Runner:
        await self._make_room(instances)
        return await self._starter.start(instances)

    async def _make_room(self, needy: Instances) -> None:
        """End what has been unused longest, anybody's, until the processes are not too many."""
        while sum(other.process_count for other in (*self._all(), *self._ending)) > self._options.max_workers:
            unused = [other for other in self._all() if other is not needy and other.process_count and other.is_unused]
            if unused:
                await self._close(min(unused, key=lambda other: other.scheduler.last_used_s))
            elif self._ending:
                await next(iter(self._ending.values())).wait()
            else:
                raise OverloadedError(
                    "as many models run as this server runs at a time, and all of them are in use",
                    hint="Try again in a second.",
                    retry_after_s=1,
                )


async def _encoded(inputs: tuple[Tensor, ...]) -> tuple[Buffer, ...]:
    """Text is put together in a thread, since the event loop is everybody's; numbers are sent from where they lie."""
    return await asyncio.to_thread(lambda: tuple(map(encode_tensor, inputs)))


def _priority(wish: RunWish, policy: QueuePolicy) -> int:
    """From 0, first; as in Triton, one that is not among the levels is the default."""
    levels = policy.priority_levels
    wished = wish.priority if 1 <= wish.priority <= levels else policy.default_priority_level
    return (wished if 1 <= wished <= levels else (levels + 1) // 2) - 1


def _queue_timeout_s(wish: RunWish, policy: QueuePolicy) -> float | None:
    """A request may only shorten its wait."""
    timeout_us = policy.default_timeout_us
    if policy.allow_timeout_override and wish.queue_timeout_us:
        timeout_us = min(timeout_us, wish.queue_timeout_us) if timeout_us else wish.queue_timeout_us
    return timeout_us / 1e6 if timeout_us else None
