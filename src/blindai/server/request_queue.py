"""Requests that wait for one model of one share: their order, and which of them may run as one.

Joined are requests with the same inputs in the same order, equal datatypes, equal shapes but for the first axis, and
the same wished outputs. Priorities are Triton's: 1 runs first, and equals keep their order.
Leaves out: when a batch starts (`scheduler`), and how its rows are put together (`worker_process`, `engine_thread`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from blindai.oip.tensors import Tensor, encode_tensor
from blindai.server.statistics import NO_TIMES, RunTimes

if TYPE_CHECKING:
    from collections.abc import Hashable

    from blindai.errors import BlindAIError
    from blindai.server.arena import Buffer
    from blindai.server.model_config import QueuePolicy
    from blindai.server.statistics import ModelStatistics

_SCANNED = 256  # requests looked at for one batch; the rest of a mixed queue waits its turn


class QueuedRequest(msgspec.Struct, kw_only=True, eq=False):
    """One request, from its arrival to its answer.

    Attributes:
        inputs: its tensors.
        buffers: their raw forms.
        size: of all buffers.
        outputs: wished ones; empty for all.
        answer: what `WorkerPool.infer` waits for.
        statistics: of the model version that it named.
        queued_ns: when it came, on `time.monotonic_ns`.
        signature: equal for those that may be joined; `None` if it runs alone.
        rows: of its first axis; 1 if it runs alone.
        priority: 0 is first.
        deadline_s: on the event loop's clock, when nobody waits for it any more.
        expiry: takes it out of the queue in time.
        batch: in which it runs.
    """

    inputs: tuple[Tensor, ...]
    buffers: tuple[Buffer, ...]
    size: int
    outputs: tuple[str, ...]
    answer: asyncio.Future[tuple[Tensor, ...]]
    statistics: ModelStatistics
    queued_ns: int
    signature: Hashable = None
    rows: int = 1
    priority: int = 0
    deadline_s: float | None = None
    expiry: asyncio.TimerHandle | None = None
    batch: Batch | None = None

    def __repr__(self) -> str:
        """Without its tensors."""
        return f"QueuedRequest(rows={self.rows}, size={self.size})"


class Batch(msgspec.Struct, kw_only=True, eq=False):
    """Requests that run as one.

    Attributes:
        requests: at least one, in the order of their rows.
        rows: of all.
        size: of all their buffers.
        started_ns: when it was handed to a process.
        deadline_s: on the event loop's clock, when it is broken off.
        broken_off: what its requests are told if it was.
        kill_at_s: when its process is killed, once it was broken off.
    """

    requests: tuple[QueuedRequest, ...]
    rows: int
    size: int
    started_ns: int = 0
    deadline_s: float = 0.0
    broken_off: BlindAIError | None = None
    kill_at_s: float | None = None

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for any of its answers."""
        return all(request.answer.done() for request in self.requests)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How a run ended.

    Attributes:
        outputs: of all rows together.
        error: instead of outputs.
        times: what it took.
    """

    outputs: tuple[Tensor, ...] = ()
    error: BlindAIError | None = None
    times: RunTimes = NO_TIMES


def queued_request(
    inputs: tuple[Tensor, ...],
    outputs: tuple[str, ...],
    statistics: ModelStatistics,
    buffers: tuple[Buffer, ...] | None = None,
) -> QueuedRequest:
    """A request as it joins the queue; `buffers` are its inputs' raw forms, if somebody has made them already."""
    raw = tuple([encode_tensor(tensor) for tensor in inputs]) if buffers is None else buffers
    return QueuedRequest(
        inputs=inputs,
        buffers=raw,
        size=sum([len(buffer) for buffer in raw]),
        outputs=outputs,
        answer=asyncio.get_running_loop().create_future(),
        statistics=statistics,
        queued_ns=time.monotonic_ns(),
    )


