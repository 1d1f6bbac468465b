"""Judges OCSP answers about certificates (RFC 6960): is it the issuer's word, and what does it say?

An answer is about a certificate by its CertID, whatever it is called; a nonce in it is passed over, since the one who
asked is not the one who judges.
Leaves out: whether every certificate has an answer and how old it may be, which policy decides (tee/).
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from blindai.attestation.checks import judge
from blindai.attestation.x509_bounds import require_bounded, without_warnings
from blindai.attestation.x509_chain import (
    PURPOSES,
    UNREADABLE,
    common_name,
    holds_whole_bytes,
    is_issued_by,
    is_valid_at,
    may_sign_data,
    require_readable,
    strange_extension,
)
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Finding

MAX_ANSWER_BYTES = 8192
_ANSWERING = frozenset({ExtendedKeyUsageOID.OCSP_SIGNING})
_JUDGED = PURPOSES | {x509.OCSPNoCheck.oid}  # in a responder's certificate, beside what is judged in all
_WHY = "Anybody can say that a certificate is good."
_Hash = SHA256 | SHA384 | SHA512
_HASHES = (SHA256, SHA384, SHA512)
GOOD, ON_HOLD, UNKNOWN, REVOKED = "good", "on hold", "unknown", "revoked"
_STATUSES = {
    ocsp.OCSPCertStatus.GOOD: GOOD,
    ocsp.OCSPCertStatus.UNKNOWN: UNKNOWN,
    ocsp.OCSPCertStatus.REVOKED: REVOKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an issuer says about one certificate.

    Attributes:
        status: good, on hold, unknown or revoked.
        begins: thisUpdate, in Unix seconds.
        ends: nextUpdate; an answer without one is at its end when it begins.
    """

    subject: str
    status: str
    begins: float
    ends: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A certificate whose revocation is asked about, and who issued it."""

    certificate: x509.Certificate
    issuer: x509.Certificate


def read_answer(der: bytes, *, tee: str) -> ocsp.OCSPResponse:
    """One successful answer about one certificate, from exactly its DER.

    Raises:
        MalformedEvidenceError: anything else.
    """
    try:
        with without_warnings():
            response = ocsp.load_der_ocsp_response(der)
        is_one = response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL and len(list(response.responses)) == 1
        critical = is_one and _read_all(response)
    except UNREADABLE:
        raise _malformed(tee, f"{len(der)} bytes that are none") from None
    is_exact = is_one and response.public_bytes(Encoding.DER) == der
    is_whole = is_exact and all(holds_whole_bytes(signature, der) for signature in _signatures(response))
    if not is_whole or critical or len(der) > MAX_ANSWER_BYTES:
        raise _malformed(tee, "an error, several answers, a critical extension, or another encoding")
    return response


def _read_all(response: ocsp.OCSPResponse) -> bool:
    """Read what is parsed only when asked for; whether an extension is critical, and none is known here."""
    response.hash_algorithm, response.signature_hash_algorithm  # noqa: B018  # for their errors
    with without_warnings():
        require_bounded(response.responder_name or x509.Name([]))
    response.this_update_utc, response.next_update_utc  # noqa: B018  # likewise
    for certificate in response.certificates:
        require_readable(certificate)
    return any(extension.critical for extension in (*response.extensions, *response.single_extensions))


def _signatures(response: ocsp.OCSPResponse) -> tuple[bytes, ...]:
    """The answer's, and those of the certificates in it, which it does not sign."""
    return (response.signature, *(certificate.signature for certificate in response.certificates))


def _malformed(tee: str, found: str) -> MalformedEvidenceError:
    words = f"expected one OCSP answer about one certificate in DER, found {found}"
    return MalformedEvidenceError(words, finding_code=f"{tee}.ocsp_format", tee=tee)


def answers(response: ocsp.OCSPResponse, question: Question) -> bool:
    """Whether the answer is about that certificate of that issuer, by a CertID of SHA-256, SHA-384 or SHA-512."""
    algorithm = response.hash_algorithm
    if not isinstance(algorithm, _HASHES) or response.serial_number != question.certificate.serial_number:
        return False
    if not isinstance(question.issuer.public_key(), ec.EllipticCurvePublicKey):
        return False
    return (response.issuer_name_hash, response.issuer_key_hash) == _hashes_of(question.issuer, algorithm.name)


@functools.lru_cache(maxsize=64)  # a vendor's few CAs, each asked for with every certificate below it
def _hashes_of(issuer: x509.Certificate, digest: str) -> tuple[bytes, bytes]:
    """Of its name and of what the BIT STRING of its elliptic curve's key holds, as in a CertID."""
    name = issuer.subject.public_bytes(Encoding.DER)
    key = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return hashlib.new(digest, name).digest(), hashlib.new(digest, key).digest()


