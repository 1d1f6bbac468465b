"""AWS Nitro Enclaves: an attestation document, signed by the hypervisor's certified key (docs/spec/tee/nitro.md).

The binding stands in `user_data`; `nonce` and `public_key` are shown and mean nothing here, since the binding covers
the nonce and the keys.
Leaves out: documents of NitroTPM, which speak of a whole instance and are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from blindai.attestation.aws.nitro_document import ENCLAVE_PCRS, PCR_BYTES, TEE, AttestationDocument, parse
from blindai.attestation.checks import judge, leave_out
from blindai.attestation.evidence import Claims
from blindai.attestation.expectations import (
    judge_accepted,
    judge_flag,
    read_accepted,
    read_flag,
    read_minimum,
    read_track,
)
from blindai.attestation.policy_file import Skip, TeePolicy
from blindai.attestation.roots import AWS_NITRO_ROOTS
from blindai.attestation.x509_chain import judge_chain, read_chain, utc_text
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.policy_file import Section
    from blindai.attestation.roots import PinnedRoot

__all__ = ["TEE", "check", "parse", "parse_policy", "verify"]

JUDGED_PCRS = {
    0: "the enclave image",
    1: "its kernel and boot ramdisk",
    2: "its applications",
    3: "the IAM role of the parent instance",
    4: "the id of the parent instance",
    8: "the certificate that signed the image",
}
CLOCK_SKEW_S = 60
_OWN_CERTIFICATES = 2  # of one enclave and of one instance
_FIELDS = ("debug", "max_age_s", *(f"pcr{index}" for index in JUDGED_PCRS), "track")
CHECK_CODES = ("nitro.pcr0_zero", "nitro.age", *(f"nitro.pcr{index}" for index in JUDGED_PCRS))


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroClaims(Claims):
    """What the hypervisor says of an enclave.

    Attributes:
        bound: `user_data`, empty if the document has none.
        module_id: the parent instance's id and the enclave's.
        timestamp: when the document was made, in Unix seconds.
        age_s: seconds from then to the verifier's time; negative if the hypervisor's clock is ahead.
        pcrs: index and value, 48 bytes each, ascending.
    """

    tee: str = TEE
    module_id: str
    timestamp: float
    age_s: float
    pcrs: tuple[tuple[int, bytes], ...]
    nonce: bytes | None
    public_key: bytes | None

    @property
    def debug_enabled(self) -> bool:
        """Whether the enclave runs in debug mode: its console can be read, and its PCR 0 is all zero."""
        return not any(self.pcr(0))

    def pcr(self, index: int) -> bytes:
        """A PCR's value; no bytes if the document does not have it."""
        return dict(self.pcrs).get(index, b"")

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Each claim as a name and a text; the PCRs that are all zero are left out."""
        return (
            ("module_id", self.module_id),
            ("timestamp", utc_text(self.timestamp)),
            ("debug mode", "yes" if self.debug_enabled else "no"),
            *((f"PCR{index}", value.hex()) for index, value in self.pcrs if any(value)),
            ("user_data", self.bound.hex() or "none"),
            ("nonce", "none" if self.nonce is None else self.nonce.hex()),
            ("public_key", "none" if self.public_key is None else self.public_key.hex()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroPolicy(TeePolicy):
    """What a policy accepts of a Nitro enclave.

    Attributes:
        debug: whether the enclave must be in debug mode; false, for whoever has secrets.
        max_age_s: how old a document may be, in seconds.
        pcrs: for each index of `JUDGED_PCRS` its accepted values.
    """

    tee: str = TEE
    debug: bool | Skip
    max_age_s: int | Skip
    pcrs: tuple[tuple[int, tuple[bytes, ...] | Skip], ...]


def verify(
    item: EvidenceItem, now: float, checks: Checks, *, roots: Sequence[PinnedRoot] = AWS_NITRO_ROOTS
) -> NitroClaims:
    """Follow the signatures from the pinned root to the document; no revocation list is read (nitro.md §2).

    Raises:
        MalformedEvidenceError: it is not exactly an enclave's attestation document, alone.
        UnauthenticEvidenceError: a root, signature or time is another.
    """
    checks.require(_judge_endorsements(item), MalformedEvidenceError, tee=TEE)
    with checks.parsing(
        code="nitro.format",
        expected="a COSE_Sign1 with an attestation document",
        why="What can be read in two ways can be judged in two ways.",
    ):
        document = parse(item.evidence)
    checks.require(_judge_kind(document), MalformedEvidenceError, tee=TEE)
    with checks.parsing(
        code="nitro.certificate_format",
        expected="certificates in DER",
        why="The chain from the document to a pinned root must be complete.",
    ):
        chain = _read_chain(document)
    for finding in _authenticity(document, chain, roots, now):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    timestamp = document.timestamp_ms / 1000
    return NitroClaims(
        bound=document.user_data or b"",
        module_id=document.module_id,
        timestamp=timestamp,
        age_s=now - timestamp,
        pcrs=document.pcrs,
        nonce=document.nonce,
        public_key=document.public_key,
    )


def _judge_endorsements(item: EvidenceItem) -> Finding:
    return judge(
        holds=not item.endorsements,
        code="nitro.endorsements",
        expected="none: the certificates stand in the document",
        found=", ".join(name for name, _ in item.endorsements) or "none: the certificates stand in the document",
        why="What nobody looks at should not travel as if somebody did.",
    )


def _judge_kind(document: AttestationDocument) -> Finding:
    return judge(
        holds=document.pcr_field == ENCLAVE_PCRS,
        code="nitro.nitrotpm",
        expected=f"an enclave's document, with {ENCLAVE_PCRS}",
        found=f"a document with {document.pcr_field}",
        why="NitroTPM measures a whole instance's boot, so its PCRs mean something else than an enclave's.",
        hint="this release verifies Nitro Enclaves only; run the server in an enclave",
    )


def _read_chain(document: AttestationDocument) -> tuple[x509.Certificate, ...]:
    """From the leaf to the root, which the bundle names first (§3.2.3)."""
    bundle = (document.certificate, *reversed(document.ca_bundle))
    return read_chain(bundle, tee=TEE, what="certificate of the document", own=_OWN_CERTIFICATES)


def _authenticity(
    document: AttestationDocument, chain: Sequence[x509.Certificate], roots: Sequence[PinnedRoot], now: float
) -> Iterator[Finding]:
    """§3.2.3: each is looked at only if the one before it passed."""
    yield from judge_chain(chain, roots, tee=TEE, now=now)
    leaf = chain[0]
    may_sign = _may_sign(leaf)
    yield judge(
        holds=may_sign,
        code="nitro.signing_key",
        expected="a P-384 key that may sign, and is no CA's",
        found="such a key" if may_sign else "a key of another kind or use",
        why="Only the key that AWS certified for documents may sign one.",
    )
    is_signed = document.envelope.is_signed_by(leaf.public_key())
    signed = "the certified key's signature over the document"
    yield judge(
        holds=is_signed,
        code="nitro.signature",
        expected=signed,
        found=signed if is_signed else "a signature that does not verify",
        why="Unsigned claims are anybody's words.",
    )
    name = _common_name(leaf)
    yield judge(
        holds=name.startswith(f"{document.module_id}."),
        code="nitro.module_id",
        expected=f"a certificate for {document.module_id}",
        found=f"a certificate for {name or 'nobody'}",
        why="Each enclave has its own certificate, and its documents name that enclave.",
    )


def _may_sign(leaf: x509.Certificate) -> bool:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        return False
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.digital_signature and not usage.key_cert_sign


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def check(claims: NitroClaims, policy: NitroPolicy) -> Iterator[Finding]:
    """Compare mode, age and PCRs with the policy."""
    yield judge_flag(
        policy.debug,
        code="nitro.pcr0_zero",
        found=claims.debug_enabled,
        why="A debug enclave's PCR 0 is all zero: it is measured by nothing, and its parent reads its console.",
        hint="start the enclave without --debug-mode",
    )
    yield _judge_age(claims.age_s, policy.max_age_s)
    for index, accepted in policy.pcrs:
        yield judge_accepted(
            accepted,
            code=f"nitro.pcr{index}",
            found=claims.pcr(index),
            why=f"PCR{index} measures {JUDGED_PCRS[index]}.",
            hint="compare with the measurements that nitro-cli build-enclave printed, or those of the release",
        )


def _judge_age(age_s: float, max_age_s: int | Skip) -> Finding:
    found = f"{age_s:.0f} s"
    why = "An old document says what ran then; the nonce proves freshness only in a fresh attestation."
    if isinstance(max_age_s, Skip):
        return leave_out(code="nitro.age", reason=max_age_s.reason, found=found, why=why)
    return judge(
        holds=-CLOCK_SKEW_S <= age_s <= max_age_s,
        code="nitro.age",
        expected=f"made at most {max_age_s} s ago, and not more than {CLOCK_SKEW_S} s ahead of this machine's clock",
        found=found,
        why=why,
        hint="ask for newer evidence, and check this machine's clock",
    )


def parse_policy(section: Section) -> NitroPolicy:
    """Read `[tee.nitro]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    section.require_keys(*_FIELDS)
    return NitroPolicy(
        track=read_track(section, CHECK_CODES),
        debug=read_flag(section, "debug"),
        max_age_s=read_minimum(section, "max_age_s"),
        pcrs=tuple((index, read_accepted(section, f"pcr{index}", PCR_BYTES)) for index in JUDGED_PCRS),
    )
