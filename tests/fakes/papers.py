"""Certificates, revocation lists and OCSP responses that look like a vendor's, for tests that only move them about."""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))  # its signatures are always the same
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a vendor")])
BEGIN = 1_700_000_000
DAY_S = 86_400


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def certificate(*, ends: float = BEGIN + 1000 * DAY_S) -> x509.Certificate:
    """Signed by itself."""
    builder = x509.CertificateBuilder(subject_name=NAME, issuer_name=NAME, public_key=KEY.public_key(), serial_number=7)
    return builder.not_valid_before(_time(BEGIN)).not_valid_after(_time(ends)).sign(KEY, None)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def crl(*, next_update: float = BEGIN + DAY_S, encoding: Encoding = Encoding.DER) -> bytes:
    builder = x509.CertificateRevocationListBuilder(issuer_name=NAME)
    builder = builder.last_update(_time(BEGIN)).next_update(_time(next_update))
    return builder.sign(KEY, None).public_bytes(encoding)


def ocsp_response(*, next_update: float | None = BEGIN + DAY_S) -> bytes:
    one = certificate()
    builder: Any = ocsp.OCSPResponseBuilder().add_response(
        cert=one,
        issuer=one,
        algorithm=hashes.SHA256(),
        cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=_time(BEGIN),
        next_update=None if next_update is None else _time(next_update),
        revocation_time=None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, one)
    response: bytes = builder.sign(KEY, None).public_bytes(Encoding.DER)
    return response


def ocsp_refusal() -> bytes:
    builder = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    return builder.public_bytes(Encoding.DER)


def tcb_info(*, next_update: float = BEGIN + 30 * DAY_S) -> bytes:
    return b'{"tcbInfo":{"nextUpdate":"%s"},"signature":"00"}' % f"{_time(next_update):%Y-%m-%dT%H:%M:%SZ}".encode()
