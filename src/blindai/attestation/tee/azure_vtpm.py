"""An Azure confidential VM's vTPM, beside its `sev_snp` or `tdx` evidence (docs/spec/tee/azure_vtpm.md).

The CPU's report speaks for Microsoft's paravisor, and names its JSON; the JSON names the vTPM's key; the key signs a
quote with the binding. The guest itself is measured by the quoted PCRs only.
Leaves out: the CPU's report (tee/sev_snp.py, tee/tdx.py), and that both items are one machine's (appraise.py, step 4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from blindai.attestation.azure.hcl import (
    MAX_HCL_BYTES,
    SEV_SNP,
    TDX,
    TEE,
    HclReport,
    RuntimeClaims,
    parse_hcl,
    parse_runtime_claims,
)
from blindai.attestation.azure.policy import AzureVtpmPolicy, read_azure_policy
from blindai.attestation.checks import judge
from blindai.attestation.evidence import Claims
from blindai.attestation.exact_reader import ExactReader
from blindai.attestation.expectations import judge_accepted, judge_flag, judge_names
from blindai.attestation.roots import AZURE_VTPM_ROOTS
from blindai.attestation.tpm2.boot_events import BootClaims, read_boot
from blindai.attestation.tpm2.boot_policy import judge_boot
from blindai.attestation.tpm2.certificates import VendorChain, chain_names, judge_vendor_chain, read_vendor_chain
from blindai.attestation.tpm2.event_log import MAX_LOG_BYTES, judge_replay, parse_event_log, told
from blindai.attestation.tpm2.keys import parse_signature, parsing_tpm
from blindai.attestation.tpm2.pcr_policy import judge_pcrs
from blindai.attestation.tpm2.quote import Quote, judge_quote, parse_quote, split_pcrs
from blindai.attestation.tpm2.revocation import RevocationClaims, judge_revocation_age, revocation_claims
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError
from blindai.wire import label, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.policy_file import Section
    from blindai.attestation.roots import PinnedRoot

__all__ = ["TEE", "AzureVtpmClaims", "AzureVtpmPolicy", "check", "parse", "parse_policy", "verify"]

# evidence = L("azure-vtpm-evidence") ‖ LP(HCL report) ‖ LP(quote) ‖ LP(signature) ‖ LP(PCR values) ‖ LP(event log)
MAGIC = label("azure-vtpm-evidence")
_LIMITS = {
    "hcl_report": MAX_HCL_BYTES,
    "quote": 512,
    "signature": 1024,
    "pcr_values": 24 * 64,
    "event_log": MAX_LOG_BYTES,
}
HASH_NAME = "sha256"
_PARAVISOR_VMPL = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureVtpmEvidence:
    """The parts of the evidence, each as the vTPM or the firmware wrote it.

    Attributes:
        hcl_report: of NV index 0x01400001, with or without the zeros behind it.
        quote: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        pcr_values: the quoted PCRs' values, concatenated in ascending order; which they are stands in the quote.
        event_log: as the guest's firmware left it, or empty.
    """

    hcl_report: bytes = field(repr=False)
    quote: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    pcr_values: bytes = field(repr=False)
    event_log: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureVtpmClaims(Claims):
    """What the paravisor says, as far as the CPU's report beside it is authentic, and what its vTPM quotes.

    Attributes:
        hcl: the report, and the JSON that it names.
        runtime: what stands in that JSON.
        pcrs: the quoted values by index.
        boot: what the event log says, or None without one.
        ak_certified: whether Azure certified the attestation key.
        revocation: what CRLs leave open about that certificate.
    """

    tee: str = TEE
    hcl: HclReport
    runtime: RuntimeClaims
    quote: Quote
    pcrs: Mapping[int, bytes]
    boot: BootClaims | None
    ak_certified: bool
    revocation: RevocationClaims

    def carrier_report_data(self) -> bytes:
        """SHA-256 of the runtime data, and 32 zeros."""
        return self.hcl.named_data

    def carries_for(self, tee: str, evidence: bytes) -> bool:
        """Whether the CPU's item was made of the report that the HCL report holds."""
        return self.hcl.is_report_of(tee, evidence)

    def facts(self) -> tuple[tuple[str, str], ...]:
        """The virtual machine, its vTPM, and every PCR."""
        return (
            ("stands beside", self.hcl.hardware),
            ("HCL report version", str(self.hcl.version)),
            *((f"vm-configuration {name}", value) for name, value in self.runtime.configuration),
            ("user-data", self.runtime.user_data.hex()),
            ("AK certified by", "Azure" if self.ak_certified else "the CPU's report only"),
            ("AK qualified name", self.quote.qualified_signer.hex()),
            ("reset count", str(self.quote.reset_count)),
            ("restart count", str(self.quote.restart_count)),
            ("clock safe", str(self.quote.safe).lower()),
            ("vTPM firmware version", f"{self.quote.firmware_version:#018x}"),
            ("event log", "read" if self.boot else "none"),
            *((f"PCR {index} ({self.quote.bank})", value.hex()) for index, value in self.pcrs.items()),
        )


