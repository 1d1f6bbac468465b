"""From an endorsement key's certificate to its maker's root: what a server staples beside it (docs/spec/tee/tpm.md §2).

The TPM keeps the certificate itself; the CAs above it, and their revocation lists, are the operator's to give.
Leaves out: whether any of it is to be trusted, which is for the verifier to say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.tpm2.certificates import MAX_CRLS, MAX_INTERMEDIATES
from blindai.attestation.x509_chain import UNREADABLE, is_issued_by
from blindai.errors import AttesterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_ISSUERS_BYTES = 1 << 20
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


def ek_endorsements(certificate: bytes, issuers: Path) -> tuple[tuple[str, bytes], ...]:
    """The endorsements of an EK: its certificate, those above it up to the root, and their revocation lists.

    Args:
        certificate: the EK's, in DER.
        issuers: a file of certificates and revocation lists in PEM, in any order; others may stand there, too.

    Raises:
        AttesterError: the file cannot be read, or does not lead from this certificate to a root.
    """
    pem = _read(issuers)
    try:
        leaf = x509.load_der_x509_certificate(certificate)
        known = [x509.load_pem_x509_certificate(one) for one in _CERTIFICATE.findall(pem)]
        crls = [x509.load_pem_x509_crl(one) for one in _CRL.findall(pem)]
        chain = tuple(_chain(leaf, known))
    except UNREADABLE:
        raise AttesterError(f"{issuers}: a certificate or revocation list in it, or the TPM's own, is none") from None
    if not chain or not is_issued_by(chain[-1], chain[-1]):
        last = (chain or (leaf,))[-1].issuer.rfc4514_string()
        raise AttesterError(
            f"{issuers} does not lead from the TPM's EK certificate to a root: the certificate of {last} is missing",
            hint="the TPM's maker publishes its CAs; put all of them, up to the root, into this file in PEM",
        )
    return tuple(_named(certificate, chain, [crl for crl in crls if crl.issuer in {one.subject for one in chain}]))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_ISSUERS_BYTES + 1)
    except OSError as error:
        raise AttesterError(f"the issuers of the TPM's EK cannot be read: {path}: {error.strerror}") from None
    if len(pem) > MAX_ISSUERS_BYTES:
        raise AttesterError(f"{path} has more than {MAX_ISSUERS_BYTES} bytes")
    return pem


def _chain(leaf: x509.Certificate, known: Sequence[x509.Certificate]) -> Iterator[x509.Certificate]:
    """Each issuer after what it issued, as many as a verifier reads."""
    last = leaf
    for _ in range(MAX_INTERMEDIATES + 1):
        issuer = next((one for one in known if is_issued_by(last, one)), None)
        if issuer is None:
            return
        yield issuer
        if issuer.issuer == issuer.subject:
            return
        last = issuer


def _named(
    certificate: bytes, chain: Sequence[x509.Certificate], crls: Sequence[x509.CertificateRevocationList]
) -> Iterator[tuple[str, bytes]]:
    *intermediates, root = (one.public_bytes(Encoding.DER) for one in chain)
    yield "ek_certificate", certificate
    yield from ((f"ek_intermediate_{number}", one) for number, one in enumerate(intermediates, 1))
    yield "ek_root", root
    for number, crl in enumerate(crls[:MAX_CRLS], 1):
        yield f"ek_crl_{number}", crl.public_bytes(Encoding.DER)
