"""What became of mutants, kept in `.mutants/` from one run to the next, and held against the table of survivors.

A mutant is known by its module's whole source with the wrong in it. One that was killed stays killed while its module
is the same; one that survived, or only took too long, is asked again whenever any file of the tree has changed.
Leaves out: running them.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from mutants.mutate import Mutant

SURVIVED = "survived"


class Outcomes:
    """The kept results, of which only those that still hold are known."""

    def __init__(self, path: Path, tree: str) -> None:
        self._path = path
        self._tree = tree
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        self._known = {one["id"]: one["how"] for one in entries if one["how"] == "killed" or one["tree"] == tree}

    def of(self, mutant: Mutant) -> str | None:
        """`killed`, `survived` or `timed out`; None if it is to be asked."""
        return self._known.get(_id_of(mutant))

    def add(self, mutant: Mutant, how: str) -> None:
        """Keep one more."""
        self._known[_id_of(mutant)] = how
        entry = {"id": _id_of(mutant), "name": mutant.name, "line": mutant.line, "how": how, "tree": self._tree}
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(entry) + "\n")


def _id_of(mutant: Mutant) -> str:
    return hashlib.sha256(f"{mutant.module}\n{mutant.source}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """An entry of the table.

    Attributes:
        mutant: its name.
        reason: why no test kills it, and none need.
        times: so many of that name survive.
    """

    mutant: str
    reason: str
    times: int = 1


def survivors_of(table: Path) -> list[Survivor]:
    """The committed table."""
    return [Survivor(**entry) for entry in tomllib.loads(table.read_text("utf-8")).get("survivor", ())]


def complaints(survived: Iterable[Mutant], table: Iterable[Survivor], modules: Sequence[str]) -> list[str]:
    """Survivors that the table does not explain, and entries about none, in words."""
    survived = list(survived)
    found = Counter(mutant.name for mutant in survived)
    explained = Counter({entry.mutant: entry.times for entry in table if entry.mutant.partition(":")[0] in modules})
    lines = {mutant.name: mutant.line for mutant in survived}
    more = (f"SURVIVED, line {lines[name]}: {name} ({count} times)" for name, count in (found - explained).items())
    less = (f"NOT A SURVIVOR any more: {name} ({count} times)" for name, count in (explained - found).items())
    return [*sorted(more), *sorted(less)]
