"""What a policy may say about a TPM: `[tee.tpm]`.

Leaves out: PCRs and the boot, which other TEEs' policies say too (tpm2/pcr_policy.py, tpm2/boot_policy.py), and who
vouches for the attestation key (tpm2/vouchers.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.expectations import read_accepted, read_flag, read_minimum, read_names, read_track
from blindai.attestation.policy_file import Skip, TeePolicy
from blindai.attestation.roots import TPM_ROOTS
from blindai.attestation.tpm2.boot_policy import BOOT_FIELDS, BootExpectation, read_boot_expectation
from blindai.attestation.tpm2.pcr_policy import PCR_FIELDS, PcrExpectation, read_pcrs
from blindai.attestation.tpm2.vouchers import WAYS, Activation

if TYPE_CHECKING:
    from blindai.attestation.evidence import Finding
    from blindai.attestation.policy_file import Section

_TEE = "tpm"

_NAME_BYTES = (34, 50, 66)  # u16 and a digest
_FINGERPRINT_BYTES = 32

_FIELDS = (
    *PCR_FIELDS,
    *BOOT_FIELDS,
    *("ak_certified", "ak_roots", "ak_names", "ek_roots", "revocation_grace_s"),
    *("clock_safe", "max_restart_count", "minimum_firmware_version", "track"),
)
_CODES = tuple(
    f"{_TEE}.{name}"
    for name in (
        *("bank", "pcr_selection", "pcrs", *BOOT_FIELDS),
        *("ek_chain_root", "activation", "ak_certified", "ak_root", "ak_name", "revocation"),
        *("clock_safe", "restart_count", "firmware_version"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmPolicy(TeePolicy):
    """What a policy accepts of a TPM.

    Attributes:
        ak_certified: which of `WAYS` may certify the attestation key.
        ak_roots: names of pinned roots, for chains of AKs and EKs alike.
        ak_names: TPM names of accepted attestation keys.
        ek_roots: SHA-256 of the certificates in which an EK's chain may end, beside the pinned roots.
        activations: no field of a policy file: what the channel proved itself in this exchange.
    """

    tee: str = _TEE
    pcrs: PcrExpectation
    boot: BootExpectation
    ak_certified: tuple[str, ...] | Skip
    ak_roots: tuple[str, ...] | Skip
    ak_names: tuple[bytes, ...] | Skip
    ek_roots: tuple[bytes, ...] | Skip
    revocation_grace_s: int | Skip
    clock_safe: bool | Skip
    max_restart_count: int | Skip
    minimum_firmware_version: int | Skip
    activations: tuple[Activation, ...] = ()

    def with_activation(self, activation: Activation) -> TpmPolicy:
        """This policy, for judging evidence after the channel's own challenge was answered."""
        return replace(self, activations=(*self.activations, activation))


def read_tpm_policy(section: Section) -> TpmPolicy:
    """The whole table `[tee.tpm]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    section.require_keys(*_FIELDS)
    pcrs = read_pcrs(section)
    return TpmPolicy(
        pcrs=pcrs,
        boot=read_boot_expectation(section, bank=pcrs.bank),
        ak_certified=read_names(section, "ak_certified", WAYS),
        ak_roots=read_names(section, "ak_roots", tuple(root.name for root in TPM_ROOTS)),
        ak_names=read_accepted(section, "ak_names", *_NAME_BYTES),
        ek_roots=() if section.members["ek_roots"] == [] else read_accepted(section, "ek_roots", _FINGERPRINT_BYTES),
        revocation_grace_s=read_minimum(section, "revocation_grace_s"),
        clock_safe=read_flag(section, "clock_safe"),
        max_restart_count=read_minimum(section, "max_restart_count"),
        minimum_firmware_version=read_minimum(section, "minimum_firmware_version"),
        track=read_track(section, _CODES),
    )


def judge_restarts(maximum: int | Skip, found: int) -> Finding:
    """Whether the TPM was restarted or resumed at most so often since it was reset."""
    code, why = f"{_TEE}.restart_count", "What was suspended and resumed may have been changed in between."
    if isinstance(maximum, Skip):
        return leave_out(code=code, reason=maximum.reason, found=str(found), why=why)
    return judge(holds=found <= maximum, code=code, expected=f"at most {maximum}", found=str(found), why=why)