def signature_of(inputs: tuple[Tensor, ...], outputs: tuple[str, ...], share: str) -> tuple[Hashable, int]:
    """What is equal for requests that may be joined, and the rows of this one; `None` if it has no one batch axis."""
    rows = -1
    parts = []
    for tensor in inputs:
        shape = tensor.shape
        if not shape or shape[0] == 0 or rows not in (-1, shape[0]):
            return None, 1
        rows = shape[0]
        parts.append((tensor.name, tensor.datatype, shape[1:]))
    return (None, 1) if rows < 0 else ((share, outputs, tuple(parts)), rows)


def split_outputs(batch: Batch, outputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """Each request's rows.

    Raises:
        ValueError: the outputs have not as many rows as the inputs; the model does not keep them.
    """
    if len(batch.requests) == 1:
        return [outputs]
    if any(not output.shape or output.shape[0] != batch.rows for output in outputs):
        raise ValueError("a joined run did not answer row by row")
    parts = [(output.name, output.datatype, output.shape[1:], output.data) for output in outputs]
    answers, start = [], 0
    for request in batch.requests:
        end = start + request.rows
        rows = [
            Tensor(name=name, datatype=datatype, shape=(request.rows, *shape), data=data[start:end])
            for name, datatype, shape, data in parts
        ]
        answers.append(tuple(rows))
        start = end
    return answers


class RequestQueue:
    """Bounded by its owner; belongs to one event loop.

    Args:
        policy: how many priorities there are.

    Attributes:
        rows: of all that wait.
    """

    def __init__(self, policy: QueuePolicy) -> None:
        self._levels: tuple[deque[QueuedRequest], ...] = tuple(deque() for _ in range(max(1, policy.priority_levels)))
        self._count = 0
        self.rows = 0

    def __len__(self) -> int:
        return self._count

    @property
    def oldest_ns(self) -> int:
        """When the first of those that wait came; the queue is not empty."""
        return min(level[0].queued_ns for level in self._levels if level)

    def put(self, request: QueuedRequest) -> None:
        """Add one behind its equals."""
        self._levels[request.priority].append(request)
        self._count += 1
        self.rows += request.rows

    def put_back(self, requests: tuple[QueuedRequest, ...]) -> None:
        """Return some to the place that they had."""
        for request in reversed(requests):
            self._levels[request.priority].appendleft(request)
            self._count += 1
            self.rows += request.rows

    def remove(self, request: QueuedRequest) -> bool:
        """Take one out before its turn; whether it was still there."""
        try:
            self._levels[request.priority].remove(request)
        except ValueError:
            return False
        self._forget(request)
        return True

    def clear(self) -> list[QueuedRequest]:
        """Take out all."""
        everything = [request for level in self._levels for request in level]
        for level in self._levels:
            level.clear()
        self._count = self.rows = 0
        return everything

    def take(self, *, max_rows: int, max_bytes: int) -> Batch:
        """Take the first, and those that may run with it; the queue is not empty.

        Args:
            max_rows: of all together; the first is taken whatever it has.
            max_bytes: likewise.
        """
        first = next(level for level in self._levels if level).popleft()
        self._forget(first)
        if first.signature is None or first.rows >= max_rows or not self._count:
            return Batch(requests=(first,), rows=first.rows, size=first.size)
        requests, rows, size = [first], first.rows, first.size
        for level in self._levels:
            skipped = []
            for _ in range(min(len(level), _SCANNED)):
                if rows >= max_rows:
                    break
                request = level.popleft()
                fits = rows + request.rows <= max_rows and size + request.size <= max_bytes
                if fits and request.signature == first.signature:
                    requests.append(request)
                    rows += request.rows
                    size += request.size
                    self._forget(request)
                else:
                    skipped.append(request)
            level.extendleft(reversed(skipped))
        return Batch(requests=tuple(requests), rows=rows, size=size)

    def _forget(self, request: QueuedRequest) -> None:
        self._count -= 1
        self.rows -= request.rows
