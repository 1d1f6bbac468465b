"""A policy file of the seed generation (BlindAI 0.1 to 0.5), read as what it says of SGX (docs/spec/policy.md §7).

Its eight fields name an enclave and its attributes. Its client accepted two states of a platform, and collateral that
was current; these stay. What neither said anything of is skipped, and every result says so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from blindai.attestation.policy_file import Section, TeePolicy, hex_digest
from blindai.attestation.policy_tees import fields_of
from blindai.attestation.tee import sgx

if TYPE_CHECKING:
    from collections.abc import Mapping

REASON = "a policy of the seed generation says nothing of it"
_INIT = 1  # its client added the flag that every running enclave has
_HEX = re.compile(r"0x[0-9a-f]{1,16}\Z")
# For each register of the report its size in bytes, the names of its value and its mask, and what is always set in it.
_REGISTERS = {
    "attributes_flags": (8, "attributes_flags_hex", "attributes_mask_flags_hex", _INIT),
    "attributes_xfrm": (8, "attributes_xfrm_hex", "attributes_mask_xfrm_hex", 0),
    "misc_select": (4, "misc_select_hex", "misc_mask_hex", 0),
}
FIELDS = ("mr_enclave", "allow_debug", *(name for _, value, mask, _ in _REGISTERS.values() for name in (value, mask)))

# What the seed's own client demanded of every platform, whatever the file said.
_OF_THE_CLIENT: Mapping[str, Any] = {
    "tcb_statuses": ["UpToDate", "SWHardeningNeeded"],
    "collateral_grace_s": 0,
    "revocation_grace_s": 0,
    "track": [],
}


def is_legacy(root: Section) -> bool:
    """Whether a file has the seed generation's shape: it names an enclave at its top, and no version."""
    return "version" not in root.members and "mr_enclave" in root.members


def parse_legacy(root: Section) -> TeePolicy:
    """What a file of the seed generation accepts of SGX.

    Raises:
        InvalidPolicyError: not exactly its eight fields; the message names the line.
    """
    root.require_keys(*FIELDS)
    allows_debug = root.boolean("allow_debug")
    members = {
        **{field: {"skip": REASON} for field in fields_of(sgx.TEE)},
        **_OF_THE_CLIENT,
        **{name: _masked(root, register) for name, register in _REGISTERS.items()},
        "mr_enclave": [_digest(root)],
        "debug": {"skip": "the policy says `allow_debug = true`"} if allows_debug else False,
    }
    return sgx.parse_policy(Section(source=root.source, text=root.text, path=(), members=members))


def _digest(root: Section) -> str:
    try:
        return hex_digest(root.members["mr_enclave"]).hex()
    except ValueError:
        raise root.error("must be 64 lower-case hexadecimal digits", "mr_enclave") from None


def _masked(root: Section, register: tuple[int, str, str, int]) -> dict[str, str]:
    """A register's value and mask, little-endian as in the report."""
    size, value_name, mask_name, always = register
    value, mask = (_number(root, name, size) for name in (value_name, mask_name))
    if (value | always) & ~mask:
        raise root.error(f"has bits that `{mask_name}` leaves out, so no enclave could meet it", value_name)
    return {"value": (value | always).to_bytes(size, "little").hex(), "mask": mask.to_bytes(size, "little").hex()}


def _number(root: Section, name: str, size: int) -> int:
    text = root.members[name]
    if not isinstance(text, str) or not _HEX.match(text) or int(text, 16) >> 8 * size:
        raise root.error(f"must be `0x` and at most {2 * size} lower-case hexadecimal digits", name)
    return int(text, 16)
