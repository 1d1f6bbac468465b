"""Mutation tests of `attestation/`, from `tests/`: `python -m mutants [MODULE …] [--seconds 300] [--report FILE]`.

First the tests run once, and say which of them run which line; then each mutant is given to just these, in a forked
process that stops at the first failure. Results stay in `.mutants/`, so that a run that was broken off goes on.
A mutant that no test kills must stand in docs/audits/surviving_mutants.toml, with its reason, and nothing else may.
Leaves out: which mutants there are (mutate.py).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import fnmatch
import hashlib
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutants.in_place import MOST_BYTES
from mutants.mutate import Mutant, mutants_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "blindai" / "attestation"
TESTS = "tests/attestation"
KEPT = ROOT / ".mutants"
TABLE = ROOT / "docs" / "audits" / "surviving_mutants.toml"
# These look at everything at once, and would run for every mutant.
LEFT_OUT = ("test_flips.py", "test_times.py", "test_finding_codes.py", "*_samples.py", "test_tpm_live.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one mutant: `killed`, `survived`, or `timed out`, which counts as killed."""

    name: str
    line: int
    how: str


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
    outcomes = list(run_all(modules, seconds=options.seconds, jobs=options.jobs))
    return tell(outcomes, modules, report=options.report)


def module_names() -> list[str]:
    """Every module of the package, by its dotted name."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths]


def chosen(name: str, patterns: Sequence[str]) -> bool:
    """Whether a module is asked for."""
    short = name.removeprefix("blindai.attestation.")
    return not patterns or any(fnmatch.fnmatch(short, pattern) for pattern in patterns)


def path_of(module: str) -> Path:
    """The file of a module."""
    return SOURCE / Path(*module.split(".")).with_suffix(".py")


# --- which tests run which line


def tests_by_line() -> dict[str, dict[int, list[str]]]:
    """For each module and line the tests that run it; an empty name stands for what runs at import."""
    import coverage

    found, mark = KEPT / "tests.json", KEPT / "coverage"
    key = digest_of_tree()
    if not found.exists() or json.loads(found.read_text("utf-8"))["key"] != key:
        environment = {**os.environ, "COVERAGE_FILE": str(mark)}
        command = [sys.executable, "-m", "pytest", "-q", TESTS, "-p", "no:cacheprovider", *ignored()]
        options = ["--cov=blindai.attestation", "--cov-branch", "--cov-context=test", "--cov-report="]
        subprocess.run([*command, *options], check=True, env=environment)
        data = coverage.CoverageData(str(mark))
        data.read()
        lines = {
            module: {line: sorted({name_of(one) for one in tests}) for line, tests in contexts(data, module).items()}
            for module in module_names()
        }
        found.write_text(json.dumps({"key": key, "lines": lines}), "utf-8")
    lines = json.loads(found.read_text("utf-8"))["lines"]
    return {module: {int(line): tests for line, tests in by.items()} for module, by in lines.items()}


def contexts(data: Any, module: str) -> dict[int, list[str]]:
    """Coverage's contexts by line; a file that no test runs has none."""
    with contextlib.suppress(Exception):
        found: dict[int, list[str]] = data.contexts_by_lineno(str(path_of(module)))
        return found
    return {}


def name_of(context: str) -> str:
    """The test function of a context such as `tests/x.py::test_y[1]|run`."""
    return context.partition("|")[0].partition("[")[0]


def ignored() -> list[str]:
    """Options of pytest for `LEFT_OUT`."""
    files = sorted(path for path in (ROOT / TESTS).glob("test_*.py") for one in LEFT_OUT if path.match(one))
    return [f"--ignore={path.relative_to(ROOT)}" for path in files]


def digest_of_tree() -> str:
    """Of everything that an outcome depends on."""
    files = sorted([*SOURCE.rglob("*.py"), *(ROOT / TESTS).glob("*.py"), *(ROOT / "tests" / "fakes").glob("*.py")])
    together = hashlib.sha256()
    for path in files:
        together.update(str(path.relative_to(ROOT)).encode() + hashlib.sha256(path.read_bytes()).digest())
    return together.hexdigest()


# --- mutants


def run_all(modules: Sequence[str], *, seconds: int, jobs: int) -> Iterator[Outcome]:
    """Every mutant of the modules, `jobs` at a time; those of an earlier run with the same files are taken from it."""
    by_line = tests_by_line()
    kept = KEPT / f"outcomes-{digest_of_tree()[:16]}.jsonl"
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        run_in_place(modules, by_line, kept, seconds=seconds, jobs=jobs)
    known = {(one["name"], one["line"]): one["how"] for one in map(json.loads, _lines(kept))}
    preload()
    running: dict[int, tuple[Mutant, float]] = {}
    with kept.open("a", encoding="utf-8") as out:
        for module in modules:
            require_killed_by_tests_alone(module, tests_of_module(by_line[module]))
            for mutant in mutants_of(path_of(module).read_text("utf-8"), module):
                if (how := known.get((mutant.name, mutant.line))) is not None:
                    yield Outcome(name=mutant.name, line=mutant.line, how=how)
                    continue
                while len(running) >= jobs:
                    yield from _ended(running, seconds, out)
                tests = tests_of(mutant, by_line[module])
                running[start(mutant, tests)] = (mutant, time.monotonic())
            print(f"{module}: {len(known)} known, {sum(1 for _ in _lines(kept))} kept", flush=True)
        while running:
            yield from _ended(running, seconds, out)


