"""The least release that a policy accepts: version numbers, and how they are ordered (docs/spec/policy.md §4).

A version is `N.N.N`, with `a`, `b` or `rc` and a number behind it before that release is final. Nothing else is
accepted, since what has no place in the order could be older than anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.policy_file import Skip

if TYPE_CHECKING:
    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section

_VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(?:(a|b|rc)(0|[1-9]\d{0,8}))?", re.ASCII)
_FINAL = "z"  # behind a, b and rc


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Release:
    """A version number; a later one is greater.

    Attributes:
        numbers: the three before any letter.
        stage: `a`, `b` or `rc` and its number, or that it is final.
    """

    numbers: tuple[int, ...]
    stage: tuple[str, int]
    text: str = field(compare=False)


def parse_release(text: object) -> Release:
    """Read a version number.

    Raises:
        ValueError: it is not one that has a place in the order.
    """
    found = _VERSION.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise ValueError("expected a version such as 1.2.0 or 1.2.0rc1")
    stage = (found[4] or _FINAL, int(found[5] or 0))
    return Release(numbers=tuple(int(found[place]) for place in (1, 2, 3)), stage=stage, text=found[0])


def read_release(section: Section) -> Release | Skip:
    """Read `[release]`: `minimum`, or `skip`.

    Raises:
        InvalidPolicyError: anything else.
    """
    if skip := section.skip_instead_of("minimum"):
        return skip
    try:
        return parse_release(section.members["minimum"])
    except ValueError:
        raise section.error("must be a version such as 1.2.0 or 1.2.0rc1", "minimum") from None


def judge_release(minimum: Release | Skip, found: str) -> Finding:
    """Whether the attested software is of that release or a later one."""
    why = "An old release has the mistakes that later ones mend."
    if isinstance(minimum, Skip):
        return leave_out(code="release.minimum", reason=minimum.reason, found=found, why=why)
    return judge(
        holds=_is_at_least(found, minimum),
        code="release.minimum",
        expected=f"{minimum.text} or later",
        found=found,
        why=why,
        hint="ask the operator to update the server, or lower `[release] minimum` in the policy",
    )


def _is_at_least(found: str, minimum: Release) -> bool:
    try:
        return parse_release(found) >= minimum
    except ValueError:
        return False
