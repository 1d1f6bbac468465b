"""Finds the settings under which a model answers most: threads × processes × joined rows, in real model processes.

The model runs as the server runs it (store, pool, scheduler, sandboxed process), without the network. For each number
of threads and processes the rows in the air are doubled until that stops paying; time is bounded.
Leaves out: how the result looks (cli/bench.py), and the cost of doors and sealing (bench/).
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from blindai.bundle_files import discover_bundle
from blindai.oip.random_tensors import random_tensors
from blindai.server.cpu_quota import available_cpus
from blindai.server.model_config import ServingConfig
from blindai.server.model_store import ModelStore
from blindai.server.model_trial import store_files
from blindai.server.row_independence import judge_rows
from blindai.server.runner_start import PoolOptions
from blindai.server.variant_report import sample_inputs
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from blindai.oip.tensors import Tensor
    from blindai.server.model_store import StoredModel
    from blindai.server.row_independence import RowVerdict

MAX_JOINED_ROWS = 64
_SHARE = "bench"
_MIN_GAIN = 1.05  # less than this is noise
_ENOUGH = 0.95  # of the best rate: then the quicker setting is the better one
_MIN_ROUNDS = 3  # of each request in the air, however long a run takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is tried.

    Attributes:
        threads: of one operator in one process.
        instances: processes.
        joined_rows: most requests of one row that run as one.
    """

    threads: int
    instances: int
    joined_rows: int

    def config(self) -> ServingConfig:
        """The same for the server."""
        return ServingConfig(
            batching="auto" if self.joined_rows > 1 else "off",
            max_joined_rows=self.joined_rows,
            instances=self.instances,
            intra_op_threads=self.threads,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How a setting did, with as many requests in the air as it can run at a time.

    Attributes:
        rate: answers in a second.
        p50_ms: median time of an answer.
        p99_ms: 99 of 100 answers took at most this.
        rows_per_run: requests that were really joined, on average.
    """

    setting: Setting
    rate: float
    p50_ms: float
    p99_ms: float
    rows_per_run: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Everything that was found out.

    Attributes:
        cpus: that may really be used.
        rows: whether requests may be joined, and why not.
        random_sample: whether the inputs were made up.
        measured: in the order of measuring.
        best: the quickest among those that answer nearly as many as any.
        complete: whether everything was tried that should have been.
    """

    cpus: int
    rows: RowVerdict
    random_sample: bool
    measured: tuple[Measured, ...]
    best: Measured
    complete: bool


def tune(
    path: Path,
    sample: Mapping[str, Any] | None,
    *,
    budget_s: float,
    window_s: float,
    on_measured: Callable[[Measured], None],
) -> Tuning:
    """Measure a model under one setting after the other.

    Args:
        path: the `.onnx` file; what lies beside it by its name belongs to it.
        sample: inputs by name, one request; random numbers if `None`.
        budget_s: no setting is begun after so much time, but the first.
        window_s: how long each setting is measured.
        on_measured: called after each.

    Raises:
        InvalidModelError: the server would refuse the model.
        InvalidInputError: the sample does not fit the model.
        InternalError: the model fails on the sample.
    """
    files = discover_bundle(path, None)
    rows = judge_rows(onnx.load(path, load_external_data=False))
    with tempfile.TemporaryDirectory(prefix="blindai-bench-") as folder:
        store = ModelStore(Path(folder) / "store")
        try:
            model = store_files(store, "bench", files)
            search = _Search(
                store, model, rows, ends_s=time.monotonic() + budget_s, window_s=window_s, on_measured=on_measured
            )
            asyncio.run(search.run(sample))
        finally:
            store.close()
    return Tuning(
        cpus=available_cpus(),
        rows=rows,
        random_sample=sample is None,
        measured=tuple(search.measured),
        best=best_of(search.measured),
        complete=search.complete,
    )


def grid(cpus: int) -> Iterator[tuple[int, int]]:
    """(threads, processes) that fill the machine or a power of two of it, one process first."""
    powers = sorted({1 << bits for bits in range(cpus.bit_length())} | {cpus})
    for instances in powers:
        for threads in powers:
            if threads * instances <= cpus:
                yield threads, instances


def best_of(measured: list[Measured]) -> Measured:
    """The lowest median time among those whose rate is nearly the best; of equals, the one with fewer processes."""
    most = max(one.rate for one in measured)
    good = [one for one in measured if one.rate >= _ENOUGH * most]
    return min(good, key=lambda one: (one.p50_ms, one.setting.instances, one.setting.threads))


class _Search:
    """One model's grid; fills `measured`."""

    def __init__(
        self,
        store: ModelStore,
        model: StoredModel,
        rows: RowVerdict,
        *,
        ends_s: float,
        window_s: float,
        on_measured: Callable[[Measured], None],
    ) -> None:
        self.measured: list[Measured] = []
        self.complete = True
        self._store = store
        self._model = model
        self._joinable = rows.independent
        self._ends_s = ends_s
        self._window_s = window_s
        self._on_measured = on_measured

    async def run(self, sample: Mapping[str, Any] | None) -> None:
        """Everything, as long as there is time."""
        cpus = available_cpus()
        pool = WorkerPool(self._store, PoolOptions(batching=True, max_workers=cpus + 1))
        try:
            specs = (await pool.metadata(self._model, _SHARE)).inputs
            inputs = random_tensors(specs, rows=1) if sample is None else sample_inputs(specs, sample)
            await pool.infer(self._model, _SHARE, inputs)  # says what is wrong with the sample, before the search
            for threads, instances in grid(cpus):
                await self._climb(pool, inputs, threads=threads, instances=instances)
        finally:
            await pool.close()

    async def _climb(self, pool: WorkerPool, inputs: tuple[Tensor, ...], *, threads: int, instances: int) -> None:
        """Double the rows until twice in a row it does not pay."""
        best, flat, joined = 0.0, 0, 1
        while flat < 2 and joined <= (MAX_JOINED_ROWS if self._joinable else 1):  # noqa: PLR2004  # as the docstring says
            if self.measured and time.monotonic() >= self._ends_s:
                self.complete = False
                return
            found = await self._measure(pool, inputs, Setting(threads=threads, instances=instances, joined_rows=joined))
            self.measured.append(found)
            self._on_measured(found)
            flat = flat + 1 if found.rate < _MIN_GAIN * best else 0
            best = max(best, found.rate)
            joined *= 2

    async def _measure(self, pool: WorkerPool, inputs: tuple[Tensor, ...], setting: Setting) -> Measured:
        await pool.stop(self._model)  # the processes of the last setting
        model = replace(self._model, config=setting.config())
        await pool.load(model, _SHARE)
        count = setting.joined_rows * setting.instances
        await asyncio.gather(*(pool.infer(model, _SHARE, inputs) for _ in range(count)))  # caches warm
        counted = pool.statistics(model)
        runs = counted.execution_count
        latencies: list[float] = []
        begun_s = time.perf_counter()

        async def ask() -> None:
            rounds = 0
            while rounds < _MIN_ROUNDS or time.perf_counter() < begun_s + self._window_s:
                sent_s = time.perf_counter()
                await pool.infer(model, _SHARE, inputs)
                latencies.append(time.perf_counter() - sent_s)
                rounds += 1

        await asyncio.gather(*(ask() for _ in range(count)))
        took_s = time.perf_counter() - begun_s
        latencies.sort()
        return Measured(
            setting=setting,
            rate=len(latencies) / took_s,
            p50_ms=1000 * statistics.median(latencies),
            p99_ms=1000 * latencies[int(0.99 * (len(latencies) - 1))],
            rows_per_run=len(latencies) / max(1, counted.execution_count - runs),
        )