def run_in_place(
    modules: Sequence[str], by_line: Mapping[str, Mapping[int, Sequence[str]]], kept: Path, *, seconds: int, jobs: int
) -> None:
    """Keep the outcomes of all mutants for which nothing has to be imported anew, and end this process."""
    import pytest
    from mutants.in_place import InPlace, Task, living_functions, swaps

    known = {(one["name"], one["line"]) for one in map(json.loads, _lines(kept))}

    def tasks() -> Iterator[Task]:
        for module in modules:
            source, path = path_of(module).read_text("utf-8"), str(path_of(module))
            living, lines = living_functions(path), by_line[module]
            for mutant in mutants_of(source, module):
                if (mutant.name, mutant.line) in known or "" in lines.get(mutant.line, [""]):
                    continue
                if changed := swaps(source, mutant.source, path, living):
                    tests = frozenset(tests_of(mutant, lines))
                    yield Task(key={"name": mutant.name, "line": mutant.line}, swaps=changed, tests=tests)

    with kept.open("a", encoding="utf-8") as out:

        def found(task: Task, how: str) -> None:
            out.write(json.dumps({**task.key, "how": how}) + "\n")
            out.flush()

        preload()
        times = KEPT / f"times-{digest_of_tree()[:16]}.json"
        plugin = InPlace(tasks=tasks, found=found, times=times, jobs=jobs, seconds=seconds)
        status = pytest.main([*_OPTIONS, *ignored(), TESTS], plugins=[plugin])
    os._exit(int(status))


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


def _ended(running: dict[int, tuple[Mutant, float]], seconds: int, out: Any) -> Iterator[Outcome]:
    time.sleep(0.02)
    for child, (mutant, since) in list(running.items()):
        ended, status = os.waitpid(child, os.WNOHANG)
        how = "survived" if status == 0 else "killed"
        if not ended:
            if time.monotonic() - since < seconds:
                continue
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            how = "timed out"
        del running[child]
        out.write(json.dumps({"name": mutant.name, "line": mutant.line, "how": how}) + "\n")
        out.flush()
        yield Outcome(name=mutant.name, line=mutant.line, how=how)


def tests_of(mutant: Mutant, by_line: Mapping[int, Sequence[str]]) -> list[str]:
    """Those that run its line; for what runs at import, all that run anything of the module."""
    tests = [test for test in by_line.get(mutant.line, ()) if test]
    return tests or tests_of_module(by_line)


def tests_of_module(by_line: Mapping[int, Sequence[str]]) -> list[str]:
    """All that run anything of it."""
    return sorted({test for tests in by_line.values() for test in tests if test})


_OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of what `preload` imported
)


def require_killed_by_tests_alone(module: str, tests: Sequence[str]) -> None:
    """The module as it is must pass the tests that are to kill its mutants.

    Raises:
        SystemExit: it does not, so that nothing that fails would say anything.
    """
    unchanged = Mutant(module=module, line=0, where="", what="nothing", source=path_of(module).read_text("utf-8"))
    _, status = os.waitpid(start(unchanged, tests), 0)
    if status:
        sys.exit(f"{module} fails its tests unchanged (status {status})")


def preload() -> None:
    """Import what every child needs and no mutant changes; `blindai` itself comes after the fork."""
    import coverage  # noqa: F401
    import hypothesis
    import numpy as np  # noqa: F401
    import pytest  # noqa: F401
    from cryptography import x509  # noqa: F401

    quick = hypothesis.settings(max_examples=15, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    hypothesis.settings.register_profile("mutants", quick, deadline=None, derandomize=True, database=None)


def start(mutant: Mutant, tests: Sequence[str]) -> int:
    """Fork a process whose exit status says whether a test failed."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.meta_path.insert(0, Finder(mutant))
        import pytest

        status = int(pytest.main([*_OPTIONS, *tests]))
    finally:
        os._exit(status)
    return 0


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module's mutated source to whoever imports it."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """This module's, and no other's."""
        if name != self._mutant.module:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(path_of(name)))

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutated source in place of the file's."""
        path = str(path_of(self._mutant.module))
        module.__file__ = path
        exec(compile(self._mutant.source, path, "exec"), module.__dict__)  # noqa: S102  # our own, a little wrong


# --- what is said of it


def tell(outcomes: Sequence[Outcome], modules: Sequence[str], *, report: Path | None) -> int:
    """The counts, and whether the survivors are exactly those that the table explains."""
    survived = Counter(one.name for one in outcomes if one.how == "survived")
    table = {entry["mutant"]: entry for entry in tomllib.loads(TABLE.read_text("utf-8")).get("survivor", ())}
    own = {name: entry for name, entry in table.items() if name.partition(":")[0] in modules}
    unexplained, gone = sorted(survived.keys() - own.keys()), sorted(own.keys() - survived.keys())
    lines = {one.name: one.line for one in outcomes}
    for name in unexplained:
        print(f"SURVIVED, line {lines[name]}: {name}")
    for name in gone:
        print(f"NOT A SURVIVOR any more: {name}")
    counts = Counter(one.how for one in outcomes)
    words = f"{len(outcomes)} mutants of {len(modules)} modules: " + ", ".join(
        f"{count} {how}" for how, count in sorted(counts.items())
    )
    print(f"{words}; {len(survived) - len(unexplained)} explained, {len(unexplained)} not")
    if report and not unexplained and not gone:
        today = dt.datetime.now(dt.UTC).date()
        page = f"# Mutation tests of {today}\n\n{words}.\nEach survivor has its reason in surviving_mutants.toml.\n"
        report.write_text(page, "utf-8")
    return 1 if unexplained or gone else 0


if __name__ == "__main__":
    sys.exit(main())
