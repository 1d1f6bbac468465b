"""What a policy may say about a register of flags: the value it must have, and the bits in which that counts.

Leaves out: which registers there are (tee/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.policy_file import Skip

if TYPE_CHECKING:
    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section

_HEX = re.compile(r"(?:[0-9a-f]{2})+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A value and a mask of one size, in the order in which the report has its bytes."""

    value: bytes
    mask: bytes

    def matches(self, found: bytes) -> bool:
        """Whether every bit that the mask sets is the value's."""
        return all((one ^ other) & bits == 0 for one, other, bits in zip(found, self.value, self.mask, strict=True))


def read_masked(section: Section, key: str, size: int) -> Masked | Skip:
    """`{ value = "hex", mask = "hex" }` of this size in bytes, or `{ skip = "reason" }`.

    Raises:
        InvalidPolicyError: anything else, or a value with bits outside its mask, which could never count.
    """
    table = section.section(key)
    if "skip" in table.members:
        return table.skip()
    table.require_keys("value", "mask")
    value, mask = (_read_bytes(table, part, size) for part in ("value", "mask"))
    if any(one & ~bits for one, bits in zip(value, mask, strict=True)):
        raise table.error("has bits outside the mask", "value")
    return Masked(value=value, mask=mask)


def _read_bytes(table: Section, key: str, size: int) -> bytes:
    value = table.members[key]
    if not isinstance(value, str) or len(value) != 2 * size or not _HEX.match(value):
        raise table.error(f"must be {2 * size} lower-case hexadecimal digits", key)
    return bytes.fromhex(value)


def judge_masked(accepted: Masked | Skip, *, code: str, found: bytes, why: str, hint: str = "") -> Finding:
    """Whether a register has the value, where the mask looks; shown in hexadecimal."""
    if isinstance(accepted, Skip):
        return leave_out(code=code, reason=accepted.reason, found=found.hex(), why=why)
    return judge(
        holds=accepted.matches(found),
        code=code,
        expected=f"{accepted.value.hex()} where {accepted.mask.hex()}",
        found=found.hex(),
        why=why,
        hint=hint,
    )
