"""The runners of one model of one share: started together, warmed up, started again when they die.

    nothing → starting → ready (all `ServingConfig.instances`, warmed up) → one dies → started again, with back-off

A model whose start fails is not tried again by itself; the next request does it, once the back-off allows.
Leaves out: what starts a runner and how many there may be at all (`worker_pool`), and what they run (`scheduler`).
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError, DeadlineExceededError, InvalidModelError, ModelNotReadyError
from blindai.server.backoff import Backoff
from blindai.server.log import LOG
from blindai.server.model_fit import served_as
from blindai.server.request_queue import queued_request
from blindai.server.runner import NO_FACE
from blindai.server.scheduler import Scheduler
from blindai.server.statistics import ModelStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blindai.server.catalogue import StoredModel
    from blindai.server.metrics import Metrics
    from blindai.server.request_queue import Batch, Outcome
    from blindai.server.runner import Runner

_PATIENCE_S = 1.0  # the longest pause before the next process that requests wait through


class Instances:
    """All runners of one model of one share, and its scheduler; belongs to one event loop.

    Args:
        model: which.
        owner: whose fork server starts its processes.
        batching: the operator's word on joining requests.
        run_timeout_s: longest run.
        idle_s: after which `on_idle` is called, if nothing was run.
        start_runner: starts and loads one; it is given this object.
        on_idle: told when nobody has used it for `idle_s`.
        metrics: where batches and restarts are counted.

    Attributes:
        model: as given.
        owner: as given.
        scheduler: where requests wait.
        process_count: runners that are up or being started.
        runners: those that are ready.
        face: what the model is served as, known once one has been ready.
    """

    def __init__(
        self,
        model: StoredModel,
        *,
        owner: str,
        batching: bool,
        run_timeout_s: float,
        idle_s: float,
        start_runner: Callable[[Instances], Awaitable[Runner]],
        on_idle: Callable[[Instances], None],
        metrics: Metrics,
    ) -> None:
        self.model = model
        self.owner = owner
        # Not even on the owner's word: a pipeline's answers take their form from all rows of a run.
        joins = batching and not model.manifest.has_pipeline
        self.scheduler = Scheduler(model.config, batching=joins, run_timeout_s=run_timeout_s, metrics=metrics)
        self.process_count = 0
        self._idle_s = idle_s
        self._start_runner = start_runner
        self._on_idle = on_idle
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self.runners: list[Runner] = []
        self.face = NO_FACE
        self._backoff = Backoff()
        self._failure: BlindAIError | None = None
        self._start: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._idle_check = self._loop.call_later(idle_s, self._look_if_idle)
        self._is_closed = False
        self._is_start_lost = False

    @property
    def is_unused(self) -> bool:
        """Whether it could be ended without anybody's noticing."""
        return self._start is None and self.scheduler.is_unused

    async def ready(self) -> Runner:
        """One that is ready; starts them if need be.

        Raises:
            InvalidModelError: the model cannot be run.
            ModelNotReadyError: its process died, or was stopped while it loaded.
            DeadlineExceededError: it loads for too long.
            OverloadedError: there are too many processes.
        """
        while not self.runners:
            start = self.ensure_started()
            try:
                await asyncio.shield(start)
            except asyncio.CancelledError:
                if start.cancelled():
                    raise _stopped() from None
                raise
        return self.runners[0]

    def ensure_started(self) -> asyncio.Task[None]:
        """The start that is under way, or a new one.

        Raises:
            ModelNotReadyError: it has just failed, and is not tried again yet.
            InvalidModelError: likewise, and that was why.
        """
        if self._is_closed:
            raise _stopped()
        if self._start is None:
            wait_s = self._backoff.wait_s(self._loop.time())
            if wait_s > 0:
                raise _again_later(self._failure, wait_s)
            return self._begin()
        return self._start

    async def close(self) -> None:
        """End everything, whatever it is doing."""
        self._is_closed = True
        self._idle_check.cancel()
        if self._retry is not None:
            self._retry.cancel()
        if self._start is not None:
            start = self._start
            start.cancel()
            await asyncio.wait([start])
        self.scheduler.fail_waiting(_stopped())
        runners, self.runners = self.runners, []
        await self._end(runners)
        self.scheduler.close()

    def finished(self, runner: Runner, batch: Batch, outcome: Outcome) -> None:
        """A runner's `on_finished`."""
        self.scheduler.finished(runner, batch, outcome)

    def ended(self, runner: Runner) -> None:
        """A runner's `on_ended`: it died."""
        if runner not in self.runners:
            self._is_start_lost = True  # it died before the others of its start were ready
            return
        self.runners.remove(runner)
        self.scheduler.remove(runner)
        self.process_count -= 1
        self._backoff.fail(self._loop.time())
        self._failure = None
        self._start_again()

    def _start_again(self) -> None:
        """After a runner has died, whether or not anybody waits; through a short pause, whoever comes waits too."""
        self._retry = None
        if self._is_closed or self._start is not None:
            return
        wait_s = self._backoff.wait_s(self._loop.time())
        if wait_s <= _PATIENCE_S:
            self._metrics.worker_restarts += 1
            self._begin(wait_s)
            return
        self._retry = self._loop.call_later(wait_s, self._start_again)
        if not self.runners:
            self.scheduler.fail_waiting(_again_later(None, wait_s))

    def _begin(self, pause_s: float = 0.0) -> asyncio.Task[None]:
        self._start = self._loop.create_task(self._start_missing(pause_s))
        self._start.add_done_callback(self._started)
        return self._start

    async def _start_missing(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        missing = max(1, self.model.config.instances) - len(self.runners)
        self.process_count += missing
        self._is_start_lost = False
        started: list[Runner] = []
        try:
            starts = [self._loop.create_task(self._started_runner(started)) for _ in range(missing)]
            try:
                await asyncio.gather(*starts)
            except BaseException:
                for start in starts:
                    start.cancel()
                await asyncio.wait(starts)
                raise
            self.scheduler.rule.decide(started[0])
            for runner in started:
                await self._warm_up(runner)
            if self._is_start_lost:
                raise ModelNotReadyError("the model's process has ended", hint="Try again.", retry_after_s=1)  # noqa: TRY301
        except BaseException:
            await self._end(started)
            self.process_count -= missing - len(started)
            raise
        self.face = served_as(self.model.config, started[0].face)
        for runner in started:
            self.runners.append(runner)
            self.scheduler.add(runner)
        self.scheduler.last_used_s = self._loop.time()

    async def _started_runner(self, started: list[Runner]) -> None:
        started.append(await self._start_runner(self))

    async def _warm_up(self, runner: Runner) -> None:
        for inputs, count in self.model.config.warmup:
            for _ in range(count):
                request = queued_request(inputs, (), ModelStatistics())
                self.scheduler.run_alone(runner, request)
                await request.answer

    async def _end(self, runners: list[Runner]) -> None:
        """All at once, and to the end even if whoever waits is cancelled."""
        if runners:
            await asyncio.shield(asyncio.gather(*(self._end_one(runner) for runner in runners)))

    async def _end_one(self, runner: Runner) -> None:
        self.scheduler.remove(runner)
        try:
            await runner.end()
        finally:
            self.process_count -= 1

    def _started(self, start: asyncio.Task[None]) -> None:
        """However a start ended: whoever waits for it raises the same, and requests in the queue fail."""
        self._start = None
        if start.cancelled():
            return
        error = start.exception()
        if error is None:
            self._failure = None
            if len(self.runners) < self.model.config.instances:  # one that was ready has died meanwhile
                self._start_again()
            return
        if not isinstance(error, BlindAIError):
            LOG.error("a model could not be started: %s", type(error).__name__)
            error = ModelNotReadyError("the model could not be started", hint="Try again later.", retry_after_s=1)
        if isinstance(error, (InvalidModelError, ModelNotReadyError, DeadlineExceededError)):
            self._backoff.fail(self._loop.time())
        self._failure = error
        if not self.runners:
            self.scheduler.fail_waiting(error)

    def _look_if_idle(self) -> None:
        left_s = self.scheduler.last_used_s + self._idle_s - self._loop.time()
        if left_s <= 0 and self.is_unused and self._retry is None:
            self._on_idle(self)
        else:
            self._idle_check = self._loop.call_later(max(left_s, self._idle_s / 10), self._look_if_idle)


def _stopped() -> ModelNotReadyError:
    return ModelNotReadyError("the model was stopped", hint="Try again.", retry_after_s=1)


def _again_later(failure: BlindAIError | None, wait_s: float) -> BlindAIError:
    """What is said while a model that failed is left alone."""
    if isinstance(failure, InvalidModelError):
        return InvalidModelError(str(failure), hint=failure.hint)
    seconds = math.ceil(wait_s)
    return ModelNotReadyError(
        "the model's process ended again and again", hint=f"It is started again in {seconds} s.", retry_after_s=seconds
    )
