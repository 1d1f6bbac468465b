"""Follows X.509 certificates from a leaf to a pinned root, link by link (RFC 5280 §6.1, as far as TEE vendors use it).

Each link is a finding with the TEE's own code, so that a refusal shows how far the chain was good.
Leaves out: which roots are pinned (roots.py), names and extensions that only one vendor has (tee/).
Not cryptography's PolicyBuilder: it refuses AMD's RSA-PSS and certificates without a subject alternative name.
"""

from __future__ import annotations

import functools
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from blindai.attestation.checks import FETCH_THEM, judge
from blindai.attestation.x509_bounds import require_bounded, without_warnings
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Finding
    from blindai.attestation.roots import PinnedRoot

MAX_CERTIFICATES = 8
ROOT_WHY = "A root that came with the evidence proves nothing until it is recognised."
# What cryptography raises for certificates and answers that are none, or that it does not know.
UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_PEM_END = b"-----END CERTIFICATE-----"
# Extensions that may be critical (RFC 5280 §4.2): two are judged here, and no check rests on alternative names.
_JUDGED = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.SUBJECT_ALTERNATIVE_NAME})
PURPOSES = frozenset({ExtensionOID.EXTENDED_KEY_USAGE})


def read_certificate(der: bytes, *, tee: str, what: str, least_serial: int = 1) -> x509.Certificate:
    """One certificate from exactly its DER, its serial number positive unless `least_serial` says otherwise.

    Raises:
        MalformedEvidenceError: anything else.
    """
    try:
        with without_warnings():
            certificate = x509.load_der_x509_certificate(der)
            serial = certificate.serial_number
        if certificate.public_bytes(Encoding.DER) != der or not holds_whole_bytes(certificate.signature, der):
            raise _malformed(tee, f"a {what} in DER, found another encoding of one")
        require_readable(certificate)
        if serial < least_serial:  # RFC 5280 §4.1.2.2
            raise _malformed(tee, f"a {what} with a positive serial number, found {serial}")
    except UNREADABLE:
        raise _malformed(tee, f"a {what} in DER, found {len(der)} bytes that are none") from None
    return certificate


@functools.lru_cache(maxsize=64)
def read_issuer(der: bytes, *, tee: str, what: str) -> x509.Certificate:
    """`read_certificate`, kept: for a vendor's own certificates, which many machines show.

    Raises:
        MalformedEvidenceError: as there.
    """
    return read_certificate(der, tee=tee, what=what)


def read_chain(ders: Sequence[bytes], *, tee: str, what: str, own: int) -> tuple[x509.Certificate, ...]:
    """Certificates from the leaf to the root, each from exactly its DER.

    Args:
        ders: at least `own` of them.
        tee: of the finding's code.
        what: they are called in errors.
        own: how many of the first may be one machine's; nothing is kept of them.

    Raises:
        MalformedEvidenceError: one is none.
    """
    machines = (read_certificate(der, tee=tee, what=what) for der in ders[:own])
    return (*machines, *(read_issuer(der, tee=tee, what=what) for der in ders[own:]))


def holds_whole_bytes(signature: bytes, der: bytes) -> bool:
    """Whether no bit of the signature's last byte is called unused, as one that is zero could be."""
    return b"\0" + signature in der


def require_readable(certificate: x509.Certificate) -> None:
    """Names, times, extensions and key are parsed only when asked for, and must parse (a year may be 0, for one).

    Raises:
        ValueError: they do not; or another of `UNREADABLE`.
    """
    with without_warnings():
        require_bounded(certificate.subject)
        require_bounded(certificate.issuer)
    certificate.extensions, certificate.not_valid_before_utc, certificate.not_valid_after_utc  # noqa: B018  # for errors
    certificate.public_key()


def read_pem_chain(pem: bytes, *, tee: str, what: str, own: int = MAX_CERTIFICATES) -> tuple[x509.Certificate, ...]:
    """Certificates from PEM in the order in which they stand; identities are always taken of their DER.

    `own` is as in `read_chain`.

    Raises:
        MalformedEvidenceError: no certificate, more than 8, or bytes that are none.
    """
    if not 1 <= pem.count(_PEM_END) <= MAX_CERTIFICATES:
        raise _malformed(tee, f"1 to {MAX_CERTIFICATES} certificates as {what}, found {pem.count(_PEM_END)}")
    try:
        with without_warnings():
            certificates = tuple(x509.load_pem_x509_certificates(pem))
    except UNREADABLE:
        raise _malformed(tee, f"{what} in PEM, found bytes that are none") from None
    return read_chain([one.public_bytes(Encoding.DER) for one in certificates], tee=tee, what=what, own=own)


