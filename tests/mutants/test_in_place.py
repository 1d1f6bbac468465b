"""A mutant is killed, survives, is stopped when it never ends, or is left to be imported anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutants.in_place import swaps
from mutants.mutate import mutants_of

COUNTED = """
from dataclasses import dataclass

LEAST = 1


@dataclass
class Most:
    value: int = 7


def counted(n):
    found = 0
    while found < n:
        found += 1
    return max(found, 0)
"""
TESTS = """
import counted


def test_counts():
    assert counted.counted(3) == 3
    assert counted.LEAST == 1
    assert counted.Most().value == 7


def test_counts_nothing():
    assert counted.counted(0) == 0
"""
# No test can notice that counting begins at -1, for it goes on to 0.
ENDED = {
    ("found < n -> found <= n", "killed"),
    ("return max(found, 0) -> return None", "killed"),
    ("found += 1 -> pass", "timed out"),
    ("0 -> -1", "survived"),
}
AT_IMPORT = ("1 -> 2", "7 -> 8")  # a constant, and a dataclass's default

DRIVER = """
import json, sys
from pathlib import Path
import pytest
from mutants.afresh import OPTIONS, preload, start
from mutants.in_place import InPlace, Task, fork, living_functions, swaps, wait
from mutants.mutate import mutants_of

WANTED, AT_IMPORT = json.loads(sys.argv[1])
PATH = Path("counted.py").resolve()
SOURCE = PATH.read_text("utf-8")
MUTANTS = list(mutants_of(SOURCE, "counted"))


def say(mutant, how):
    with Path("said").open("a", encoding="utf-8") as out:
        out.write(json.dumps([mutant.what, how]) + "\\n")


def tasks():
    living = living_functions(str(PATH))
    for mutant in MUTANTS:
        changed = swaps(SOURCE, mutant.source, str(PATH), living)
        if changed and mutant.what in WANTED:
            names = frozenset({"test_counted.py::test_counts", "test_counted.py::test_counts_nothing"})
            yield Task(mutant=mutant, swaps=changed, tests=names)


def in_place():
    plugin = InPlace(tasks=tasks, found=say, times=Path("times"), jobs=2, seconds=10)
    return int(pytest.main([*OPTIONS, "test_counted.py"], plugins=[plugin]))


preload()
assert wait(fork(in_place)) == 0
anew = [mutant for mutant in MUTANTS if mutant.where in {"", "Most"} and mutant.what in AT_IMPORT]
for mutant in anew:
    say(mutant, "killed anew" if wait(start(mutant, ["test_counted.py"])) else "survived anew")
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """What became of the mutants of `COUNTED`, in processes of their own."""
    folder = tmp_path_factory.mktemp("counted")
    (folder / "counted.py").write_text(COUNTED, "utf-8")
    (folder / "test_counted.py").write_text(TESTS, "utf-8")
    (folder / "driver.py").write_text(DRIVER, "utf-8")
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    asked = json.dumps([sorted({what for what, _ in ENDED}), AT_IMPORT])
    command = [sys.executable, "driver.py", asked]
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, timeout=120)
    return [(what, how) for what, how in map(json.loads, (folder / "said").read_text("utf-8").splitlines())]


def test_each_mutant_ends_as_it_must(ended: list[tuple[str, str]]) -> None:
    assert {one for one in ended if "anew" not in one[1]} == ENDED


def test_what_runs_at_import_is_imported_anew(ended: list[tuple[str, str]]) -> None:
    assert sorted(one for one in ended if "anew" in one[1]) == [(what, "killed anew") for what in AT_IMPORT]


def test_what_runs_at_import_has_no_function_to_change() -> None:
    mutants = [one for one in mutants_of(COUNTED, "counted") if one.what in AT_IMPORT and one.where != "counted"]
    assert len(mutants) == len(AT_IMPORT)
    assert [swaps(COUNTED, one.source, "counted.py", {}) for one in mutants] == [None, None]
