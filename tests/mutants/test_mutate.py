"""The mutants are wrongs in decisions, each of them once, and not in words for people."""

from __future__ import annotations

import ast
import tomllib

from mutants.__main__ import TABLE
from mutants.mutate import mutants_of
from mutants.reached import module_names, name_of

SOURCE = '''"""Words."""
from __future__ import annotations

MAGIC = b"x"
Number = int | float


def f(a: int, b: int = 3) -> int:
    """More words."""
    if a < b and not a == 0:
        raise ValueError(f"expected {a + 1}")
    told = b or "no number"
    check(code="a.b", expected="1", found=str(a))
    return a + b if "k" in names else min(a, 2)
'''


def wrongs(source: str = SOURCE) -> list[str]:
    return [mutant.what for mutant in mutants_of(source, "m")]


def test_every_kind_of_wrong_is_made_once() -> None:
    found = wrongs()
    assert len(found) == len(set(found))
    for what in (
        "b'x' -> b'xx'",
        "3 -> 4",
        "3 -> 2",
        "a < b -> a <= b",
        "a < b -> a >= b",
        "a < b and (not a == 0) -> a < b or not a == 0",
        "a < b and (not a == 0) -> a < b",
        "not a == 0 -> a == 0",
        "a == 0 -> a != 0",
        "a + b -> a - b",
        "min(a, 2) -> max(a, 2)",
        "'k' in names -> 'k' not in names",
        "'k' -> 'kx'",
        "check(code='a.b', expected='1', found=str(a)) -> pass",
    ):
        assert what in found
    assert any(what.startswith("return a + b if") and what.endswith("return None") for what in found)
    assert any(what.startswith("raise ValueError") and what.endswith("-> pass") for what in found)


def test_words_for_people_stay_as_they_are() -> None:
    assert not [what for what in wrongs() if "ords" in what or "a + 1 ->" in what or what.startswith(("'1'", "'a.b'"))]


def test_types_and_words_for_nothing_stay_as_they_are() -> None:
    assert not [what for what in wrongs() if "float" in what or "no number" in what]


def test_a_mutant_is_the_whole_file_with_one_wrong_in_it() -> None:
    good = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in mutants_of(SOURCE, "m"):
        lines = mutant.source.splitlines()
        assert mutant.name == f"m:{mutant.where}: {mutant.what}"
        assert sum(one != other for one, other in zip(lines, good, strict=False)) >= 1


def test_every_survivor_of_the_table_has_its_reason_and_its_module() -> None:
    modules = module_names()
    assert "blindai.attestation.appraise" in modules
    for entry in tomllib.loads(TABLE.read_text("utf-8")).get("survivor", ()):
        assert entry.keys() - {"times"} == {"mutant", "reason"}
        assert entry["mutant"].partition(":")[0] in modules
        assert entry["reason"].strip()


def test_a_test_is_called_without_its_parameters() -> None:
    assert name_of("tests/x.py::test_y[a|b]|run") == "tests/x.py::test_y"
