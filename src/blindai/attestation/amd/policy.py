"""What a policy may say of SEV-SNP: the table `[tee.sev_snp]` (docs/spec/tee/sev_snp.md §5).

Leaves out: what the fields are compared with (tee/sev_snp.py), and why a preset says what it says (policies/).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.amd.flags import GUEST_POLICY_FLAGS, PLATFORM_FLAGS
from blindai.attestation.amd.report import TEE
from blindai.attestation.amd.tcb import COMPONENTS, read_minimum_tcb
from blindai.attestation.expectations import read_accepted, read_flag, read_minimum, read_names, read_track
from blindai.attestation.policy_file import Skip, TeePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blindai.attestation.amd.tcb import Minimum
    from blindai.attestation.policy_file import Section

CHIP_ID_BYTES = 64
_SHORT_CHIP_ID_BYTES = 8  # Turin's, which a report fills up with zeros
_ABI = re.compile(r"(\d{1,3})\.(\d{1,3})\Z")
_FLAGS = tuple(flag.name for flag in PLATFORM_FLAGS + GUEST_POLICY_FLAGS)
_FIELDS = (
    "minimum_report_version",
    "chips",
    "csp_ids",
    "minimum_tcb",
    "provisional_firmware",
    "mitigations",
    "revocation_grace_s",
    *_FLAGS,
    "migration_agent",
    "minimum_policy_abi",
    "vmpl",
    "measurement",
    "host_data",
    "family_id",
    "image_id",
    "minimum_guest_svn",
    "id_key_digest",
    "author_key_digest",
    "track",
)
# Every finding of `check`, in order.
CODES = tuple(
    f"{TEE}.{what}"
    for what in (
        "report_version",
        "chips",
        "csp_ids",
        "milan_seed",
        "cpu_model",
        *(f"spl_{component}" for component in COMPONENTS),
        "firmware_version",
        "launch_tcb",
        "provisional_firmware",
        "launch_mitigations",
        "current_mitigations",
        "crl",
        *_FLAGS,
        "migration_agent",
        "policy_abi",
        "vmpl",
        "measurement",
        "host_data",
        "family_id",
        "image_id",
        "guest_svn",
        "id_key_digest",
        "author_key_digest",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SevSnpPolicy(TeePolicy):
    """What a policy accepts of SEV-SNP.

    Attributes:
        chips: CHIP_IDs of 64 bytes.
        csp_ids: cloud providers whose VLEK may have signed; a VCEK is nobody's.
        minimum_tcb: by name of the CPU model.
        mitigations: bits that both mitigation vectors must have.
        revocation_grace_s: seconds past a revocation list's next update.
        flags: the value of each guest policy and platform bit.
        minimum_policy_abi: major and minor.
    """

    tee: str = TEE
    minimum_report_version: int | Skip
    chips: tuple[bytes, ...] | Skip
    csp_ids: tuple[str, ...] | Skip
    minimum_tcb: Mapping[str, Minimum] | Skip
    provisional_firmware: bool | Skip
    mitigations: int | Skip
    revocation_grace_s: int | Skip
    flags: Mapping[str, bool | Skip]
    migration_agent: bool | Skip
    minimum_policy_abi: tuple[int, int] | Skip
    vmpl: int | Skip
    measurement: tuple[bytes, ...] | Skip
    host_data: tuple[bytes, ...] | Skip
    family_id: tuple[bytes, ...] | Skip
    image_id: tuple[bytes, ...] | Skip
    minimum_guest_svn: int | Skip
    id_key_digest: tuple[bytes, ...] | Skip
    author_key_digest: tuple[bytes, ...] | Skip


def parse_policy(section: Section) -> SevSnpPolicy:
    """Read `[tee.sev_snp]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    section.require_keys(*_FIELDS)
    return SevSnpPolicy(
        track=read_track(section, CODES),
        minimum_report_version=read_minimum(section, "minimum_report_version"),
        chips=_read_chips(section),
        csp_ids=read_names(section, "csp_ids"),
        minimum_tcb=read_minimum_tcb(section, "minimum_tcb"),
        provisional_firmware=read_flag(section, "provisional_firmware"),
        mitigations=read_minimum(section, "mitigations"),
        revocation_grace_s=read_minimum(section, "revocation_grace_s"),
        flags={name: read_flag(section, name) for name in _FLAGS},
        migration_agent=read_flag(section, "migration_agent"),
        minimum_policy_abi=_read_abi(section, "minimum_policy_abi"),
        vmpl=read_minimum(section, "vmpl"),
        measurement=read_accepted(section, "measurement", 48),
        host_data=read_accepted(section, "host_data", 32),
        family_id=read_accepted(section, "family_id", 16),
        image_id=read_accepted(section, "image_id", 16),
        minimum_guest_svn=read_minimum(section, "minimum_guest_svn"),
        id_key_digest=read_accepted(section, "id_key_digest", 48),
        author_key_digest=read_accepted(section, "author_key_digest", 48),
    )


def _read_chips(section: Section) -> tuple[bytes, ...] | Skip:
    chips = read_accepted(section, "chips", CHIP_ID_BYTES, _SHORT_CHIP_ID_BYTES)
    return chips if isinstance(chips, Skip) else tuple(chip.ljust(CHIP_ID_BYTES, b"\0") for chip in chips)


def _read_abi(section: Section, key: str) -> tuple[int, int] | Skip:
    value = section.members[key]
    if isinstance(value, dict):
        return section.section(key).skip()
    found = _ABI.match(value) if isinstance(value, str) else None
    if not found:
        raise section.error('must be a text such as "1.55"', key)
    return int(found[1]), int(found[2])
