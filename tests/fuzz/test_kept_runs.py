"""What a broken-off fuzz run leaves: what ran is not run again, unless the code changed or more time is asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fuzz.outcomes import Outcomes, Run, tree_of

if TYPE_CHECKING:
    from pathlib import Path

GOOD = Run(name="a", executions=5, edges=2, words="")
BAD = Run(name="b", executions=5, edges=2, words="it broke")


def test_only_runs_without_a_finding_of_this_tree_and_time_are_known(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    outcomes = Outcomes(path, tree="t", seconds=10)
    outcomes.add(GOOD)
    outcomes.add(BAD)
    assert Outcomes(path, tree="t", seconds=10).of(["a", "b"]) == [GOOD]
    assert Outcomes(path, tree="t", seconds=9).of(["a", "b"]) == [GOOD]
    assert Outcomes(path, tree="t", seconds=11).of(["a", "b"]) == []
    assert Outcomes(path, tree="u", seconds=10).of(["a", "b"]) == []


def test_every_changed_byte_is_another_tree(tmp_path: Path) -> None:
    for name in ("src/blindai/a.py", "tests/fuzz/b.py", "fuzz-requirements.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    before = tree_of(tmp_path)
    assert re.fullmatch("[0-9a-f]{32}", before)
    assert tree_of(tmp_path) == before
    (tmp_path / "src/blindai/a.py").write_text("x = 2\n")
    assert tree_of(tmp_path) != before