def encode(evidence: AzureVtpmEvidence) -> bytes:
    """The parts as one item of evidence."""
    return MAGIC + b"".join(length_prefixed(getattr(evidence, name)) for name in _LIMITS)


def parse(raw: bytes) -> AzureVtpmEvidence:
    """Read the parts, which are parsed one by one.

    Raises:
        MalformedEvidenceError: another magic, a part too long, or anything after the last; code
            `azure_vtpm.evidence_format`.
    """
    with parsing_tpm(TEE, "evidence"):
        reader = ExactReader(raw)
        if reader.take(min(len(MAGIC), reader.left), "the magic") != MAGIC:
            raise ValueError("it does not begin with the magic")
        parts = {name: reader.sized(4, name, limit=limit) for name, limit in _LIMITS.items()}
        reader.finish("the last part")
    return AzureVtpmEvidence(**parts)


def verify(
    item: EvidenceItem, now: float, checks: Checks, *, roots: Sequence[PinnedRoot] = AZURE_VTPM_ROOTS
) -> AzureVtpmClaims:
    """Follow the way from the CPU's report to the quote; the report itself is the other item's.

    Raises:
        MalformedEvidenceError: a part or an endorsement cannot be read exactly, or is of a kind not known here.
        UnauthenticEvidenceError: a digest, signature, level or chain is another.
    """
    with checks.parsing(
        code=f"{TEE}.evidence_format",
        expected="parts that can be read exactly",
        why="What can be read in two ways can be judged in two ways.",
    ):
        evidence = parse(item.evidence)
        hcl = parse_hcl(evidence.hcl_report)
        quote = parse_quote(evidence.quote, tee=TEE)
        signature = parse_signature(evidence.signature, tee=TEE)
        log = parse_event_log(evidence.event_log, tee=TEE) if evidence.event_log else None
        vendor = _read_vendor(item)
    runtime = _require_runtime_claims(hcl, checks)
    key = runtime.attestation_key
    pcrs = split_pcrs(quote, evidence.pcr_values)
    for finding in chain(
        judge_quote(quote, signature, key, evidence.pcr_values, tee=TEE),
        judge_replay(log, quote.bank, pcrs, tee=TEE),
        judge_vendor_chain(vendor, tee=TEE, now=now, roots=roots, key=key) if vendor else (),
    ):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    return AzureVtpmClaims(
        bound=quote.extra_data,
        hcl=hcl,
        runtime=runtime,
        quote=quote,
        pcrs=pcrs,
        boot=read_boot(log, bank=quote.bank, quoted=told(log, pcrs)) if log else None,
        ak_certified=vendor is not None,
        revocation=revocation_claims(vendor.certificates, vendor.crls, now=now) if vendor else _NOTHING_REVOCABLE,
    )


_NOTHING_REVOCABLE = RevocationClaims(unknown=(), late_s=0)


def _read_vendor(item: EvidenceItem) -> VendorChain | None:
    names = [name for name, _ in item.endorsements]
    if not set(names) <= {*chain_names("ak")} or len(set(names)) != len(names):
        raise MalformedEvidenceError(
            f"expected endorsements of an AK, each once, found {', '.join(names)}",
            finding_code=f"{TEE}.endorsements",
            tee=TEE,
        )
    return read_vendor_chain(dict(item.endorsements), "ak", tee=TEE)


