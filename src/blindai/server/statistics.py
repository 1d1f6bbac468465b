"""Counts of one model version, as Triton's statistics extension reports them; no label names a user.

Durations are nanoseconds, summed over requests; those of a batch are counted for each of its requests, as in Triton.
Leaves out: the answer's form (the doors), and metrics (`metrics`), which read these.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import msgspec


@dataclass(slots=True, kw_only=True)
class Duration:
    """How often something happened, and how long it took in all.

    Attributes:
        count: how often.
        ns: summed nanoseconds.
    """

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count `count` more, which took `ns` together."""
        self.count += count
        self.ns += ns


class RunTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long the parts of one run took, as the model's process says.

    Attributes:
        input_ns: until the model could start.
        infer_ns: the model itself.
        output_ns: writing its answer.
    """

    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def bounded(self, elapsed_ns: int) -> RunTimes:
        """As far as it can be true: a model's process may say anything."""
        if min(self.input_ns, self.infer_ns, self.output_ns) >= 0 and (
            self.input_ns + self.infer_ns + self.output_ns <= elapsed_ns
        ):
            return self
        parts = []
        for part in (self.input_ns, self.infer_ns, self.output_ns):
            parts.append(min(max(part, 0), elapsed_ns))
            elapsed_ns -= parts[-1]
        return RunTimes(input_ns=parts[0], infer_ns=parts[1], output_ns=parts[2])


NO_TIMES = RunTimes()


@dataclass(slots=True, kw_only=True)
class BatchStatistics:
    """Runs of one batch size (Triton's `batch_stats`).

    Attributes:
        compute_input: until the model could start.
        compute_infer: the model itself.
        compute_output: writing the answer.
    """

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)

    def add(self, times: RunTimes, count: int = 1) -> None:
        """Count `count` requests or runs that took these times."""
        self.compute_input.add(times.input_ns * count, count)
        self.compute_infer.add(times.infer_ns * count, count)
        self.compute_output.add(times.output_ns * count, count)


@dataclass(slots=True, kw_only=True, eq=False)
class ModelStatistics:
    """What happened to one version of a model since it was first used.

    Attributes:
        last_inference_ms: when the last run ended, since 1970; 0 for never.
        inference_count: rows that ran (1 for a request without a batch axis).
        execution_count: runs of the model; less than `inference_count` where requests were joined.
        success: requests answered, from their arrival on.
        fail: requests that were not, refused ones included.
        queue: how long requests waited.
        compute: of requests.
        batches: of runs, by their rows.
    """

    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: BatchStatistics = field(default_factory=BatchStatistics)
    batches: dict[int, BatchStatistics] = field(default_factory=dict)

    def add_requests(self, count: int, *, rows: int, queue_ns: int, total_ns: int, times: RunTimes) -> None:
        """Count requests of one run that were answered; rows and durations are sums, `times` the run's."""
        self.inference_count += rows
        self.success.add(total_ns, count)
        self.queue.add(queue_ns, count)
        self.compute.add(times, count)

    def add_run(self, rows: int, times: RunTimes) -> None:
        """Count a run that was answered."""
        self.execution_count += 1
        self.last_inference_ms = time.time_ns() // 1_000_000
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchStatistics()
        batch.add(times)
