"""Whether a certificate of a TPM vendor's chain was revoked, as far as CRLs that came with it say (RFC 5280 §5).

Leaves out: the chain itself (tpm2/certificates.py), and how old a CRL may be (a policy's `revocation_grace_s`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.checks import FETCH_THEM, judge, leave_out
from blindai.attestation.policy_file import Skip
from blindai.attestation.x509_bounds import require_bounded, without_warnings
from blindai.attestation.x509_chain import UNREADABLE, may_sign_crls
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Finding

_NARROWED = (x509.DeltaCRLIndicator, x509.IssuingDistributionPoint)  # such a list is silent about other certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationClaims:
    """What is known about revocation at the time of verification.

    Attributes:
        unknown: subjects of certificates that name a CRL, and none of it came; those that name none cannot be asked.
        late_s: by how many seconds the oldest CRL is past its next update; 0 if none is.
    """

    unknown: tuple[str, ...]
    late_s: int


def read_crl(der: bytes, *, tee: str) -> x509.CertificateRevocationList:
    """One complete CRL from exactly its DER.

    Raises:
        MalformedEvidenceError: anything else, code `<tee>.crl_format`.
    """
    try:
        crl = x509.load_der_x509_crl(der)
        is_exact = crl.public_bytes(Encoding.DER) == der and b"\0" + crl.signature in der  # no bit of it is unused
        extensions = [*crl.extensions, *(one for entry in crl for one in entry.extensions)]
        is_narrowed = any(one.critical or isinstance(one.value, _NARROWED) for one in extensions)
        is_dated = crl.next_update_utc is not None
        with without_warnings():
            require_bounded(crl.issuer)
        crl.last_update_utc  # noqa: B018  # parsed only when asked for, and must parse
    except UNREADABLE:
        is_exact = is_narrowed = is_dated = False
    if not is_exact or is_narrowed or not is_dated:
        words = f"expected a complete CRL in DER with a next update and no critical extension, found {len(der)} bytes"
        raise MalformedEvidenceError(words, finding_code=f"{tee}.crl_format", tee=tee)
    return crl


def judge_revocation(
    chain: Sequence[x509.Certificate], crls: Sequence[x509.CertificateRevocationList], *, tee: str, kind: str
) -> Iterator[Finding]:
    """Whether each CRL is a CA's of this chain, and names none of its certificates.

    The codes are `<tee>.<kind>_crl` and `<tee>.<kind>_revoked`.
    """
    signed = [(crl, _issuer(crl, chain)) for crl in crls]
    foreign = sum(1 for _, issuer in signed if issuer is None)
    yield judge(
        holds=not foreign,
        code=f"{tee}.{kind}_crl",
        expected="CRLs signed by CAs of this chain",
        found=f"{foreign} of {len(crls)} signed by none of them" if foreign else f"{len(crls)} CRLs of this chain",
        why="A list that the CA did not sign could leave out what it should say.",
    )
    revoked = [_subject(certificate) for certificate, listed in _listed(chain, signed) if listed]
    yield judge(
        holds=not revoked,
        code=f"{tee}.{kind}_revoked",
        expected="no certificate on a CRL",
        found=", ".join(revoked) or "none",
        why="A vendor that revoked a certificate no longer answers for what was signed with its key.",
    )


def _issuer(crl: x509.CertificateRevocationList, chain: Sequence[x509.Certificate]) -> x509.Certificate | None:
    return next((issuer for issuer in chain[1:] if _is_signed_by(crl, issuer)), None)


def _is_signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        is_its_own = crl.issuer == issuer.subject and may_sign_crls(issuer)
        return is_its_own and crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # a CA's key can sign
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _listed(
    chain: Sequence[x509.Certificate],
    signed: Sequence[tuple[x509.CertificateRevocationList, x509.Certificate | None]],
) -> Iterator[tuple[x509.Certificate, bool]]:
    for certificate, issuer in pairwise(chain):
        serial = certificate.serial_number
        lists = [crl for crl, signer in signed if signer == issuer]
        yield certificate, any(crl.get_revoked_certificate_by_serial_number(serial) is not None for crl in lists)


def revocation_claims(
    chain: Sequence[x509.Certificate], crls: Sequence[x509.CertificateRevocationList], *, now: float
) -> RevocationClaims:
    """What the CRLs, which have passed `judge_revocation`, leave open at `now`."""
    begun = [crl for crl in crls if crl.last_update_utc.timestamp() <= now]
    issuers = [_issuer(crl, chain) for crl in begun]
    unknown = tuple(
        _subject(certificate)
        for certificate, issuer in pairwise(chain)
        if _names_crl(certificate) and issuer not in issuers
    )
    ends = [crl.next_update_utc.timestamp() for crl in begun if crl.next_update_utc is not None]
    return RevocationClaims(unknown=unknown, late_s=max(0, int(now - min(ends))) if ends else 0)


def _names_crl(certificate: x509.Certificate) -> bool:
    return any(isinstance(extension.value, x509.CRLDistributionPoints) for extension in certificate.extensions)


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()


def judge_revocation_age(grace_s: int | Skip, claims: RevocationClaims, *, tee: str) -> Finding:
    """Whether nothing is left open, or just for as long as the policy tolerates; code `<tee>.revocation`."""
    code, why = f"{tee}.revocation", "A certificate may have been revoked since it was issued."
    found = f"none for {' and '.join(claims.unknown)}" if claims.unknown else f"CRLs {claims.late_s} s past their time"
    if isinstance(grace_s, Skip):
        return leave_out(code=code, reason=grace_s.reason, found=found, why=why)
    return judge(
        holds=not claims.unknown and claims.late_s <= grace_s,
        code=code,
        expected=f"CRLs for every certificate that names one, at most {grace_s} s past their time",
        found=found,
        why=why,
        hint=f"let the server staple newer CRLs, or {FETCH_THEM}; `revocation_grace_s` says how long old ones will do",
    )
