"""One model of one share: its queue, the processes that run it, and which request runs when.

    submit → queue → pump: a free runner takes a batch → finished: rows go back to their requests → pump

A batch that fails is run again request by request, so that no request fails because of another. A runner that dies
costs what it was running; the others wait for the next one, unless that takes longer than a second (`backoff`).
Leaves out: starting and ending processes (`worker_pool`, `instances`), joining (`batching`, `request_queue`).
"""

from __future__ import annotations

import asyncio
import time
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from blindai.errors import BlindAIError, DeadlineExceededError, ModelNotReadyError, OverloadedError
from blindai.server.batching import BatchingRule
from blindai.server.log import LOG
from blindai.server.request_queue import Batch, RequestQueue, split_outputs

if TYPE_CHECKING:
    from blindai.oip.tensors import Tensor
    from blindai.server.metrics import Metrics
    from blindai.server.model_config import ServingConfig
    from blindai.server.request_queue import Outcome, QueuedRequest
    from blindai.server.runner import Runner

_GRACE_S = 1.0  # for a run to end after it was broken off


class Scheduler:
    """Gives waiting requests to free runners; belongs to one event loop.

    Args:
        config: the owner's settings.
        batching: the operator's; `False` never joins.
        run_timeout_s: longest run.
        metrics: where batches are counted.

    Attributes:
        rule: whether and when requests are joined.
        last_used_s: on the event loop's clock.
    """

    def __init__(self, config: ServingConfig, *, batching: bool, run_timeout_s: float, metrics: Metrics) -> None:
        self._metrics = metrics
        self.rule = BatchingRule(config, allowed=batching)
        self._max_queue_size = config.queue.max_queue_size
        self._run_timeout_s = run_timeout_s
        self._loop = asyncio.get_running_loop()
        self._queue = RequestQueue(config.queue)
        self._free: list[Runner] = []
        self._busy: dict[Runner, Batch] = {}
        self._joined: set[Runner] = set()
        self._pump_planned: asyncio.Handle | None = None
        self._delay: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.last_used_s = self._loop.time()

    @property
    def is_unused(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._busy and not len(self._queue)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def add(self, runner: Runner) -> None:
        """A runner is ready."""
        self._joined.add(runner)
        self._free.append(runner)
        self._plan_pump()

    def remove(self, runner: Runner) -> None:
        """A runner has ended; what it runs fails on its own."""
        self._joined.discard(runner)
        if runner in self._free:
            self._free.remove(runner)

    async def infer(self, request: QueuedRequest, timeout_s: float | None) -> tuple[Tensor, ...]:
        """Wait in the queue, at most so long, and run.

        Raises:
            OverloadedError: the queue is full.
            ModelNotReadyError: it waited too long, or its process died.
            DeadlineExceededError: it ran too long, or its own deadline has passed.
            InvalidInputError: it does not fit the model.
            InternalError: the model failed on it.
        """
        if len(self._queue) >= self._max_queue_size:
            raise OverloadedError(
                f"{self._max_queue_size} requests wait for the model already",
                hint="Try again in a second.",
                retry_after_s=1,
            )
        self._queue.put(request)
        if timeout_s is not None or request.deadline_s is not None:
            self._limit_wait(request, timeout_s)
        self._plan_pump()
        try:
            return await request.answer
        except asyncio.CancelledError:
            self._abandon(request)
            raise

    def fail_waiting(self, error: BlindAIError) -> None:
        """Fail what waits; what runs goes on."""
        for request in self._queue.clear():
            _fail(request, error)

    def close(self) -> None:
        """Its runners have ended: nothing is looked at any more, and no timer keeps it."""
        for timer in (self._delay, self._watch):
            if timer is not None:
                timer.cancel()

    def run_alone(self, runner: Runner, request: QueuedRequest) -> None:
        """Run a request on a runner that is not ready for others yet (warm-up)."""
        self._start(runner, Batch(requests=(request,), rows=request.rows, size=request.size))

    def finished(self, runner: Runner, batch: Batch, outcome: Outcome) -> None:
        """A batch has ended, one way or the other."""
        self._busy.pop(runner, None)
        for request in batch.requests:
            request.batch = None  # each would hold the other, and all tensors, until the collector looked
        if runner in self._joined:
            self._free.append(runner)
        self.last_used_s = self._loop.time()
        ended_ns = time.monotonic_ns()
        if outcome.error is None:
            self._answer(batch, outcome, ended_ns)
        elif len(batch.requests) > 1 and batch.broken_off is None and not isinstance(outcome.error, ModelNotReadyError):
            self._run_one_by_one(batch)
        else:
            for request in batch.requests:
                _fail(request, batch.broken_off or outcome.error)
        if len(self._queue):
            self._plan_pump()

    def _answer(self, batch: Batch, outcome: Outcome, ended_ns: int) -> None:
        try:
            answers = split_outputs(batch, outcome.outputs)
        except ValueError:
            self.rule.forbid()
            LOG.warning("a model does not keep the rows of its batches; its requests run one by one from now on")
            self._run_one_by_one(batch)
            return
        times = outcome.times.bounded(ended_ns - batch.started_ns)
        for request, outputs in zip(batch.requests, answers, strict=True):
            if not request.answer.done():
                request.answer.set_result(outputs)
        for statistics, group in groupby(batch.requests, attrgetter("statistics")):  # of each name of the model
            requests = list(group)
            came_ns = sum([request.queued_ns for request in requests])
            statistics.add_requests(
                len(requests),
                rows=sum([request.rows for request in requests]),
                queue_ns=len(requests) * batch.started_ns - came_ns,
                total_ns=len(requests) * ended_ns - came_ns,
                times=times,
            )
        batch.requests[0].statistics.add_run(batch.rows, times)
        self._metrics.batch_sizes.observe(len(batch.requests))
        self.rule.ran(batch, ended_ns=ended_ns, waiting_rows=self._queue.rows)

    def _run_one_by_one(self, batch: Batch) -> None:
        for request in batch.requests:
            request.signature = None
        self._queue.put_back(tuple(request for request in batch.requests if not request.answer.done()))

    def _plan_pump(self) -> None:
        """After whatever else the loop has ready: requests that arrived together are joined without waiting."""
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        if self._pump_planned is None and self._free:
            self._pump_planned = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_planned = None
        queue, rule = self._queue, self.rule
        while self._free and len(queue):
            if rule.may_join:
                wait_ns = rule.wait_ns(queue, time.monotonic_ns())
                if wait_ns > 0:
                    self._delay = self._loop.call_later(wait_ns / 1e9, self._plan_pump)
                    return
            runner = self._free.pop()
            self._start(runner, queue.take(max_rows=rule.max_rows(queue.rows), max_bytes=runner.max_batch_bytes))

    def _start(self, runner: Runner, batch: Batch) -> None:
        now_s = self._loop.time()
        batch.started_ns = time.monotonic_ns()
        batch.deadline_s = now_s + self._run_timeout_s
        latest_s = 0.0
        for request in batch.requests:
            request.batch = batch
            latest_s = max(latest_s, batch.deadline_s if request.deadline_s is None else request.deadline_s)
            if request.expiry is not None:
                request.expiry.cancel()
        batch.deadline_s = min(batch.deadline_s, latest_s)
        self._busy[runner] = batch
        self._watch_until(batch.deadline_s)
        runner.run(batch)

    def _limit_wait(self, request: QueuedRequest, timeout_s: float | None) -> None:
        error: BlindAIError = ModelNotReadyError(
            "Request timeout expired", hint="It waited for the model longer than it may; try again.", retry_after_s=1
        )
        if request.deadline_s is not None:
            left_s = request.deadline_s - self._loop.time()
            if timeout_s is None or left_s < timeout_s:
                timeout_s, error = left_s, _deadline_passed()
        if timeout_s is not None:
            request.expiry = self._loop.call_later(max(0.0, timeout_s), self._expire, request, error)

    def _expire(self, request: QueuedRequest, error: BlindAIError) -> None:
        if self._queue.remove(request):
            _fail(request, error)

    def _abandon(self, request: QueuedRequest) -> None:
        """Nobody waits for the answer any more: it does not run, or need not go on."""
        if request.expiry is not None:
            request.expiry.cancel()
        if self._queue.remove(request) or request.batch is None:
            return
        runner = next((runner for runner, batch in self._busy.items() if batch is request.batch), None)
        if runner is not None and request.batch.broken_off is None and request.batch.abandoned:
            self._break_off(runner, request.batch, _deadline_passed())

    def _break_off(self, runner: Runner, batch: Batch, error: BlindAIError) -> None:
        batch.broken_off = error
        batch.kill_at_s = self._loop.time() + _GRACE_S
        self._watch_until(batch.kill_at_s)
        runner.break_off()

    def _watch_until(self, when_s: float) -> None:
        """One timer for all runs: most end long before it, and need none of their own."""
        if self._watch is not None:
            if self._watch.when() <= when_s:
                return
            self._watch.cancel()
        self._watch = self._loop.call_at(when_s, self._look)

    def _look(self) -> None:
        """Break off what runs too long, and kill what cannot be broken off."""
        self._watch = None
        now_s = self._loop.time()
        for runner, batch in tuple(self._busy.items()):
            if batch.kill_at_s is None and now_s >= batch.deadline_s:
                self._break_off(runner, batch, self._too_long(batch))
            elif batch.kill_at_s is not None and now_s >= batch.kill_at_s:
                LOG.warning("a model's process did not break off its run, and is killed")
                runner.kill()
        for batch in self._busy.values():
            self._watch_until(batch.kill_at_s or batch.deadline_s)

    def _too_long(self, batch: Batch) -> BlindAIError:
        if all(request.deadline_s is not None for request in batch.requests):
            return _deadline_passed()
        return DeadlineExceededError(f"the model ran longer than {self._run_timeout_s:g} s")


def _deadline_passed() -> DeadlineExceededError:
    return DeadlineExceededError("the request's own deadline has passed")


def _fail(request: QueuedRequest, error: BlindAIError) -> None:
    """Fail a request, unless its client has gone away."""
    if request.expiry is not None:
        request.expiry.cancel()
    if not request.answer.done():
        request.answer.set_exception(error)
