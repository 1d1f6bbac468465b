"""Which tests run which line of `attestation/`, by one run of them under coverage; kept until a file changes.

Leaves out: mutants (mutate.py), and running them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "blindai" / "attestation"
TESTS = "tests/attestation"
KEPT = ROOT / ".mutants"
# These look at everything at once, and would run for every mutant.
LEFT_OUT = ("test_flips.py", "test_times.py", "test_finding_codes.py", "*_samples.py", "test_tpm_live.py")

Lines = dict[int, list[str]]


def module_names() -> list[str]:
    """Every module of the package, by its dotted name."""
    paths = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths]


def path_of(module: str) -> Path:
    """The file of a module."""
    return SOURCE / Path(*module.split(".")).with_suffix(".py")


def digest_of_tree() -> str:
    """Of everything that an outcome depends on."""
    files = sorted([*SOURCE.rglob("*.py"), *(ROOT / TESTS).glob("*.py"), *(ROOT / "tests" / "fakes").glob("*.py")])
    together = hashlib.sha256()
    for path in files:
        together.update(str(path.relative_to(ROOT)).encode() + hashlib.sha256(path.read_bytes()).digest())
    return together.hexdigest()


def ignored() -> list[str]:
    """Options of pytest for `LEFT_OUT`."""
    files = sorted(path for path in (ROOT / TESTS).glob("test_*.py") for one in LEFT_OUT if path.match(one))
    return [f"--ignore={path.relative_to(ROOT)}" for path in files]


def tests_by_line() -> dict[str, Lines]:
    """For each module and line the tests that run it; an empty name stands for what runs at import."""
    found, key = KEPT / "tests.json", digest_of_tree()
    if not found.exists() or json.loads(found.read_text("utf-8"))["key"] != key:
        found.write_text(json.dumps({"key": key, "lines": _observed(KEPT / "coverage")}), "utf-8")
    lines = json.loads(found.read_text("utf-8"))["lines"]
    return {module: {int(line): tests for line, tests in by.items()} for module, by in lines.items()}


def _observed(mark: Path) -> dict[str, Lines]:
    import coverage

    command = [sys.executable, "-m", "pytest", "-q", TESTS, "-p", "no:cacheprovider", *ignored()]
    options = ["--cov=blindai.attestation", "--cov-branch", "--cov-context=test", "--cov-report="]
    subprocess.run([*command, *options], check=True, env={**os.environ, "COVERAGE_FILE": str(mark)})
    data = coverage.CoverageData(str(mark))
    data.read()
    return {
        module: {line: sorted({name_of(one) for one in tests}) for line, tests in _contexts(data, module).items()}
        for module in module_names()
    }


def _contexts(data: Any, module: str) -> Lines:
    """Coverage's contexts by line; a file that no test runs has none."""
    with contextlib.suppress(Exception):
        found: Lines = data.contexts_by_lineno(str(path_of(module)))
        return found
    return {}


def name_of(context: str) -> str:
    """The test function of a context such as `tests/x.py::test_y[1]|run`."""
    return context.partition("|")[0].partition("[")[0]


def tests_of_line(line: int, by_line: Mapping[int, Sequence[str]]) -> list[str]:
    """Those that run a line; for what runs at import, all that run anything of the module."""
    return [test for test in by_line.get(line, ()) if test] or tests_of_module(by_line)


def tests_of_module(by_line: Mapping[int, Sequence[str]]) -> list[str]:
    """All that run anything of it."""
    return sorted({test for tests in by_line.values() for test in tests if test})


def runs_at_import(line: int, by_line: Mapping[int, Sequence[str]]) -> bool:
    """Whether a line may run before any test does."""
    return "" in by_line.get(line, [""])
