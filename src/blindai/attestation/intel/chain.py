"""Who vouches for an Intel quote: root → PCK → quoting enclave → attestation key → report, and beside it collateral.

Every step is a finding, and a failed one stops the rest: what follows it would be somebody's word.
Source: Intel "SGX & TDX DCAP Quote Verification Library", SW requirements 4.1.2.4, in our words.
Leaves out: dates of collateral and revocation lists, and every state, which a policy judges (intel/policy.py).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.checks import FETCH_THEM, judge
from blindai.attestation.intel.endorsements import read_endorsements
from blindai.attestation.intel.pck import read_pck
from blindai.attestation.x509_chain import judge_chain, may_sign_crls
from blindai.errors import UnauthenticEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.intel.collateral import Issue, QeIdentity
    from blindai.attestation.intel.endorsements import Chain, Collateral, Endorsements, RevocationList, SignedDocument
    from blindai.attestation.intel.pck import Pck
    from blindai.attestation.intel.quote import Quote, SgxReport
    from blindai.attestation.roots import PinnedRoot

# Common names of "Intel SGX PCK Certificate and CRL Profile Specification" §1.3 and of the PCS's signing certificate.
_PCK_NAME = "Intel SGX PCK Certificate"
_PCK_CA_NAMES = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
_ROOT_NAME = "Intel SGX Root CA"
_SIGNER_NAME = "Intel SGX TCB Signing"
_SGX_DEBUG = 0x02
_ROOT_WHY = "Only keys that Intel certified may vouch for a machine."
_SIGNED_WHY = "Unsigned claims are anybody's words."


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentKinds:
    """What the collateral must say that it is for: the `id` and `version` of TCB info and QE identity.

    Attributes:
        others: names of endorsements that this TEE has beside the shared ones.
    """

    tcb_info: tuple[str, int]
    qe_identity: tuple[str, int]
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a chain is followed for, at what time and to which roots."""

    tee: str
    kinds: DocumentKinds
    roots: Sequence[PinnedRoot]
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """What is known to be Intel's word after every step passed."""

    pck: Pck
    endorsements: Endorsements


def follow_chain(quote: Quote, item: EvidenceItem, checks: Checks, trust: Trust) -> Vouched:
    """Follow every signature from the pinned root to the quote and to its collateral.

    Raises:
        MalformedEvidenceError: an endorsement is not exactly what it is called.
        UnauthenticEvidenceError: a signature, a name, a root or a digest is another, or a certificate was revoked.
    """
    tee = trust.tee
    endorsements = read_endorsements(item, quote, checks, tee=tee, others=trust.kinds.others)
    chain = endorsements.pck_chain
    for finding in _judge_pck_chain(chain, trust):
        checks.require(finding, UnauthenticEvidenceError, tee=tee)
    with checks.parsing(
        code=f"{tee}.pck_extension", expected="the SGX extension of a PCK certificate", why="It names the platform."
    ):
        pck = read_pck(chain[0], tee=tee)
    root = [root for root in trust.roots if root.matches(chain[-1].public_bytes(Encoding.DER))]
    for finding in itertools.chain(
        _judge_quote(quote, chain[0], tee),
        _judge_revocation_lists(endorsements, replace(trust, roots=root)),
        _judge_collateral(endorsements.collateral, pck, quote, replace(trust, roots=root)),
        _judge_revoked(endorsements, tee),
    ):
        checks.require(finding, UnauthenticEvidenceError, tee=tee)
    return Vouched(pck=pck, endorsements=endorsements)


def _judge_pck_chain(chain: Chain, trust: Trust) -> Iterator[Finding]:
    tee = trust.tee
    yield from judge_chain(chain, trust.roots, tee=tee, now=trust.now, code="pck_chain")
    names = [common_name(certificate) for certificate in chain]
    yield judge(
        holds=len(names) == 3 and names[0] == _PCK_NAME and names[1] in _PCK_CA_NAMES and names[2] == _ROOT_NAME,  # noqa: PLR2004
        code=f"{tee}.pck_names",
        expected=f"{_PCK_NAME}, then {' or '.join(_PCK_CA_NAMES)}, then {_ROOT_NAME}",
        found=", ".join(names),
        why="Intel's root signs other certificates too, and they are not made for platforms.",
    )


