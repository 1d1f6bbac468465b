"""What vendors publish about their hardware: which document is asked for, what came, and how long it holds.

Nothing here decides about trust: every document is signed by its vendor, and attestation/ checks that.
A document is only read far enough to know that it is one, and when it ends (docs/spec/endorsements.md §1).
"""

from __future__ import annotations

import binascii
import enum
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import ocsp

from blindai.attestation.x509_chain import UNREADABLE
from blindai.wire import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DOCUMENT_BYTES = 4 << 20
RIM_LIFETIME_S = 24 * 3600.0  # a RIM says no end of its own; its signers' certificates are judged when it is used


class Service(enum.StrEnum):
    """Who publishes; a key of `Endpoints`, and of bundles."""

    AMD_KDS = "amd_kds"
    INTEL_PCS = "intel_pcs"
    NVIDIA_OCSP = "nvidia_ocsp"
    NVIDIA_RIM = "nvidia_rim"
    VENDOR_CRL = "vendor_crl"  # of whoever issued a TPM's certificates, at the address that those name


class Kind(enum.Enum):
    """What a document is, which says how to read it."""

    CERTIFICATE = "an X.509 certificate"
    CHAIN = "X.509 certificates in PEM"
    CRL = "a certificate revocation list"
    COLLATERAL = "TCB info or an enclave identity of Intel"
    OCSP = "an OCSP response"
    RIM = "a reference integrity manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One document of one service.

    Attributes:
        path: path and query, as its API names it; of `VENDOR_CRL` the whole address.
        post: what is posted there; empty means GET.
        issuer_header: the header in which the API sends the signers' certificates, if it does.
    """

    service: Service
    path: str
    kind: Kind
    post: bytes = b""
    issuer_header: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a service answered, in one encoding whatever was sent.

    Attributes:
        body: DER of certificates, revocation lists and OCSP responses; everything else as it came.
        issuers: certificates of the signers in PEM, if they came beside it.
        expires_at: when the issuer says that there will be a newer one, in Unix seconds.
    """

    body: bytes = field(repr=False)
    issuers: bytes = field(default=b"", repr=False)
    expires_at: float


class Source(Protocol):
    """Where documents come from: the vendors' services, a cache before them, or a bundle."""

    def get(self, resource: Resource, *, now: float) -> Document:
        """The document.

        Raises:
            MissingDocumentError: this source does not have it.
            EndorsementsUnavailableError: for another reason.
        """


def read_document(resource: Resource, body: bytes, *, issuers: bytes = b"", now: float) -> Document:
    """What an answer's bytes are.

    Raises:
        ValueError: not a document of that kind.
    """
    if len(body) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"expected at most {MAX_DOCUMENT_BYTES} bytes, found {len(body)}")
    try:
        normal, expires_at = _READERS[resource.kind](body, now)
        if issuers:
            expires_at = min(expires_at, _chain(issuers, now)[1])
    except (KeyError, *UNREADABLE):
        raise ValueError(f"expected {resource.kind.value}, found {len(body)} bytes that are none") from None
    return Document(body=normal, issuers=issuers, expires_at=expires_at)


def _certificate(body: bytes, _: float) -> tuple[bytes, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # the serial number of AMD's VCEKs is 0
        load = x509.load_pem_x509_certificate if body.startswith(b"-----") else x509.load_der_x509_certificate
        certificate = load(body)
    return certificate.public_bytes(Encoding.DER), certificate.not_valid_after_utc.timestamp()


def _chain(body: bytes, _: float) -> tuple[bytes, float]:
    certificates = x509.load_pem_x509_certificates(body)
    return body, min(certificate.not_valid_after_utc.timestamp() for certificate in certificates)


def _crl(body: bytes, _: float) -> tuple[bytes, float]:
    """DER as AMD's and Intel's services send it, PEM as Intel's can, hexadecimal digits as a PCCS does."""
    if body.startswith(b"-----"):
        crl = x509.load_pem_x509_crl(body)
    else:
        der = body if body.startswith((b"\x30\x81", b"\x30\x82", b"\x30\x83")) else bytes.fromhex(body.decode())
        crl = x509.load_der_x509_crl(der)
    if crl.next_update_utc is None:
        raise ValueError("a revocation list says when the next one comes")
    return crl.public_bytes(Encoding.DER), crl.next_update_utc.timestamp()


def _collateral(body: bytes, _: float) -> tuple[bytes, float]:
    """Kept byte for byte: the signature is over the exact bytes."""
    members: dict[str, Any] = strict_json(body, max_bytes=MAX_DOCUMENT_BYTES)
    inner = members["tcbInfo"] if "tcbInfo" in members else members["enclaveIdentity"]
    return body, utc_seconds(inner["nextUpdate"])


def _ocsp(body: bytes, _: float) -> tuple[bytes, float]:
    response = ocsp.load_der_ocsp_response(body)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise ValueError("the responder refused to answer")
    if response.next_update_utc is None:
        raise ValueError("an OCSP response says when the next one comes")
    return body, response.next_update_utc.timestamp()


def _rim(body: bytes, now: float) -> tuple[bytes, float]:
    """The service's JSON with the manifest in base64, of which the manifest is kept; or the manifest itself."""
    if not body.lstrip().startswith(b"{"):
        return _xml(body), now + RIM_LIFETIME_S
    members: dict[str, Any] = strict_json(body, max_bytes=MAX_DOCUMENT_BYTES)
    return _xml(binascii.a2b_base64(members["rim"], strict_mode=True)), now + RIM_LIFETIME_S


def _xml(body: bytes) -> bytes:
    if not body.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        raise ValueError("a manifest is XML")
    return body


def utc_seconds(text: str) -> float:
    """`2026-03-05T10:50:03Z` as Unix seconds.

    Raises:
        ValueError: anything else.
    """
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


_READERS: dict[Kind, Callable[[bytes, float], tuple[bytes, float]]] = {
    Kind.CERTIFICATE: _certificate,
    Kind.CHAIN: _chain,
    Kind.CRL: _crl,
    Kind.COLLATERAL: _collateral,
    Kind.OCSP: _ocsp,
    Kind.RIM: _rim,
}