def _malformed(tee: str, words: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(f"expected {words}", finding_code=f"{tee}.certificate_format", tee=tee)


def judge_chain(
    chain: Sequence[x509.Certificate],
    roots: Sequence[PinnedRoot],
    *,
    tee: str,
    now: float,
    code: str = "chain",
    judged_of_leaf: frozenset[x509.ObjectIdentifier] = frozenset(),
) -> Iterator[Finding]:
    """Root pinned, and what `judge_links` looks at.

    Args:
        chain: from the leaf to the root, the root included.
        roots: any of which the last certificate may be.
        tee: the codes' first half: `<tee>.<code>_root`, `<tee>.<code>`, `<tee>.<code>_validity`.
        now: Unix seconds.
        code: tells this chain from another one of the same TEE.
        judged_of_leaf: extensions that the caller judges of the leaf, so that they may be critical in it.
    """
    root = next((root for root in roots if root.matches(chain[-1].public_bytes(Encoding.DER))), None)
    yield judge(
        holds=root is not None,
        code=f"{tee}.{code}_root",
        expected=" or ".join(root.name for root in roots),
        found=root.name if root else "a certificate that is not pinned",
        why=ROOT_WHY,
    )
    yield from judge_links(chain, tee=tee, now=now, code=code, judged_of_leaf=judged_of_leaf)


def judge_links(
    chain: Sequence[x509.Certificate],
    *,
    tee: str,
    now: float,
    code: str,
    judged_of_leaf: frozenset[x509.ObjectIdentifier],
) -> Iterator[Finding]:
    """Every link signed by the next, every issuer a CA, every certificate understood and valid at `now`.

    Whose root it is, is open. The arguments are those of `judge_chain`.
    """
    broken = next(_broken_links(chain, judged_of_leaf), "")
    yield judge(
        holds=not broken,
        code=f"{tee}.{code}",
        expected="each certificate signed by the next one, which is a CA",
        found=broken or f"{len(chain)} certificates, each signed by the next",
        why="Only keys that the vendor certified may vouch for a machine.",
    )
    outside = next((one for one in chain if not is_valid_at(one, now)), None)
    yield judge(
        holds=outside is None,
        code=f"{tee}.{code}_validity",
        expected=f"certificates valid at {utc_text(now)}",
        found=_lifetime(outside) if outside else "all of them valid",
        why="A vendor answers for a key only as long as its certificate says.",
        hint=f"check this machine's clock; if it is right, ask the operator for newer endorsements, or {FETCH_THEM}",
    )


def _broken_links(chain: Sequence[x509.Certificate], judged_of_leaf: frozenset[x509.ObjectIdentifier]) -> Iterator[str]:
    for depth, (child, issuer) in enumerate(itertools.pairwise([*chain, chain[-1]])):
        if not is_issued_by(child, issuer):
            yield f"certificate {depth} ({common_name(child)}) is not signed by the next"
        if depth > 0 and not _may_issue(child, depth - 1):
            yield f"certificate {depth} ({common_name(child)}) is no CA for {depth - 1} below it"
        if strange := strange_extension(child, judged_of_leaf if depth == 0 else frozenset()):
            yield f"certificate {depth} ({common_name(child)}) has a critical extension that is not known: {strange}"


def strange_extension(certificate: x509.Certificate, judged: frozenset[x509.ObjectIdentifier]) -> str:
    """The OID of a critical extension that nobody here judges, or nothing; it may forbid any use (RFC 5280 §4.2)."""
    known = _JUDGED | judged
    oids = (one.oid for one in certificate.extensions if one.critical and one.oid not in known)
    return next((oid.dotted_string for oid in oids), "")


# Kept, since a P-384 signature takes a millisecond and a vendor's own certificates come every time.
@functools.lru_cache(maxsize=256)
def is_issued_by(child: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer is the one that the child names, and signed it."""
    try:
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _may_issue(certificate: x509.Certificate, below: int) -> bool:
    """RFC 5280 §4.2.1.3 and §4.2.1.9; `below`: the CAs between it and the leaf."""
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return False
    if constraints.path_length is not None and constraints.path_length < below:
        return False
    usage = _extension(certificate, x509.KeyUsage)
    return usage is None or usage.key_cert_sign


def may_sign_crls(certificate: x509.Certificate) -> bool:
    """Whether a CA's key usage, if it has one, allows it to revoke (RFC 5280 §6.3.3 step f)."""
    usage = _extension(certificate, x509.KeyUsage)
    return usage is None or usage.crl_sign


def may_sign_data(certificate: x509.Certificate, purposes: frozenset[x509.ObjectIdentifier] = frozenset()) -> bool:
    """Whether a key is for signing data, and not for a CA or another purpose (RFC 5280 §4.2.1.3, .9 and .12).

    Args:
        certificate: the key's own.
        purposes: one of which an extended key usage must name; without any, none may be there but "any".
    """
    constraints, named = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.ExtendedKeyUsage)
    if constraints is not None and constraints.ca:
        return False
    if named is not None and (purposes | {ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}).isdisjoint(named):
        return False
    usage = _extension(certificate, x509.KeyUsage)
    return usage is None or usage.digital_signature


_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def is_valid_at(certificate: x509.Certificate, now: float) -> bool:
    """Whether the time, in Unix seconds, is within the certificate's own."""
    return certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp()


def _lifetime(certificate: x509.Certificate) -> str:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return f"{common_name(certificate)}, valid from {begin:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"


def common_name(certificate: x509.Certificate) -> str:
    """The subject's first common name, for messages."""
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else "without a common name"


def utc_text(seconds: float) -> str:
    """Unix seconds as `2026-11-25T01:02:03Z`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
