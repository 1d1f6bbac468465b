"""One good machine (or device) of every TEE, by its fake vendor, with the roots that make it authentic.

Leaves out: what can be wrong with one, which each vendor's own fake can show.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fakes import amd, aws, azure, intel, intel_pki, nvidia
from fakes.azure import FakeAzure
from fakes.tpm_vendor import NOW as TPM_NOW
from fakes.tpm_vendor import FakeTpm, FakeVendor

from blindai.attestation.checks import Checks
from blindai.attestation.policy_file import Section
from blindai.attestation.policy_tees import fields_of
from blindai.attestation.tee import TEES, azure_vtpm, nitro, nvidia_gpu, sev_snp, sgx, simulation, tdx, tpm
from blindai.attester.simulation import SimulationAttester
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.evidence import Claims, EvidenceItem, Finding
    from blindai.attestation.policy_file import TeePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Good evidence, and how it is verified.

    Attributes:
        now: a time at which it verifies, in Unix seconds.
        beside: the machine's own item, if this is its vTPM's.
        verify: the TEE's own, with the fake vendor's roots pinned.
    """

    item: EvidenceItem
    now: float
    verify: Callable[[EvidenceItem, float, Checks], Claims]
    beside: EvidenceItem | None = None


@functools.cache
def machines() -> dict[str, Machine]:
    """By TEE, and for a second kind of the same by `<tee>_<kind>`; keys are drawn once a process."""
    turin = amd.FakeMachine(product="Turin", key="VLEK").item()
    genoa = amd.FakeMachine().item()
    roots = {"roots": intel_pki.pinned()}
    return {
        "simulation": Machine(
            item=SimulationAttester(lambda size: b"d" * size, bytes(32)).attest(bytes(64)),
            now=0.0,
            verify=simulation.verify,
        ),
        "sev_snp": _machine(genoa, amd.NOW.timestamp(), sev_snp.verify, roots=amd.pinned(genoa)),
        "sev_snp_vlek": _machine(turin, amd.NOW.timestamp(), sev_snp.verify, roots=amd.pinned(turin)),
        "tdx": _machine(intel.FakeEvidence(version=5).item(), intel_pki.NOW_S, tdx.verify, **roots),
        "tdx_v4": _machine(intel.FakeEvidence().item(), intel_pki.NOW_S, tdx.verify, **roots),
        "sgx": _machine(intel.FakeEvidence(tee="sgx", version=3).item(), intel_pki.NOW_S, sgx.verify, **roots),
        "nitro": _machine(aws.Enclave().item(), aws.NOW, nitro.verify, roots=aws.ROOTS),
        "tpm": _tpm(),
        "azure_vtpm": _azure(),
        "nvidia_gpu": _machine(
            nvidia.hopper().item(),
            nvidia.NOW.timestamp(),
            nvidia_gpu.verify,
            device_root=nvidia.pinned(nvidia.root("Device root")),
            rim_root=nvidia.pinned(nvidia.root("RIM root")),
        ),
    }


def _machine(item: EvidenceItem, now: float, verify: Callable[..., Claims], **roots: object) -> Machine:
    return Machine(item=item, now=now, verify=functools.partial(verify, **roots))


def _tpm() -> Machine:
    vendor, good = FakeVendor(), FakeTpm()
    good.endorsements = vendor.chain(vendor.certify(good.key))
    return _machine(good.item(), TPM_NOW.timestamp(), tpm.verify, roots=vendor.pinned)


def _azure() -> Machine:
    good = FakeAzure()
    good.endorsements = azure.VENDOR.chain(azure.VENDOR.certify(good.tpm.key))
    machine, item = good.items()
    verify = functools.partial(azure_vtpm.verify, roots=azure.VENDOR.pinned)
    return Machine(item=item, now=TPM_NOW.timestamp(), verify=verify, beside=machine)


@functools.cache
def strict_policy_of(tee: str) -> TeePolicy:
    """The preset `strict`, with every reference value left out."""
    table = {field: {"skip": "no reference value"} for field in fields_of(tee)} | (preset_table("strict", tee) or {})
    policy: TeePolicy = TEES[tee].parse_policy(Section(source="strict", text="", path=("tee", tee), members=table))
    return policy


def appraised(machine: Machine, item: EvidenceItem) -> tuple[Claims, tuple[Finding, ...]]:
    """Steps 2 and 5 over one item; raises as `verify` does."""
    claims = machine.verify(item, machine.now, Checks())
    return claims, tuple(TEES[item.tee].check(claims, strict_policy_of(item.tee)))