def _require_runtime_claims(hcl: HclReport, checks: Checks) -> RuntimeClaims:
    """The CPU's report names the JSON, which is read only then."""
    for finding in _judge_kinds(hcl):
        checks.require(finding, MalformedEvidenceError, tee=TEE)
    for finding in _judge_report(hcl):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    with checks.parsing(
        code=f"{TEE}.runtime_claims_format",
        expected="runtime claims that can be read exactly",
        why="What can be read in two ways can be judged in two ways.",
    ):
        return parse_runtime_claims(hcl.runtime_data)


def _judge_kinds(hcl: HclReport) -> Iterator[Finding]:
    yield judge(
        holds=hcl.hardware in (SEV_SNP, TDX),
        code=f"{TEE}.report_type",
        expected=f"a report of {SEV_SNP} or {TDX}",
        found=hcl.hardware,
        why="Only these CPUs sign what they measured of a guest.",
        hint="run the server in a confidential virtual machine: a trusted launch alone has no CPU that vouches for it",
    )
    yield judge(
        holds=hcl.hash_name == HASH_NAME,
        code=f"{TEE}.hash_type",
        expected=HASH_NAME,
        found=hcl.hash_name,
        why="The report data is compared with the digest that the report says, and no other form of it was ever seen.",
        hint="update the verifier: a newer paravisor may use another digest",
    )


def _judge_report(hcl: HclReport) -> Iterator[Finding]:
    yield judge(
        holds=hcl.report_data == hcl.named_data,
        code=f"{TEE}.report_data",
        expected=hcl.named_data.hex(),
        found=hcl.report_data.hex(),
        why="The CPU vouches for the paravisor's JSON only by this digest, and by nothing behind it.",
    )
    yield judge(
        holds=hcl.vmpl == _PARAVISOR_VMPL,
        code=f"{TEE}.vmpl",
        expected=f"a report that was asked for at VMPL {_PARAVISOR_VMPL}",
        found=f"VMPL {hcl.vmpl}",
        why="At another level the guest asks for reports, and can have any key in them.",
    )


def check(claims: AzureVtpmClaims, policy: AzureVtpmPolicy) -> Iterator[Finding]:
    """Compare PCRs, boot, the virtual machine's configuration and its key with the policy."""
    yield from judge_pcrs(policy.pcrs, bank=claims.quote.bank, pcrs=claims.pcrs, tee=TEE)
    yield from judge_boot(policy.boot, claims.boot, bank=claims.quote.bank, tee=TEE)
    yield from _check_machine(claims.runtime, policy)
    yield judge_flag(
        policy.ak_certificate,
        code=f"{TEE}.ak_certificate",
        found=claims.ak_certified,
        why="A certificate adds Azure's word that the key is of one of its vTPMs.",
        hint="let the server staple the certificate of NV index 0x01C101D0, with its issuers",
    )
    yield judge_revocation_age(policy.revocation_grace_s, claims.revocation, tee=TEE)


def _check_machine(runtime: RuntimeClaims, policy: AzureVtpmPolicy) -> Iterator[Finding]:
    yield judge_flag(
        policy.vm_secure_boot,
        code=f"{TEE}.vm_secure_boot",
        found=runtime.secure_boot,
        why="Without Secure Boot anything may have been started, signed or not.",
        hint="create the virtual machine with Secure Boot",
    )
    yield judge_flag(
        policy.vm_console,
        code=f"{TEE}.vm_console",
        found=runtime.console_enabled,
        why="Whoever holds a serial console can type where the guest listens.",
    )
    yield judge_flag(
        policy.vm_tpm,
        code=f"{TEE}.vm_tpm",
        found=runtime.tpm_enabled,
        why="A quote of a machine that says it has no vTPM is not understood.",
    )
    yield judge_names(
        policy.vm_ids,
        code=f"{TEE}.vm_id",
        found=(runtime.vm_id,),
        why="One id is one virtual machine: naming it leaves no other.",
    )
    yield judge_accepted(
        policy.user_data,
        code=f"{TEE}.user_data",
        found=runtime.user_data,
        why="Whoever is root in the guest can write it, so it says what the guest's software wants to say.",
    )


def parse_policy(section: Section) -> AzureVtpmPolicy:
    """Read `[tee.azure_vtpm]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    return read_azure_policy(section)
