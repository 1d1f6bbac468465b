"""What a model has done since it was uploaded: counts and times, nothing of anybody's data.

Leaves out: how it is written (`statistics_view`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blindai.server.catalogue import StoredModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """How often, and how long altogether."""

    count: int = 0
    ns: int = 0

    def plus(self, ns: int) -> Duration:
        """Once more."""
        return Duration(count=self.count + 1, ns=self.ns + ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatistics:
    """Runs of one number of rows."""

    rows: int
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatistics:
    """Of one model and version (Triton, statistics extension).

    Attributes:
        inference_count: rows of all successful requests; without batches, the requests.
        execution_count: runs of the model.
        last_inference_ms: since the epoch; 0 for none.
    """

    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    batches: tuple[BatchStatistics, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Counters:
    """Mutable, since a request in a hurry counts."""

    rows: int = 0
    last_ms: int = 0
    success_ns: int = 0
    success_count: int = 0
    fail_ns: int = 0
    fail_count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True, kw_only=True)
class StatisticsBook:
    """Counts requests by model; belongs to one event loop."""

    _counters: dict[int, _Counters] = field(default_factory=dict)

    def succeeded(self, model: StoredModel, rows: int, *, marks_ns: tuple[int, int, int, int]) -> None:
        """A request was answered.

        Args:
            model: that ran.
            rows: of the batch.
            marks_ns: on the monotonic clock: begun, read, run, written.
        """
        begun, read, run, written = marks_ns
        counters = self._of(model)
        counters.rows += rows
        counters.last_ms = time.time_ns() // 1_000_000
        counters.success_count += 1
        counters.success_ns += written - begun
        counters.input_ns += read - begun
        counters.infer_ns += run - read
        counters.output_ns += written - run

    def failed(self, model: StoredModel, ns: int) -> None:
        """A request to this model was not answered."""
        counters = self._of(model)
        counters.fail_count += 1
        counters.fail_ns += ns

    def forget(self, model: StoredModel) -> None:
        """It was deleted."""
        self._counters.pop(model.sequence, None)

    def of(self, model: StoredModel) -> ModelStatistics:
        """What has been counted."""
        counters = self._counters.get(model.sequence)
        if counters is None:
            return ModelStatistics()
        count = counters.success_count
        blank = Duration(count=count)
        return ModelStatistics(
            inference_count=counters.rows,
            execution_count=count,
            last_inference_ms=counters.last_ms,
            success=replace(blank, ns=counters.success_ns),
            fail=Duration(count=counters.fail_count, ns=counters.fail_ns),
            queue=blank,
            compute_input=replace(blank, ns=counters.input_ns),
            compute_infer=replace(blank, ns=counters.infer_ns),
            compute_output=replace(blank, ns=counters.output_ns),
        )

    def _of(self, model: StoredModel) -> _Counters:
        counters = self._counters.get(model.sequence)
        if counters is None:
            counters = self._counters[model.sequence] = _Counters()
        return counters
