"""What a policy may say about one claim: an allow-list, a flag, a minimum; each read, judged and shown alike.

Leaves out: which claims there are (tee/), and the file around the fields (policy_file.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.policy_file import Skip

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section

_HEX = re.compile(r"(?:[0-9a-f]{2})+\Z")


def read_accepted(section: Section, key: str, *sizes: int) -> tuple[bytes, ...] | Skip:
    """A list of lower-case hexadecimal texts of one of these sizes in bytes, or `{ skip = "reason" }`.

    Raises:
        InvalidPolicyError: anything else, an empty list too.
    """
    if skip := _read_skip(section, key):
        return skip

    def decode(value: object) -> bytes:
        if not isinstance(value, str) or not _HEX.match(value) or len(value) // 2 not in sizes:
            raise ValueError("expected lower-case hexadecimal digits")
        return bytes.fromhex(value)

    digits = " or ".join(str(2 * size) for size in sizes)
    return section.byte_strings(key, decode, f"text of {digits} lower-case hexadecimal digits")


def read_flag(section: Section, key: str) -> bool | Skip:
    """The value that a flag must have, or `{ skip = "reason" }`.

    Raises:
        InvalidPolicyError: anything else.
    """
    return _read_skip(section, key) or section.boolean(key)


def read_minimum(section: Section, key: str) -> int | Skip:
    """The least whole number that is accepted, from 0, or `{ skip = "reason" }`.

    Raises:
        InvalidPolicyError: anything else.
    """
    if skip := _read_skip(section, key):
        return skip
    value = section.members[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise section.error("must be a whole number from 0", key)
    return value


def read_names(section: Section, key: str, known: Collection[str] | None = None) -> tuple[str, ...] | Skip:
    """A list of names, of those known if any are given, or `{ skip = "reason" }`; an empty list accepts no name.

    Raises:
        InvalidPolicyError: anything else.
    """
    if skip := _read_skip(section, key):
        return skip
    values = section.members[key]
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise section.error("must be a list of texts", key)
    for value in values:
        if known is not None and value not in known:
            raise section.error(f"names {value!r}; known are {', '.join(known)}", key)
    return tuple(values)


def read_track(section: Section, codes: Collection[str]) -> frozenset[str]:
    """The codes under `track`: checks that refuse nothing when they fail.

    Raises:
        InvalidPolicyError: not a list, or a code that this TEE's policy checks do not have.
    """
    names = read_names(section, "track", codes)
    if isinstance(names, Skip):
        raise section.error("is a list of codes; an empty list enforces every check", "track")
    return frozenset(names)


def _read_skip(section: Section, key: str) -> Skip | None:
    value: Any = section.members[key]
    return section.section(key).skip() if isinstance(value, dict) else None


def judge_accepted(accepted: tuple[bytes, ...] | Skip, *, code: str, found: bytes, why: str, hint: str = "") -> Finding:
    """Whether the bytes found are one of those accepted; shown in hexadecimal."""
    if isinstance(accepted, Skip):
        return leave_out(code=code, reason=accepted.reason, found=found.hex(), why=why)
    return judge(
        holds=found in accepted,
        code=code,
        expected=one_of(value.hex() for value in accepted),
        found=found.hex(),
        why=why,
        hint=hint,
    )


def judge_flag(required: bool | Skip, *, code: str, found: bool, why: str, hint: str = "") -> Finding:  # noqa: FBT001  # the policy's value
    """Whether a flag has the required value."""
    if isinstance(required, Skip):
        return leave_out(code=code, reason=required.reason, found=_word(found), why=why)
    return judge(holds=found is required, code=code, expected=_word(required), found=_word(found), why=why, hint=hint)


def judge_minimum(minimum: int | Skip, *, code: str, found: int, why: str, hint: str = "") -> Finding:
    """Whether a number is at least the minimum."""
    if isinstance(minimum, Skip):
        return leave_out(code=code, reason=minimum.reason, found=str(found), why=why)
    return judge(holds=found >= minimum, code=code, expected=f"{minimum} or more", found=str(found), why=why, hint=hint)


def judge_names(
    accepted: tuple[str, ...] | Skip, *, code: str, found: tuple[str, ...], why: str, hint: str = ""
) -> Finding:
    """Whether every name found is one of those accepted."""
    text = ", ".join(found) or "none"
    if isinstance(accepted, Skip):
        return leave_out(code=code, reason=accepted.reason, found=text, why=why)
    return judge(
        holds=all(name in accepted for name in found),
        code=code,
        expected=f"none but {', '.join(accepted)}" if accepted else "none",
        found=text,
        why=why,
        hint=hint,
    )


def one_of(texts: Iterable[str]) -> str:
    """`x`, or `one of x, y`."""
    values = tuple(texts)
    listed = ", ".join(values)
    return listed if len(values) == 1 else f"one of {listed}"


def _word(value: bool) -> str:  # noqa: FBT001  # what it is about
    return "true" if value else "false"
