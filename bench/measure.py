"""Pairs of measurements: who answers (`Target`), one measurement (`Sample`), and the ratio of two, taken in turn.

CPU is that of the server's process and of all below it, in nanoseconds from /proc/PID/task/*/schedstat: on a machine
with other work it is far steadier than what a second yields.
Leaves out: starting servers (`serving.py`) and making load (`load.py`).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOAD = Path(__file__).with_name("load.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Somebody who answers.

    Attributes:
        name: for tables.
        process_id: of the server; None for ONNX Runtime in the load's own process.
        spec: what `load.py` is told.
    """

    name: str
    process_id: int | None
    spec: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement, or the median of some.

    Attributes:
        rate: requests in a second.
        main_us: CPU of the server's main process per request.
        worker_us: CPU of the processes below it.
        client_us: CPU of the load per request while it ran.
        seal_us: of sealing a request.
        open_us: of opening and verifying an answer.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    main_us: float
    worker_us: float
    client_us: float
    seal_us: float = 0.0
    open_us: float = 0.0

    @property
    def server_us(self) -> float:
        """CPU of all of the server per request."""
        return self.main_us + self.worker_us


def median(samples: Sequence[Sample]) -> Sample:
    """Of each member by itself."""
    return Sample(**{name: statistics.median(asdict(one)[name] for one in samples) for name in asdict(samples[0])})


def process_tree(process_id: int) -> Iterator[int]:
    """A process and all below it."""
    yield process_id
    for path in Path(f"/proc/{process_id}/task").glob("*/children"):
        for child in path.read_text().split():
            yield from process_tree(int(child))


def cpu_s(process_id: int) -> float:
    """Of all threads of one process."""
    total = 0
    for path in Path(f"/proc/{process_id}/task").glob("*/schedstat"):
        total += int(path.read_text().split()[0])
    return total / 1e9


def busiest_model(process_id: int) -> int:
    """Of the models' processes of a server of ours, which are its children's children, the one that computed most."""
    children = list(process_tree(process_id))[1:]
    return max({below for child in children for below in list(process_tree(child))[1:]}, key=cpu_s)


def memory_mib(process_id: int) -> float:
    """Of a process and all below it; what they share is counted once (PSS)."""
    total = 0
    for process in process_tree(process_id):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


class Load:
    """A load process for one target; its connections stay open between measurements.

    Args:
        target: who answers.
        cores: where it runs, for `taskset`; "" for anywhere.
        folder: for its specification.
    """

    def __init__(self, target: Target, *, cores: str, folder: Path) -> None:
        self.target = target
        path = folder / f"{target.name.replace(' ', '-').replace('/', '-')}-{id(self)}.json"
        path.write_text(json.dumps(target.spec))
        prefix = ["taskset", "-c", cores] if cores else []
        self._process = subprocess.Popen(
            [*prefix, sys.executable, str(LOAD), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, connections: int, seconds: float) -> Sample:
        """One measurement."""
        self._tell(f"prepare {connections} {seconds}")
        self._expect("ready")
        server = self.target.process_id or self._process.pid
        before = [cpu_s(server), sum(map(cpu_s, list(process_tree(server))[1:]))]
        self._tell("go")
        found = json.loads(self._line())
        after = [cpu_s(server), sum(map(cpu_s, list(process_tree(server))[1:]))]
        main, worker = ((late - early) / found["count"] * 1e6 for early, late in zip(before, after, strict=True))
        return Sample(
            rate=found["count"] / found["took_s"],
            main_us=main,
            worker_us=worker,
            **{name: found[name] for name in ("p50_ms", "p99_ms", "client_us")},
            **{name: found[name] for name in ("seal_us", "open_us") if name in found},
        )

    def close(self) -> None:
        """End it."""
        self._stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _tell(self, line: str) -> None:
        self._stdin.write(line + "\n")
        self._stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load on {self.target.name} failed")
        return line

    def _expect(self, word: str) -> None:
        if self._line().strip() != word:
            raise RuntimeError(f"the load on {self.target.name} said something else than {word}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Ours divided by theirs, over the pairs."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Ratio:
        """Each pair was measured in turn."""
        found = [ours / theirs for ours, theirs in pairs]
        return cls(least=min(found), middle=statistics.median(found), most=max(found))

    def __str__(self) -> str:
        return f"{self.least:.2f}–{self.middle:.2f}–{self.most:.2f}"


def in_turn(loads: Sequence[Load], *, connections: int, seconds: float, rounds: int) -> dict[str, list[Sample]]:
    """Every target once in each round, so that all meet the same noise; a first short round warms up."""
    for load in loads:
        load.measure(connections, min(seconds, 0.1))
    found: dict[str, list[Sample]] = {load.target.name: [] for load in loads}
    for number in range(rounds):
        for load in loads if number % 2 == 0 else reversed(loads):
            found[load.target.name].append(load.measure(connections, seconds))
    return found