def judge_answers(answered: Sequence[tuple[ocsp.OCSPResponse, Question]], *, tee: str, now: float) -> Iterator[Finding]:
    """Each answer is the issuer's own word or its responder's, and no certificate is revoked for good.

    Args:
        answered: each answer with what it is about (`answers`).
        tee: the codes' first half: `<tee>.ocsp_responder`, `<tee>.ocsp_signature`, `<tee>.revoked`.
        now: Unix seconds, at which the responder's certificate must be valid.
    """
    by_whom = [(response, question, _responder(response, question, now)) for response, question in answered]
    strange = [question for _, question, responder in by_whom if responder is None]
    yield judge(
        holds=not strange,
        code=f"{tee}.ocsp_responder",
        expected="answers of the issuers, or of responders that they certified for OCSP",
        found=f"another's about {_names(strange)}" if strange else f"{len(answered)} of them",
        why=_WHY,
    )
    unsigned = [
        question
        for response, question, responder in by_whom
        if responder is None or not _is_signed(response, responder)
    ]
    yield judge(
        holds=not unsigned,
        code=f"{tee}.ocsp_signature",
        expected="answers signed by their responders",
        found=f"a signature that does not verify about {_names(unsigned)}" if unsigned else f"{len(answered)} of them",
        why=_WHY,
    )
    revoked = [question for response, question in answered if _status(response) == REVOKED]
    yield judge(
        holds=not revoked,
        code=f"{tee}.revoked",
        expected="no revoked certificate",
        found=_names(revoked) if revoked else "none",
        why="The vendor takes back its word for a key that it no longer trusts.",
        hint="do not use this machine; its operator must ask the vendor why the certificate was revoked",
    )


def _names(questions: Sequence[Question]) -> str:
    return ", ".join(common_name(question.certificate) for question in questions)


def _responder(response: ocsp.OCSPResponse, question: Question, now: float) -> x509.Certificate | None:
    """The issuer itself, or who it certified for answering (RFC 6960 §4.2.2.2); whoever the answer names."""
    for candidate in (question.issuer, *response.certificates):
        if _is_named(response, candidate) and (
            candidate is question.issuer or _may_answer(candidate, question.issuer, now)
        ):
            return candidate
    return None


def _is_named(response: ocsp.OCSPResponse, candidate: x509.Certificate) -> bool:
    if (name := response.responder_name) is not None:
        return name == candidate.subject
    return response.responder_key_hash == _key_hash(candidate)


@functools.lru_cache(maxsize=64)  # of issuers and responders
def _key_hash(certificate: x509.Certificate) -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def _may_answer(candidate: x509.Certificate, issuer: x509.Certificate, now: float) -> bool:
    """Its own revocation is not asked about: the vendors' responders say `id-pkix-ocsp-nocheck`."""
    try:
        usage = candidate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    may_sign = ExtendedKeyUsageOID.OCSP_SIGNING in usage and may_sign_data(candidate, _ANSWERING)
    is_known = not strange_extension(candidate, _JUDGED)
    return may_sign and is_known and is_valid_at(candidate, now) and is_issued_by(candidate, issuer)


def _is_signed(response: ocsp.OCSPResponse, responder: x509.Certificate) -> bool:
    key, algorithm = responder.public_key(), response.signature_hash_algorithm
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(algorithm, _HASHES):
        return False
    return _verifies(responder, response.signature, response.tbs_response_bytes, type(algorithm))


@functools.lru_cache(maxsize=256)  # the same answers come at every connection for hours
def _verifies(responder: x509.Certificate, signature: bytes, signed: bytes, algorithm: type[_Hash]) -> bool:
    """Only for an elliptic curve's key."""
    key = cast("ec.EllipticCurvePublicKey", responder.public_key())
    try:
        key.verify(signature, signed, ec.ECDSA(algorithm()))
    except InvalidSignature:
        return False
    return True


def _status(response: ocsp.OCSPResponse) -> str:
    if response.revocation_reason is x509.ReasonFlags.certificate_hold:
        return ON_HOLD
    return _STATUSES[response.certificate_status]


def answer_of(response: ocsp.OCSPResponse, question: Question) -> Answer:
    """What a policy needs of an answer that passed `judge_answers`."""
    begins = response.this_update_utc.timestamp()
    ends = response.next_update_utc.timestamp() if response.next_update_utc else begins
    return Answer(subject=common_name(question.certificate), status=_status(response), begins=begins, ends=ends)
