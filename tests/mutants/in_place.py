"""Run tests that were collected once on mutants of functions that are already loaded: no import per mutant.

Only what runs when a function is called is replaced here. Leaves out: mutants of what runs at import (constants,
class bodies, decorators) and of functions that import has called; a process of their own sees to these (__main__.py).
"""

from __future__ import annotations

import ast
import functools
import gc
import inspect
import itertools
import json
import os
import resource
import signal
import time
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mutants.mutate import Mutant

Swaps = list[tuple[FunctionType, CodeType]]
Living = dict[tuple[str, int], list[FunctionType]]

_KILLERS_FIRST = 5
MOST_BYTES = 2**30  # a mutant that never ends may also grow


def living_functions(path: str) -> Living:
    """The loaded functions of a file, by qualified name and line."""
    found: Living = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename == path:
            found.setdefault((one.__code__.co_qualname, one.__code__.co_firstlineno), []).append(one)
    return found


def swaps(
    source: str, mutant: str, path: str, living: Mapping[tuple[str, int], Sequence[FunctionType]]
) -> Swaps | None:
    """Which loaded functions get which code; None if the mutant changes what runs at import.

    Args:
        source: the file as it is, which `living` was loaded from.
        mutant: the mutated file, in the layout of `ast.unparse`.
        path: of the file.
        living: `living_functions(path)`.
    """
    texts = (source, ast.unparse(ast.parse(source)), mutant)
    original, before, after = (compile(text, path, "exec") for text in texts)
    found: Swaps = []
    return found if _swap((original, before, after), living, found, is_inside=False) else None


def _swap(
    codes: tuple[CodeType, CodeType, CodeType],
    living: Mapping[tuple[str, int], Sequence[FunctionType]],
    found: Swaps,
    *,
    is_inside: bool,
) -> bool:
    """Whether the change of a code, and of those inside it, is one of loaded functions; these are added."""
    original, before, after = codes
    if _deep(before) == _deep(after):
        return True
    is_function = bool(original.co_flags & inspect.CO_OPTIMIZED)
    functions = living.get((original.co_qualname, original.co_firstlineno), ()) if is_function else ()
    if any(function.__code__.co_freevars != after.co_freevars for function in functions):
        return False
    found += [(function, after) for function in functions]
    is_inside = is_inside or bool(functions)
    if _shallow(before) != _shallow(after) and not is_inside:
        return False
    inner = [[one for one in code.co_consts if isinstance(one, CodeType)] for code in codes]
    if len({len(found_inside) for found_inside in inner}) != 1:
        return is_inside
    return all(_swap(three, living, found, is_inside=is_inside) for three in zip(*inner, strict=True))


def _shallow(code: CodeType) -> tuple[object, ...]:
    """What a code does, without where it stands and without those inside it."""
    constants = [one.co_name if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return (code.co_code, code.co_exceptiontable, names, tuple(constants))


def _deep(code: CodeType) -> tuple[object, ...]:
    return (_shallow(code), tuple(_deep(one) for one in code.co_consts if isinstance(one, CodeType)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One mutant: the functions that change, and the names of the tests that run its line."""

    mutant: Mutant
    swaps: Swaps
    tests: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Since when a process runs, and how long it may."""

    since: float
    patience_s: float

    def ended(self, child: int) -> str | None:
        """How it ended, if it has: `killed`, `survived`, or `timed out`, which is a death as well."""
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "killed" if status else "survived"
        if time.monotonic() - self.since < self.patience_s:
            return None
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "timed out"


@dataclass(kw_only=True)
class InPlace:
    """A plugin of pytest that runs tasks in place of the collected tests.

    Attributes:
        tasks: made when everything is collected and loaded.
        found: called with each mutant and how it ended.
        times: where seconds by test are kept, for the quickest first.
    """

    tasks: Callable[[], Iterator[Task]]
    found: Callable[[Mutant, str], None]
    times: Path
    jobs: int
    seconds: int
    _failed: bool = field(default=False, init=False)
    _killers: list[str] = field(default_factory=list, init=False)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure."""
        self._failed = self._failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Every task in a fork of its own, `jobs` at a time."""
        if not self.times.exists() and wait(fork(lambda: self._measure(session.items))):
            raise pytest.UsageError("the tests fail without any mutant")
        seconds = json.loads(self.times.read_text("utf-8"))
        items = sorted(session.items, key=lambda item: float(seconds[item.nodeid]))
        running: dict[int, tuple[Task, Ran]] = {}
        for task in self.tasks():
            while len(running) >= self.jobs:
                self._reap(running)
            chosen = [item for item in items if item.nodeid.partition("[")[0] in task.tests]
            chosen.sort(key=lambda item: item.nodeid not in self._killers)
            ran = Ran(since=time.monotonic(), patience_s=self.seconds)
            running[fork(functools.partial(self._run, task, chosen))] = (task, ran)
        while running:
            self._reap(running)
        return True

    def _measure(self, items: Sequence[pytest.Item]) -> int:
        seconds = {}
        for item, after in itertools.zip_longest(items, items[1:]):
            began = time.monotonic()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            seconds[item.nodeid] = time.monotonic() - began
        if not self._failed:
            self.times.write_text(json.dumps(seconds), "utf-8")
        return int(self._failed)

    def _run(self, task: Task, items: Sequence[pytest.Item]) -> int:
        for item in items[:1]:  # a mutant that no test reaches survives
            item.config.pluginmanager.unregister(name="terminalreporter")
        for function, code in task.swaps:
            function.__code__ = code
        for item, after in itertools.zip_longest(items, items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if self._failed:
                self.times.with_name(f"killer-{os.getpid()}").write_text(item.nodeid, "utf-8")
                return 1
        return 0

    def _reap(self, running: dict[int, tuple[Task, Ran]]) -> None:
        time.sleep(0.005)
        for child, (task, ran) in list(running.items()):
            if how := ran.ended(child):
                del running[child]
                self._remember_killer(child)
                self.found(task.mutant, how)

    def _remember_killer(self, child: int) -> None:
        """The test that killed a mutant is likely to kill the next one."""
        if (killer := self.times.with_name(f"killer-{child}")).exists():
            self._killers = [killer.read_text("utf-8"), *self._killers][:_KILLERS_FIRST]
            killer.unlink()


def fork(work: Callable[[], int]) -> int:
    """A process that is silent, has little memory, does this and ends with what it returns."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = work()
    finally:
        os._exit(status)
    return 0


def wait(child: int) -> int:
    """How a process ended: 0 if well."""
    return os.waitpid(child, 0)[1]