def _judge_quote(quote: Quote, pck: x509.Certificate, tee: str) -> Iterator[Finding]:
    yield _judge_signature(
        holds=_is_signed(pck.public_key(), quote.qe_report_signature, quote.qe_report_raw),
        code=f"{tee}.qe_report_signature",
        whose="the PCK's signature over the quoting enclave's report",
    )
    digest = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    yield judge(
        holds=quote.qe_report.report_data == digest + bytes(32),
        code=f"{tee}.qe_report_data",
        expected=f"{digest.hex()}, then 32 zeros",
        found=quote.qe_report.report_data.hex(),
        why="The quoting enclave vouches only for the attestation key that its report names.",
    )
    yield _judge_signature(
        holds=_is_signed(_point(quote.attestation_key), quote.signature, quote.signed),
        code=f"{tee}.quote_signature",
        whose="the attestation key's signature over the quote",
    )


def _judge_revocation_lists(endorsements: Endorsements, trust: Trust) -> Iterator[Finding]:
    pck_chain, pck_crl_chain = endorsements.pck_chain, endorsements.pck_crl_issuer_chain
    if endorsements.root_ca_crl is not None:
        yield _judge_crl(endorsements.root_ca_crl, pck_chain[-1], f"{trust.tee}.root_crl_signature", "the root's")
    if endorsements.pck_crl is not None:
        yield from _judge_other_chain(pck_crl_chain, pck_chain[1:], trust, "pck_crl_chain")
        yield _judge_pck_crl(endorsements.pck_crl, pck_crl_chain[0], pck_chain[1], trust.tee)


def _judge_other_chain(chain: Chain, known: Chain, trust: Trust, code: str) -> Iterator[Finding]:
    """A chain beside the PCK's; most often it is one that was followed before, certificate by certificate."""
    if chain != known:
        yield from judge_chain(chain, trust.roots, tee=trust.tee, now=trust.now, code=code)
        return
    yield judge(
        holds=True,
        code=f"{trust.tee}.{code}",
        expected="each certificate signed by the next one, which is a CA",
        found=f"{len(chain)} certificates of a chain that was followed before",
        why=_ROOT_WHY,
    )


def _judge_collateral(collateral: Collateral | None, pck: Pck, quote: Quote, trust: Trust) -> Iterator[Finding]:
    if collateral is None:
        return
    tee, info, identity = trust.tee, collateral.tcb_info, collateral.qe_identity
    yield from _judge_document(collateral.tcb_info_document, (), trust, "tcb_info")
    yield _judge_kind(info.issue, trust.kinds.tcb_info, f"{tee}.tcb_info_kind")
    yield judge(
        holds=(info.fmspc, info.pce_id) == (pck.fmspc, pck.pce_id),
        code=f"{tee}.tcb_info_platform",
        expected=f"TCB info for FMSPC {pck.fmspc.hex()} and PCE-ID {pck.pce_id.hex()}",
        found=f"{info.fmspc.hex()} and {info.pce_id.hex()}",
        why="Each kind of platform has levels of its own.",
        hint=f"ask the operator to staple the documents for this FMSPC, or {FETCH_THEM}",
    )
    yield from _judge_document(
        collateral.qe_identity_document, collateral.tcb_info_document.chain, trust, "qe_identity"
    )
    yield _judge_kind(identity.issue, trust.kinds.qe_identity, f"{tee}.qe_identity_kind")
    yield _judge_qe(quote.qe_report, identity, tee)


def _judge_document(document: SignedDocument, known: Chain, trust: Trust, name: str) -> Iterator[Finding]:
    tee = trust.tee
    yield from _judge_other_chain(document.chain, known, trust, f"{name}_chain")
    signer = common_name(document.chain[0])
    yield judge(
        holds=signer == _SIGNER_NAME,
        code=f"{tee}.{name}_signer",
        expected=_SIGNER_NAME,
        found=signer,
        why="A platform's own certificate leads to the same root, and must not judge platforms.",
    )
    yield _judge_signature(
        holds=_is_document_of(document.chain[0], document.signature, document.data),
        code=f"{tee}.{name}_signature",
        whose=f"the TCB signer's signature over {name}",
    )


def _judge_kind(issue: Issue, expected: tuple[str, int], code: str) -> Finding:
    return judge(
        holds=(issue.kind, issue.version) == expected,
        code=code,
        expected=f"{expected[0]}, version {expected[1]}",
        found=f"{issue.kind}, version {issue.version}",
        why="What Intel says of SGX says nothing of TDX.",
    )


