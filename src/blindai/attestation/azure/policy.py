"""What a policy may say about an Azure virtual machine's vTPM: `[tee.azure_vtpm]`.

Leaves out: PCRs and the boot, which other TEEs' policies say too (tpm2/pcr_policy.py, tpm2/boot_policy.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.attestation.azure.hcl import TEE, USER_DATA_BYTES
from blindai.attestation.expectations import read_accepted, read_flag, read_minimum, read_names, read_track
from blindai.attestation.policy_file import Skip, TeePolicy
from blindai.attestation.tpm2.boot_policy import BOOT_FIELDS, BootExpectation, read_boot_expectation
from blindai.attestation.tpm2.pcr_policy import PCR_FIELDS, PcrExpectation, read_pcrs

if TYPE_CHECKING:
    from blindai.attestation.policy_file import Section

_FIELDS = (
    *PCR_FIELDS,
    *BOOT_FIELDS,
    *("vm_secure_boot", "vm_console", "vm_tpm", "vm_ids", "user_data"),
    *("ak_certificate", "revocation_grace_s", "track"),
)
_CODES = tuple(
    f"{TEE}.{name}"
    for name in (
        *("bank", "pcr_selection", "pcrs", *BOOT_FIELDS),
        *("vm_secure_boot", "vm_console", "vm_tpm", "vm_id", "user_data", "ak_certificate", "revocation"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureVtpmPolicy(TeePolicy):
    """What a policy accepts of an Azure virtual machine beside its CPU.

    Attributes:
        pcrs: what the guest measured.
        boot: what its event log says.
        vm_secure_boot: whether the paravisor's UEFI must start only what is signed.
        vm_console: whether the virtual machine must have a serial console, which its operator can write to.
        vm_tpm: whether the paravisor must say that it has a vTPM.
        vm_ids: accepted `vmUniqueId`s.
        user_data: accepted values of what the guest wrote to NV index 0x01400002.
        ak_certificate: whether Azure must have certified the attestation key, too.
        revocation_grace_s: for how many seconds after its next update a CRL about that certificate will do.
    """

    tee: str = TEE
    pcrs: PcrExpectation
    boot: BootExpectation
    vm_secure_boot: bool | Skip
    vm_console: bool | Skip
    vm_tpm: bool | Skip
    vm_ids: tuple[str, ...] | Skip
    user_data: tuple[bytes, ...] | Skip
    ak_certificate: bool | Skip
    revocation_grace_s: int | Skip


def read_azure_policy(section: Section) -> AzureVtpmPolicy:
    """The whole table `[tee.azure_vtpm]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    section.require_keys(*_FIELDS)
    pcrs = read_pcrs(section)
    return AzureVtpmPolicy(
        pcrs=pcrs,
        boot=read_boot_expectation(section, bank=pcrs.bank),
        vm_secure_boot=read_flag(section, "vm_secure_boot"),
        vm_console=read_flag(section, "vm_console"),
        vm_tpm=read_flag(section, "vm_tpm"),
        vm_ids=read_names(section, "vm_ids"),
        user_data=read_accepted(section, "user_data", USER_DATA_BYTES),
        ak_certificate=read_flag(section, "ak_certificate"),
        revocation_grace_s=read_minimum(section, "revocation_grace_s"),
        track=read_track(section, _CODES),
    )
