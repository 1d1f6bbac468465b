"""Runs tests on a mutant that is imported in place of its module, in a forked process that ends at the first failure.

For what `in_place` cannot change: what runs at import. Leaves out: which tests (reached.py).
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mutants.in_place import Ran, fork, wait
from mutants.mutate import Mutant
from mutants.reached import path_of, tests_of_line, tests_of_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from mutants.reached import Lines

OPTIONS = (
    *("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of what `preload` imported
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Afresh:
    """Runs mutants, `jobs` at a time.

    Attributes:
        by_line: the tests of each module's lines.
        found: called with each mutant and how it ended.
        seconds: patience with one.
    """

    by_line: Mapping[str, Lines]
    found: Callable[[Mutant, str], None]
    jobs: int
    seconds: int

    def run(self, mutants: Iterable[Mutant]) -> None:
        """All of them; a module whose unchanged source fails its tests ends the run, for nothing would say anything."""
        running: dict[int, tuple[Mutant, Ran]] = {}
        sound: set[str] = set()
        for mutant in mutants:
            if mutant.module not in sound:
                self._require_sound(mutant.module)
                sound.add(mutant.module)
            while len(running) >= self.jobs:
                self._reap(running)
            tests = tests_of_line(mutant.line, self.by_line[mutant.module])
            running[start(mutant, tests)] = (mutant, Ran(since=time.monotonic(), patience_s=self.seconds))
        while running:
            self._reap(running)

    def _require_sound(self, module: str) -> None:
        source = path_of(module).read_text("utf-8")
        unchanged = Mutant(module=module, line=0, where="", what="nothing", source=source)
        if status := wait(start(unchanged, tests_of_module(self.by_line[module]))):
            sys.exit(f"{module} fails its tests unchanged (status {status})")

    def _reap(self, running: dict[int, tuple[Mutant, Ran]]) -> None:
        time.sleep(0.02)
        for child, (mutant, ran) in list(running.items()):
            if how := ran.ended(child):
                del running[child]
                self.found(mutant, how)


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

    def work() -> int:
        import pytest

        sys.meta_path.insert(0, Finder(mutant))
        return int(pytest.main([*OPTIONS, *tests]))

    sys.stdout.flush()
    return fork(work)


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
