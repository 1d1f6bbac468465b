"""The bars of issue 3: what is compared with what, how, and whether it is met.

A bar is a ratio of two targets measured in turn: of answers in a second, or of the server's CPU per request (theirs
divided by ours), so that more is better in both. For the tiny MLP the CPU decides, since a second of a shared machine
says little; the rate stands beside it.
Leaves out: starting anything (run.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from measure import Ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from measure import Sample

RATE, CPU = "rate", "CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What is asked for.

    Attributes:
        work: model and load, in words.
        ours: name of the target of ours.
        theirs: name of the other one.
        least: the ratio that meets it.
        by: `RATE` or `CPU`.
    """

    work: str
    ours: str
    theirs: str
    least: float
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A bar and what was measured."""

    bar: Bar
    cpu: Ratio | None
    rate: Ratio

    @property
    def decisive(self) -> Ratio:
        """The ratio that decides."""
        return self.cpu if self.bar.by == CPU and self.cpu is not None else self.rate

    @property
    def met(self) -> bool:
        """Whether the median reaches it."""
        return self.decisive.middle >= self.bar.least


def judge(bar: Bar, found: Mapping[str, Sequence[Sample]]) -> Judged:
    """Compare pair by pair."""
    pairs = list(zip(found[bar.ours], found[bar.theirs], strict=True))
    return Judged(
        bar=bar,
        cpu=Ratio.of([(theirs.server_us, ours.server_us) for ours, theirs in pairs]),
        rate=Ratio.of([(ours.rate, theirs.rate) for ours, theirs in pairs]),
    )
