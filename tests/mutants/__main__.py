"""Mutation tests of `attestation/`, from `tests/`: `python -m mutants [MODULE …] [--seconds 300] [--report FILE]`.

First the tests run once, and say which of them run which line; then each mutant is given to just these, in a forked
process that stops at the first failure. Results stay in `.mutants/`, so that a run that was broken off goes on.
A mutant that no test kills must stand in docs/audits/surviving_mutants.toml, with its reason, and nothing else may.
Leaves out: which mutants there are (mutate.py), which tests (reached.py), and how they run (in_place.py, afresh.py).
"""

from __future__ import annotations

import argparse
import datetime as dt
import fnmatch
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mutants.afresh import OPTIONS, Afresh, preload
from mutants.in_place import InPlace, Task, living_functions, swaps
from mutants.mutate import mutants_of
from mutants.outcomes import SURVIVED, Outcomes, complaints, survivors_of
from mutants.reached import (
    KEPT,
    ROOT,
    TESTS,
    digest_of_tree,
    ignored,
    module_names,
    path_of,
    runs_at_import,
    tests_by_line,
    tests_of_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mutants.mutate import Mutant
    from mutants.reached import Lines

TABLE = ROOT / "docs" / "audits" / "surviving_mutants.toml"


def main() -> int:
    """Run what is asked for; the exit status is 1 if the survivors are not exactly those of the table."""
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="patterns of names below blindai.attestation, for example `amd.*`")
    parser.add_argument("--seconds", type=int, default=300, help="patience with one mutant")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="mutants at a time")
    parser.add_argument("--report", type=Path, help="write the counts here, as a page")
    options = parser.parse_args()
    os.chdir(ROOT)
    KEPT.mkdir(exist_ok=True)
    modules = [name for name in module_names() if chosen(name, options.modules)]
    began_s = time.monotonic()
    run_all(modules, tests_by_line(), seconds=options.seconds, jobs=options.jobs)
    return tell(modules, time.monotonic() - began_s, report=options.report)


def chosen(name: str, patterns: Sequence[str]) -> bool:
    """Whether a module is asked for."""
    short = name.removeprefix("blindai.attestation.")
    return not patterns or any(fnmatch.fnmatch(short, pattern) for pattern in patterns)


def outcomes_so_far() -> Outcomes:
    """Those of earlier runs that still hold."""
    return Outcomes(KEPT / "outcomes.jsonl", digest_of_tree())


def all_mutants(modules: Sequence[str]) -> Iterator[Mutant]:
    """Of one module after the other."""
    for module in modules:
        yield from mutants_of(path_of(module).read_text("utf-8"), module)


def run_all(modules: Sequence[str], by_line: Mapping[str, Lines], *, seconds: int, jobs: int) -> None:
    """Keep an outcome of every mutant: in place where that can be, in a process that imports it anew where not."""
    preload()
    sys.stdout.flush()
    if child := os.fork():  # which imports `blindai`; this process must not
        os.waitpid(child, 0)
    else:
        os._exit(run_in_place(modules, by_line, seconds=seconds, jobs=jobs))
    outcomes = outcomes_so_far()
    rest = [mutant for mutant in all_mutants(modules) if outcomes.of(mutant) is None]
    print(f"{len(rest)} mutants to import anew", flush=True)
    Afresh(by_line=by_line, found=outcomes.add, jobs=jobs, seconds=seconds).run(rest)


def run_in_place(modules: Sequence[str], by_line: Mapping[str, Lines], *, seconds: int, jobs: int) -> int:
    """Keep the outcomes of all mutants for which nothing has to be imported anew."""
    import pytest

    outcomes = outcomes_so_far()

    def tasks() -> Iterator[Task]:
        for module in modules:
            path = path_of(module)
            source, living = path.read_text("utf-8"), living_functions(str(path))
            print(f"{module}: in place", flush=True)
            for mutant in mutants_of(source, module):
                if outcomes.of(mutant) or runs_at_import(mutant.line, by_line[module]):
                    continue
                if changed := swaps(source, mutant.source, str(path), living):
                    tests = frozenset(tests_of_line(mutant.line, by_line[module]))
                    yield Task(mutant=mutant, swaps=changed, tests=tests)

    times = KEPT / f"times-{digest_of_tree()[:16]}.json"
    plugin = InPlace(tasks=tasks, found=outcomes.add, times=times, jobs=jobs, seconds=seconds)
    return int(pytest.main([*OPTIONS, *ignored(), TESTS], plugins=[plugin]))


def tell(modules: Sequence[str], took_s: float, *, report: Path | None) -> int:
    """The counts, and whether the survivors are exactly those that the table explains."""
    outcomes, table = outcomes_so_far(), survivors_of(TABLE)
    ended = [(mutant, outcomes.of(mutant)) for mutant in all_mutants(modules)]
    wrong = complaints((mutant for mutant, how in ended if how == SURVIVED), table, modules)
    print("\n".join(wrong))
    counts = Counter(how for _, how in ended)
    words = f"{len(ended)} mutants of {len(modules)} modules: " + ", ".join(
        f"{count} {how}" for how, count in sorted(counts.items(), key=str)
    )
    print(f"{words}; {len(wrong)} complaints")
    if report and not wrong:
        report.write_text(page(ended, words, took_s), "utf-8")
    return 1 if wrong or None in counts else 0


def page(ended: Sequence[tuple[Mutant, str | None]], words: str, took_s: float) -> str:
    """The report: counts by module."""
    by_module = Counter((mutant.module, how) for mutant, how in ended)
    modules = sorted({mutant.module for mutant, _ in ended})
    rows = [
        f"| {module.removeprefix('blindai.attestation.')} | {sum(by_module[module, how] for how in _HOW)} | "
        + " | ".join(str(by_module[module, how]) for how in _HOW)
        + " |"
        for module in modules
    ]
    head = ["| module | mutants | killed | timed out | survived |", "|---|---|---|---|---|"]
    title = f"# Mutation tests of attestation/, {dt.datetime.now(dt.UTC).date()}"
    told = f"{words}, in {took_s / 60:.0f} minutes (less where a run that was broken off went on)."
    return "\n".join([title, "", told, "Each survivor has its reason in surviving_mutants.toml.", "", *head, *rows, ""])


_HOW = ("killed", "timed out", SURVIVED)


if __name__ == "__main__":
    sys.exit(main())
