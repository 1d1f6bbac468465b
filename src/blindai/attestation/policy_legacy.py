"""A policy file of the seed generation (BlindAI 0.1 to 0.5), read as what it says of SGX (docs/spec/policy.md §7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blindai.attestation.policy_file import Section, TeePolicy

FIELDS = (
    "mr_enclave",
    "allow_debug",
    "attributes_flags_hex",
    "attributes_mask_flags_hex",
    "attributes_xfrm_hex",
    "attributes_mask_xfrm_hex",
    "misc_select_hex",
    "misc_mask_hex",
)


def is_legacy(root: Section) -> bool:
    """Whether a file has the seed generation's shape: it names an enclave at its top, and no version."""
    return "version" not in root.members and "mr_enclave" in root.members


def parse_legacy(root: Section) -> TeePolicy:
    """Placeholder until the SGX TEE is there."""
    root.require_keys(*FIELDS)
    raise root.error("is about SGX, which this release cannot verify", "mr_enclave")
