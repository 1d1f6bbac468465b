"""Complete appraisals of good evidence of every TEE by fake vendors, for what can be said of all of them at once."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from fakes import amd, aws, intel, intel_pki, nvidia, tpm_vendor

from blindai.attestation.checks import Checks
from blindai.attestation.policy_file import Section
from blindai.attestation.policy_tees import fields_of
from blindai.attestation.tee import TEES, nitro, nvidia_gpu, sev_snp, sgx, simulation, tdx, tpm
from blindai.attester.simulation import SimulationAttester
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.evidence import Claims, EvidenceItem, Finding

_TPM_VENDOR = tpm_vendor.FakeVendor()


def good_claims() -> Iterator[tuple[Claims, tuple[Finding, ...]]]:
    """Claims and findings of step 2 of one item after the other; several kinds of each TEE."""
    snp_time = amd.NOW.timestamp()
    for machine in (amd.FakeMachine(), amd.FakeMachine(product="Turin"), amd.FakeMachine(key="VLEK")):
        item, checks = machine.item(), Checks()
        yield sev_snp.verify(item, snp_time, checks, roots=amd.pinned(item)), checks.findings
    newer = {  # signers whose certificates were made anew, so that their chains are followed for themselves
        "pck_crl_issuer_chain": intel_pki.pem(intel_pki.CA_CERTIFICATE.make(), intel_pki.ROOT_MADE),
        "qe_identity_issuer_chain": intel_pki.pem(intel_pki.SIGNER_CERTIFICATE.make(), intel_pki.ROOT_MADE),
    }
    for evidence in (
        intel.FakeEvidence(endorsements=newer),
        intel.FakeEvidence(version=5),
        intel.FakeEvidence(tee="sgx", version=3, endorsements=newer),
    ):
        verify, checks = (sgx.verify if evidence.tee == "sgx" else tdx.verify), Checks()
        yield verify(evidence.item(), intel_pki.NOW_S, checks, roots=intel_pki.pinned()), checks.findings
    device_root, rim_root = (nvidia.pinned(nvidia.root(name)) for name in ("Device root", "RIM root"))
    trusting = functools.partial(nvidia_gpu.verify, device_root=device_root, rim_root=rim_root)
    for shown in (nvidia.hopper(), nvidia.blackwell(), *nvidia.hgx()):
        checks = Checks()
        yield trusting(shown.item(), nvidia.NOW.timestamp(), checks), checks.findings
    checks = Checks()
    yield nitro.verify(aws.Enclave().item(), aws.NOW, checks, roots=aws.ROOTS), checks.findings
    for chain in ("ak", "ek"):
        checks = Checks()
        yield tpm.verify(_tpm(chain), tpm_vendor.NOW.timestamp(), checks, roots=_TPM_VENDOR.pinned), checks.findings
    checks = Checks()
    item = SimulationAttester(lambda size: b"d" * size, bytes(32)).attest(bytes(64))
    yield simulation.verify(item, 0.0, checks), checks.findings


def _tpm(chain: str) -> EvidenceItem:
    """A TPM whose AK is certified, or whose EK is."""
    one = tpm_vendor.FakeTpm()
    leaf = _TPM_VENDOR.certify(one.key)
    if chain == "ek":
        leaf = _TPM_VENDOR.certify(tpm_vendor.rsa_key(1), signs=False, purposes=(tpm_vendor.EK_PURPOSE,))
    return dataclasses.replace(one, endorsements=_TPM_VENDOR.chain(leaf, chain)).item()


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
