"""TPM 2.0 evidence: PCRs quoted by a certified key, and the event log that explains them (docs/spec/tee/tpm.md).

It says what a machine booted. It says nothing about who can read that machine's memory: SEV-SNP and TDX do.
Leaves out: the structures themselves (tpm2/keys.py, tpm2/quote.py, tpm2/event_log.py), each policy field's comparison
(tpm2/pcr_policy.py, tpm2/boot_policy.py), and credential activation, which is the channel's (channel/activation.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from blindai.attestation.checks import judge
from blindai.attestation.evidence import Claims
from blindai.attestation.exact_reader import ExactReader
from blindai.attestation.expectations import judge_accepted, judge_flag, judge_minimum, judge_names
from blindai.attestation.roots import TPM_ROOTS
from blindai.attestation.tpm2.attestation_key import HIERARCHIES, judge_attestation_key
from blindai.attestation.tpm2.boot_events import BootClaims, read_boot
from blindai.attestation.tpm2.boot_policy import judge_boot
from blindai.attestation.tpm2.certificates import (
    KINDS,
    VendorChain,
    chain_names,
    judge_vendor_chain,
    read_vendor_chain,
)
from blindai.attestation.tpm2.event_log import MAX_LOG_BYTES, judge_replay, parse_event_log, told
from blindai.attestation.tpm2.keys import parse_public, parse_signature, parsing_tpm
from blindai.attestation.tpm2.pcr_policy import judge_pcrs
from blindai.attestation.tpm2.policy import TpmPolicy, judge_restarts, read_tpm_policy
from blindai.attestation.tpm2.quote import Quote, judge_quote, parse_quote, split_pcrs
from blindai.attestation.tpm2.revocation import RevocationClaims, judge_revocation_age, revocation_claims
from blindai.attestation.tpm2.vouchers import Vouchers, judge_vouchers
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError
from blindai.wire import label, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.policy_file import Section
    from blindai.attestation.roots import PinnedRoot

TEE = "tpm"

# evidence = L("tpm-evidence") ‖ LP(quote) ‖ LP(signature) ‖ LP(AK's public area) ‖ LP(AK's parent)
#   ‖ LP(PCR values) ‖ LP(event log)
MAGIC = label("tpm-evidence")
_LIMITS = {
    "quote": 512,
    "signature": 1024,
    "ak_public": 1024,
    "ak_parent": 66,
    "pcr_values": 24 * 64,
    "event_log": MAX_LOG_BYTES,
}
_PARTS = {
    "evidence": "the parts of TPM evidence",
    "quote": "a TPMS_ATTEST that quotes PCRs of one bank",
    "signature": "a TPMT_SIGNATURE",
    "ak": "a TPMT_PUBLIC of a key that can sign",
    "event_log": "a crypto-agile event log",
}
_EXACT = "What can be read in two ways can be judged in two ways."
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmEvidence:
    """The parts of TPM evidence, each as the TPM or the firmware wrote it.

    Attributes:
        quote: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        ak_public: TPMT_PUBLIC of the attestation key.
        ak_parent: what it is derived from: the 4 bytes of a hierarchy's handle, or a key's qualified name.
        pcr_values: the quoted PCRs' values, concatenated in ascending order; which they are stands in the quote.
        event_log: as the firmware left it, or empty.
    """

    quote: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    ak_public: bytes = field(repr=False)
    ak_parent: bytes = field(repr=False)
    pcr_values: bytes = field(repr=False)
    event_log: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmClaims(Claims):
    """What an authentic quote says, and who certified its key.

    Attributes:
        ak_name: the attestation key's TPM name, which an operator's admission and an activation name.
        ak_root: the pinned root whose vendor certified the attestation key, or empty.
        ek_root: the pinned root in which the chain of the endorsement key shown beside it ends, or empty.
        ek_root_sha256: that root's fingerprint, pinned or not, or empty.
        ek_key_sha256: of that endorsement key's SubjectPublicKeyInfo, or empty.
        hierarchy: the one in which the attestation key is primary, or `below another key`.
        pcrs: the quoted values by index.
        boot: what the event log says, or None without one.
        revocation: what CRLs leave open.
    """

    tee: str = TEE
    ak_name: bytes
    ak_root: str
    ek_root: str
    ek_root_sha256: bytes
    ek_key_sha256: bytes
    hierarchy: str
    quote: Quote
    pcrs: Mapping[int, bytes]
    boot: BootClaims | None
    revocation: RevocationClaims

    @property
    def vouchers(self) -> Vouchers:
        """Who vouches for the attestation key, as the evidence shows it."""
        return Vouchers(
            ak_name=self.ak_name,
            has_vendor_chain=bool(self.ak_root),
            ek_key_sha256=self.ek_key_sha256,
            ek_root=self.ek_root,
            ek_root_sha256=self.ek_root_sha256,
        )

    def facts(self) -> tuple[tuple[str, str], ...]:
        """The quote, the key and its vendor, the boot, and every PCR."""
        return (
            ("AK name", self.ak_name.hex()),
            ("AK certified by", self.ak_root or "no vendor"),
            ("EK certified by", self.ek_root or self.ek_root_sha256.hex() or "no vendor"),
            ("AK hierarchy", self.hierarchy),
            ("reset count", str(self.quote.reset_count)),
            ("restart count", str(self.quote.restart_count)),
            ("clock safe", str(self.quote.safe).lower()),
            ("TPM firmware version", f"{self.quote.firmware_version:#018x}"),
            *_boot_facts(self.boot),
            *((f"PCR {index} ({self.quote.bank})", value.hex()) for index, value in self.pcrs.items()),
        )


def _boot_facts(boot: BootClaims | None) -> Iterator[tuple[str, str]]:
    if boot is None:
        yield "event log", "none"
        return
    yield "Secure Boot", {True: "on", False: "off", None: "unknown"}[boot.secure_boot]
    yield "firmware", boot.firmware or "not named"
    yield "memory encryption, as the host says", boot.memory_encryption or "not said"
    yield from ((f"Secure Boot variable {name}", digest.hex()) for name, digest in boot.variables)
    yield from (("firmware flag", flag) for flag in boot.firmware_flags)
    yield from (("boot application", digest.hex()) for digest in boot.applications)
    yield from (("kernel", digest.hex()) for digest in boot.kernels)
    yield from (("initrd", digest.hex()) for digest in boot.initrds)
    yield from (("command line", line.text or f"digest {line.digest.hex()}") for line in boot.command_lines)
    yield from (("boot file", digest.hex()) for digest in boot.files)


def encode(evidence: TpmEvidence) -> bytes:
    """The parts as one item of evidence."""
    return MAGIC + b"".join(length_prefixed(getattr(evidence, name)) for name in _LIMITS)


def parse(raw: bytes) -> TpmEvidence:
    """Read the parts of TPM evidence, which are parsed one by one.

    Raises:
        MalformedEvidenceError: another magic, a part too long, or anything after the last; code `tpm.evidence_format`.
    """
    with parsing_tpm(TEE, "evidence"):
        reader = ExactReader(raw)
        if reader.take(min(len(MAGIC), reader.left), "the magic") != MAGIC:
            raise ValueError("it does not begin with the magic")
        parts = {name: reader.sized(4, name, limit=limit) for name, limit in _LIMITS.items()}
        reader.finish("the last part")
    return TpmEvidence(**parts)


def verify(item: EvidenceItem, now: float, checks: Checks, *, roots: Sequence[PinnedRoot] = TPM_ROOTS) -> TpmClaims:
    """Check that a key which cannot leave its TPM quoted these PCRs, that the log leads to them, and who certified it.

    A key that nobody certified is authentic as far as it goes: whether that is enough, the policy says.

    Raises:
        MalformedEvidenceError: a part or an endorsement cannot be read exactly.
        UnauthenticEvidenceError: a signature, digest, attribute, chain or replay is another.
    """
    evidence = _read(checks, "evidence", lambda raw, **_: parse(raw), item.evidence)
    quote = _read(checks, "quote", parse_quote, evidence.quote)
    signature = _read(checks, "signature", parse_signature, evidence.signature)
    ak = _read(checks, "ak", parse_public, evidence.ak_public)
    log = _read(checks, "event_log", parse_event_log, evidence.event_log) if evidence.event_log else None
    chains = _read_chains(item, checks)
    pcrs = split_pcrs(quote, evidence.pcr_values)
    for finding in chain(
        judge_attestation_key(ak, evidence.ak_parent, quote, signature, tee=TEE),
        judge_quote(quote, signature, ak.key, evidence.pcr_values, tee=TEE),
        judge_replay(log, quote.bank, pcrs, tee=TEE),
        *(
            judge_vendor_chain(one, tee=TEE, now=now, roots=roots, key=ak.key if one.kind == "ak" else None)
            for one in chains
        ),
    ):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    roots_by_kind = {one.kind: one.root_name(roots) for one in chains}
    ek = next((one for one in chains if one.kind == "ek"), None)
    return TpmClaims(
        bound=quote.extra_data,
        ak_name=ak.name,
        ak_root=roots_by_kind.get("ak", ""),
        ek_root=roots_by_kind.get("ek", ""),
        ek_root_sha256=ek.root_sha256 if ek else b"",
        ek_key_sha256=ek.key_sha256 if ek else b"",
        hierarchy=HIERARCHIES.get(evidence.ak_parent, "below another key"),
        quote=quote,
        pcrs=pcrs,
        boot=read_boot(log, bank=quote.bank, quoted=told(log, pcrs)) if log else None,
        revocation=_revocation(chains, now),
    )


def _read(checks: Checks, part: str, parser: Callable[..., _Part], raw: bytes) -> _Part:
    with checks.parsing(code=f"{TEE}.{part}_format", expected=f"exactly {_PARTS[part]}", why=_EXACT):
        return parser(raw, tee=TEE)


def _read_chains(item: EvidenceItem, checks: Checks) -> tuple[VendorChain, ...]:
    """The chains of AK and EK; a refusal is kept under its own code, that of a certificate or CRL too."""
    expected = "endorsements of an AK or an EK, each once"
    try:
        chains = tuple(_chains(item, expected))
    except MalformedEvidenceError as error:
        checks.refuse_parsing(error, expected=expected, why=_EXACT)
        raise
    found = ", ".join(f"{len(one.certificates)} certificates of an {one.kind.upper()}" for one in chains) or "none"
    checks.record([judge(holds=True, code=f"{TEE}.endorsements", expected=expected, found=found, why=_EXACT)])
    return chains


def _chains(item: EvidenceItem, expected: str) -> Iterator[VendorChain]:
    names = [name for name, _ in item.endorsements]
    if not set(names) <= {*chain_names("ak"), *chain_names("ek")} or len(set(names)) != len(names):
        words = f"expected {expected}, found {', '.join(names)}"
        raise MalformedEvidenceError(words, finding_code=f"{TEE}.endorsements", tee=TEE)
    for kind in KINDS:
        if one := read_vendor_chain(dict(item.endorsements), kind, tee=TEE):
            yield one


def _revocation(chains: Sequence[VendorChain], now: float) -> RevocationClaims:
    each = [revocation_claims(one.certificates, one.crls, now=now) for one in chains]
    return RevocationClaims(
        unknown=tuple(subject for claims in each for subject in claims.unknown),
        late_s=max((claims.late_s for claims in each), default=0),
    )


def check(claims: TpmClaims, policy: TpmPolicy) -> Iterator[Finding]:
    """Compare PCRs, boot, the key's certification and the TPM's own state with the policy."""
    yield from judge_pcrs(policy.pcrs, bank=claims.quote.bank, pcrs=claims.pcrs, tee=TEE)
    yield from judge_boot(policy.boot, claims.boot, bank=claims.quote.bank, tee=TEE)
    yield from _check_key(claims, policy)
    yield judge_flag(
        policy.clock_safe,
        code=f"{TEE}.clock_safe",
        found=claims.quote.safe,
        why="A clock that may have gone back can make an old quote look new.",
    )
    yield judge_restarts(policy.max_restart_count, claims.quote.restart_count)
    yield judge_minimum(
        policy.minimum_firmware_version,
        code=f"{TEE}.firmware_version",
        found=claims.quote.firmware_version,
        why="Old firmware of TPMs has known ways to their keys.",
    )


def _check_key(claims: TpmClaims, policy: TpmPolicy) -> Iterator[Finding]:
    yield from judge_vouchers(policy, claims.vouchers)
    yield judge_names(
        policy.ak_roots,
        code=f"{TEE}.ak_root",
        found=tuple(root for root in (claims.ak_root, claims.ek_root) if root),
        why="Each vendor vouches for TPMs of its own cloud or make, so for its own operators.",
    )
    yield judge_accepted(
        policy.ak_names,
        code=f"{TEE}.ak_name",
        found=claims.ak_name,
        why="One key is one TPM, so one machine: naming it leaves no other.",
    )
    yield judge_revocation_age(policy.revocation_grace_s, claims.revocation, tee=TEE)


def parse_policy(section: Section) -> TpmPolicy:
    """Read `[tee.tpm]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    return read_tpm_policy(section)
