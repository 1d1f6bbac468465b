"""Complete appraisals of good evidence of every TEE by fake vendors, for what can be said of all of them at once."""

from __future__ import annotations

import dataclasses
import functools
from itertools import chain
from typing import TYPE_CHECKING

from fakes import amd, aws, azure, intel, intel_pki, nvidia, tpm_vendor

from blindai.attestation.checks import Checks
from blindai.attestation.policy_file import Section
from blindai.attestation.policy_tees import fields_of
from blindai.attestation.tee import TEES, azure_vtpm, nitro, nvidia_gpu, sev_snp, sgx, simulation, tdx, tpm
from blindai.attester.simulation import SimulationAttester
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai.attestation.evidence import Claims, EvidenceItem, Finding

    _Case = tuple[EvidenceItem, float, Callable[[EvidenceItem, float, Checks], Claims]]

_TPM_VENDOR = tpm_vendor.FakeVendor()


def good_claims() -> Iterator[tuple[Claims, tuple[Finding, ...]]]:
    """Claims and findings of step 2 of one item after the other; several kinds of each TEE."""
    for item, now, verify in chain(_amd(), _intel(), _nvidia(), _others()):
        checks = Checks()
        yield verify(item, now, checks), checks.findings


def _amd() -> Iterator[_Case]:
    for machine in (amd.FakeMachine(), amd.FakeMachine(product="Turin"), amd.FakeMachine(key="VLEK")):
        item = machine.item()
        yield item, amd.NOW.timestamp(), functools.partial(sev_snp.verify, roots=amd.pinned(item))


def _intel() -> Iterator[_Case]:
    newer = {  # signers whose certificates were made anew, so that their chains are followed for themselves
        "pck_crl_issuer_chain": intel_pki.pem(intel_pki.CA_CERTIFICATE.make(), intel_pki.ROOT_MADE),
        "qe_identity_issuer_chain": intel_pki.pem(intel_pki.SIGNER_CERTIFICATE.make(), intel_pki.ROOT_MADE),
    }
    for evidence in (
        intel.FakeEvidence(endorsements=newer),
        intel.FakeEvidence(version=5),
        intel.FakeEvidence(tee="sgx", version=3, endorsements=newer),
    ):
        verify = sgx.verify if evidence.tee == "sgx" else tdx.verify
        yield evidence.item(), intel_pki.NOW_S, functools.partial(verify, roots=intel_pki.pinned())


def _nvidia() -> Iterator[_Case]:
    device_root, rim_root = (nvidia.pinned(nvidia.root(name)) for name in ("Device root", "RIM root"))
    trusting = functools.partial(nvidia_gpu.verify, device_root=device_root, rim_root=rim_root)
    for shown in (nvidia.hopper(), nvidia.blackwell(), *nvidia.hgx()):
        yield shown.item(), nvidia.NOW.timestamp(), trusting


def _others() -> Iterator[_Case]:
    yield aws.Enclave().item(), aws.NOW, functools.partial(nitro.verify, roots=aws.ROOTS)
    yield SimulationAttester(lambda size: b"d" * size, bytes(32)).attest(bytes(64)), 0.0, simulation.verify
    now, roots = tpm_vendor.NOW.timestamp(), _TPM_VENDOR.pinned
    for certified in ("ak", "ek"):
        yield _tpm(certified), now, functools.partial(tpm.verify, roots=roots)
    for hardware in ("sev_snp", "tdx"):
        machine = azure.FakeAzure(hardware=hardware)
        endorsements = _TPM_VENDOR.chain(_TPM_VENDOR.certify(machine.tpm.key))
        carrier = dataclasses.replace(machine, endorsements=endorsements).carrier()
        yield carrier, now, functools.partial(azure_vtpm.verify, roots=roots)


def _tpm(certified: str) -> EvidenceItem:
    """A TPM whose AK is certified, or whose EK is."""
    one = tpm_vendor.FakeTpm()
    leaf = _TPM_VENDOR.certify(one.key)
    if certified == "ek":
        leaf = _TPM_VENDOR.certify(tpm_vendor.rsa_key(1), signs=False, purposes=(tpm_vendor.EK_PURPOSE,))
    return dataclasses.replace(one, endorsements=_TPM_VENDOR.chain(leaf, certified)).item()


@functools.cache
def codes_of_good_evidence() -> frozenset[str]:
    """Of every finding of steps 2 and 5, passed, failed and skipped, under preset `strict`."""
    claims = tuple(good_claims())
    of_policy = (finding for tee in TEES for finding in _policy_findings(tee, [one for one, _ in claims]))
    return frozenset(finding.code for findings in (of_policy, *(made for _, made in claims)) for finding in findings)


def _policy_findings(tee: str, claims: list[Claims]) -> Iterator[Finding]:
    own = [claim for claim in claims if claim.tee == tee]
    table = {field: {"skip": "no reference value"} for field in fields_of(tee)} | (preset_table("strict", tee) or {})
    policy = TEES[tee].parse_policy(Section(source="strict", text="", path=("tee", tee), members=table))
    for claim in own:
        yield from TEES[tee].check(claim, policy)
    if (together := TEES[tee].check_together) is not None:
        yield from together(own, policy)
