"""Fuzz by hand, from `tests/`: `python -m fuzz [NAME …] [--seconds 10]`; without a name, every target.

`blindai` is instrumented once (libFuzzer follows which lines an input reaches), then each target has a process of its
own, forked. What breaks a target is kept in the folder of `--found`; `python -m fuzz NAME --input FILE` shows it.
With `--report`, targets that ran on this tree for as long already are not run again.
Needs the environment `.fuzz-venv` (`make test-fuzz`). Leaves out: the targets, and mutation without atheris.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.outcomes import Outcomes, Run, tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.context import ForkProcess

    from fuzz.target import Target

_EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_EDGES = re.compile(r"cov: (\d+)")
_MAX_BYTES = 1 << 16
_PATIENCE_S = 60  # beyond twice the time that it fuzzes
_SLOW_INPUT_S = 20
_SHOWN_LINES = 40
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A target's process, and the file that its words go to."""

    name: str
    process: ForkProcess
    log: Path
    ends_s: float

    def ended(self) -> Run | None:
        """How it ended, if it has; one that fuzzes far too long is ended."""
        if self.process.is_alive() and time.monotonic() < self.ends_s:
            return None
        self.process.kill()
        self.process.join()
        said = self.log.read_text("utf-8", "replace")
        executions = [int(number) for number in _EXECUTIONS.findall(said)]
        edges = [int(number) for number in _EDGES.findall(said)]
        is_ok = self.process.exitcode == 0 and executions
        return Run(
            name=self.name,
            executions=max(executions, default=0),
            edges=max(edges, default=0),
            words="" if is_ok else "\n".join(said.splitlines()[-_SHOWN_LINES:]) or "it said nothing",
        )


def main() -> int:
    """Run what is asked for; the exit status is 1 if anything but a refusal came out of a target."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="targets; all of them if none is named")
    parser.add_argument("--seconds", type=int, default=10, help="for each target")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="targets at a time")
    parser.add_argument("--found", type=Path, default=Path("../.fuzz-found"), help="where inputs that break go")
    parser.add_argument("--report", type=Path, help="write the counts here, as a page")
    parser.add_argument("--input", type=Path, help="give one target this file only")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # a warning is for people, and no finding
    if options.input:
        return show(options.names[0], options.input.read_bytes())
    targets = instrumented_targets()
    names = options.names or list(targets)
    options.found.mkdir(exist_ok=True)
    tree = tree_of(Path(__file__).parents[2])
    outcomes = Outcomes(options.found / "outcomes.jsonl", tree=tree, seconds=options.seconds)
    runs = outcomes.of(names) if options.report else []
    waiting = [targets[name] for name in names if name not in {run.name for run in runs}]
    for run in run_all(waiting, options.seconds, options.jobs, options.found):
        print(run.line(), flush=True)
        outcomes.add(run)
        runs.append(run)
    return tell(runs, options.seconds, options.report)


def show(name: str, data: bytes) -> int:
    """One input on one target, without atheris."""
    from fuzz.target import accepts
    from fuzz.targets import TARGETS

    print("accepted" if accepts(TARGETS[name], data) else "refused")
    return 0


def instrumented_targets() -> dict[str, Target]:
    """The targets, over a `blindai` that says which lines it runs."""
    import atheris  # in .fuzz-venv only

    names_of_modules = io.StringIO()  # atheris says each
    with contextlib.redirect_stderr(names_of_modules), atheris.instrument_imports(include=["blindai"]):
        from fuzz.targets import TARGETS
    return TARGETS


def run_all(targets: Sequence[Target], seconds: int, jobs: int, found: Path) -> Iterator[Run]:
    """Each target in a process of its own, `jobs` at a time; yields as they end."""
    waiting, running = list(targets), list[Child]()
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(start(waiting.pop(0), seconds, found, Path(folder)))
            time.sleep(0.1)
            ended = {child.name: run for child in running if (run := child.ended())}
            running = [child for child in running if child.name not in ended]
            yield from ended.values()


def start(target: Target, seconds: int, found: Path, folder: Path) -> Child:
    """Fork a process that fuzzes one target."""
    corpus, log = folder / target.name, folder / f"{target.name}.log"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):  # here, so that keys are drawn once
        (corpus / str(number)).write_bytes(seed)
    options = {"seconds": seconds, "found": found, "corpus": corpus, "log": log}
    process = _FORK.Process(target=fuzz, args=(target,), kwargs=options)
    process.start()
    return Child(name=target.name, process=process, log=log, ends_s=time.monotonic() + 2 * seconds + _PATIENCE_S)


def fuzz(target: Target, *, seconds: int, found: Path, corpus: Path, log: Path) -> None:
    """Hand this process to libFuzzer, which ends it."""
    import atheris
    from fuzz.target import accepts

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    arguments = [
        f"-max_total_time={seconds}",
        f"-max_len={_MAX_BYTES}",
        f"-timeout={_SLOW_INPUT_S}",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/{target.name}-",
    ]
    atheris.Setup([target.name, *arguments, str(corpus)], lambda data: accepts(target, data) and None)
    atheris.Fuzz()


def tell(runs: Sequence[Run], seconds: int, report: Path | None) -> int:
    """What failed, and the sum; the page if everything went well."""
    failed = [run for run in runs if run.words]
    for run in failed:
        print(f"\n{run.name}:\n{run.words}")
    print(f"{len(runs)} targets, {sum(run.executions for run in runs)} executions, {len(failed)} failed")
    if report and not failed:
        report.write_text(page(runs, seconds), "utf-8")
    return 1 if failed else 0


def page(runs: Sequence[Run], seconds: int) -> str:
    """The counts as a page of docs/audits/."""
    machine = f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"
    rows = "\n".join(
        f"| `{run.name}` | {run.executions} | {run.edges} |" for run in sorted(runs, key=lambda run: run.name)
    )
    return (
        f"# Fuzzing of {dt.datetime.now(dt.UTC).date()}\n\n"
        f"Every target of tests/fuzz for {seconds} s with atheris, by `make audit` on a machine with {machine}.\n"
        f"No crash, and no exception outside the error tree: {len(runs)} targets, "
        f"{sum(run.executions for run in runs)} executions.\n\n"
        f"| target | executions | edges of `blindai` reached |\n|---|---|---|\n{rows}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