def _judge_qe(report: SgxReport, identity: QeIdentity, tee: str) -> Finding:
    holds = (
        report.mr_signer == identity.mr_signer
        and report.isv_prod_id == identity.isv_prod_id
        and equal_where(report.misc_select, identity.misc_select, identity.misc_select_mask)
        and equal_where(report.attributes, identity.attributes, identity.attributes_mask)
        and not report.flags & _SGX_DEBUG
    )
    return judge(
        holds=holds,
        code=f"{tee}.qe_identity",
        expected=f"MRSIGNER {identity.mr_signer.hex()}, ISVPRODID {identity.isv_prod_id}, attributes "
        f"{identity.attributes.hex()} where {identity.attributes_mask.hex()}, and no debug",
        found=f"MRSIGNER {report.mr_signer.hex()}, ISVPRODID {report.isv_prod_id}, attributes "
        f"{report.attributes.hex()}, MISCSELECT {report.misc_select.hex()}",
        why="The PCK signs the report of any enclave that asks; only Intel's quoting enclave keeps its key for quotes.",
    )


def _judge_crl(revocation: RevocationList, issuer: x509.Certificate, code: str, whose: str) -> Finding:
    return _judge_signature(
        holds=_is_crl_of(revocation, issuer), code=code, whose=f"a revocation list with {whose} name and signature"
    )


def _judge_pck_crl(
    revocation: RevocationList, issuer: x509.Certificate, pck_issuer: x509.Certificate, tee: str
) -> Finding:
    """Intel renews a CA's certificate with the same name and key, so those are what must be the same."""
    finding = _judge_crl(revocation, issuer, f"{tee}.pck_crl_signature", "the PCK's issuer's")
    if issuer.subject == pck_issuer.subject and issuer.public_key() == pck_issuer.public_key():
        return finding
    found = f"one by {common_name(issuer)} with serial {issuer.serial_number:x}"
    return judge(holds=False, code=finding.code, expected=finding.expected, found=found, why=finding.why)


def _judge_revoked(endorsements: Endorsements, tee: str) -> Iterator[Finding]:
    """Each certificate against the list of its issuer, if that list is there."""
    leaf, *above = endorsements.pck_chain
    if endorsements.root_ca_crl is not None:
        documents = endorsements.collateral
        signers = [documents.tcb_info_document.chain, documents.qe_identity_document.chain] if documents else []
        chains = [above, endorsements.pck_crl_issuer_chain, *signers]
        certificates = [certificate for chain in chains for certificate in chain]
        yield _judge_listed(certificates, endorsements.root_ca_crl, f"{tee}.ca_revoked")
    if endorsements.pck_crl is not None:
        yield _judge_listed([leaf], endorsements.pck_crl, f"{tee}.pck_revoked")


def _judge_listed(certificates: Sequence[x509.Certificate], revocation: RevocationList, code: str) -> Finding:
    revoked = next((one for one in certificates if one.serial_number in revocation.serials), None)
    return judge(
        holds=revoked is None,
        code=code,
        expected="no certificate that its issuer has revoked",
        found=f"{common_name(revoked)} with serial {revoked.serial_number:x}" if revoked else "none revoked",
        why="Intel takes back keys that it knows to be lost.",
        hint="this platform cannot prove anything until Intel certifies it anew",
    )


def _judge_signature(*, holds: bool, code: str, whose: str) -> Finding:
    found = whose if holds else "one that does not verify"
    return judge(holds=holds, code=code, expected=whose, found=found, why=_SIGNED_WHY)


def _is_signed(public_key: object, signature: bytes, message: bytes) -> bool:
    """ECDSA on P-256 with SHA-256, the signature as r ‖ s."""
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
        return False
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        public_key.verify(der, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@functools.lru_cache(maxsize=16)  # Intel's documents, the same for every platform of a kind
def _is_document_of(signer: x509.Certificate, signature: bytes, data: bytes) -> bool:
    return _is_signed(signer.public_key(), signature, data)


def _point(key: bytes) -> ec.EllipticCurvePublicKey | None:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
    except ValueError:
        return None


@functools.lru_cache(maxsize=16)
def _is_crl_of(revocation: RevocationList, issuer: x509.Certificate) -> bool:
    crl, public_key = revocation.crl, issuer.public_key()
    may_sign = crl.issuer == issuer.subject and may_sign_crls(issuer)
    if not may_sign or not isinstance(public_key, ec.EllipticCurvePublicKey):
        return False
    return crl.is_signature_valid(public_key)


def equal_where(found: bytes, expected: bytes, mask: bytes) -> bool:
    """Whether two values of one size agree in every bit that the mask sets."""
    return all((one ^ other) & bits == 0 for one, other, bits in zip(found, expected, mask, strict=True))


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name, if it has exactly one."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else "without one common name"
