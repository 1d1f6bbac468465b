"""What became of targets, kept beside what was found, so that a run that was broken off goes on.

A result holds for as long as no file of `src/` or of these targets changes, and for no longer time than it fuzzed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How one target's process ended; `words` are its last ones if it failed."""

    name: str
    executions: int
    edges: int
    words: str

    def line(self) -> str:
        """The counts on one line."""
        return f"{self.name}: {self.executions} executions, {self.edges} edges{', FAILED' if self.words else ''}"


class Outcomes:
    """The runs without a finding, of this tree and at least this long."""

    def __init__(self, path: Path, *, tree: str, seconds: int) -> None:
        self._path = path
        self._mark = {"tree": tree, "seconds": seconds}
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        kept = [one for one in entries if one["tree"] == tree and one["seconds"] >= seconds]
        self._runs = {one["run"]["name"]: Run(**one["run"]) for one in kept}

    def of(self, names: Sequence[str]) -> list[Run]:
        """Those of these targets that are known."""
        return [self._runs[name] for name in names if name in self._runs]

    def add(self, run: Run) -> None:
        """Keep one more, unless it found something."""
        if not run.words:
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps({**self._mark, "run": asdict(run)}) + "\n")


def tree_of(root: Path) -> str:
    """A digest of the code that is fuzzed, and of what fuzzes it."""
    digest = hashlib.sha256()
    for path in sorted([*root.glob("src/**/*.py"), *root.glob("tests/fuzz/*.py"), root / "fuzz-requirements.txt"]):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:32]
