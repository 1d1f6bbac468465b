"""What each code means: findings.json beside this file, which tests/findings_reference.py makes from docs/spec."""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table.

    Attributes:
        step: `verify`, `check`, or the number of the appraisal's step.
        source: the vendor's document and section, or our own page.
        page: where it is specified.
    """

    code: str
    step: str
    fails_when: str
    source: str
    what_to_do: str
    page: str


@cache
def explanations() -> dict[str, Explanation]:
    """The whole table, by code."""
    data = resources.files("blindai.cli").joinpath("findings.json").read_bytes()
    return {row.code: row for row in msgspec.json.decode(data, type=list[Explanation])}


def explanation_of(code: str, table: dict[str, Explanation]) -> Explanation | None:
    """The row of a code; codes with a name of the policy's in them share one, such as `runtime.<member>`."""
    if code in table:
        return table[code]
    patterns = (row for name, row in table.items() if "<" in name)
    return next((row for row in patterns if code.startswith(row.code.partition("<")[0])), None)


def what_to_do(code: str) -> str:
    """What the table says to do about a code; empty if it has none."""
    row = explanation_of(code, explanations())
    return row.what_to_do if row else ""
