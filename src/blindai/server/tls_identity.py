"""The TLS key of this instance and its self-signed certificate: made at start, in memory only.

Below the sealed door it is hygiene; the pinned-TLS and gRPC doors rest on it, so the keyset names its public key.
Leaves out: who pins it (`client`), and what is served behind it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import ssl
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # to listen on, and no name to call a server by


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """One key and its certificate.

    Attributes:
        certificate_pem: self-signed.
        private_key_pem: PKCS #8; never written to a file.
        spki_sha256: SHA-256 of the SubjectPublicKeyInfo, as the keyset's `tls` names it.
    """

    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)
    spki_sha256: bytes

    def context(self) -> ssl.SSLContext:
        """TLS 1.3 only, without tickets and resumption; the key reaches OpenSSL through memory."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        descriptor = os.memfd_create("tls")
        try:
            os.write(descriptor, self.certificate_pem + self.private_key_pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return context


def make_tls_identity(host: str) -> TlsIdentity:
    """A new key, and a certificate for `host` and nobody's word behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TlsIdentity(
        certificate_pem=_self_signed(key, host).public_bytes(Encoding.PEM),
        private_key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        spki_sha256=hashlib.sha256(spki).digest(),
    )


def _self_signed(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "blindai")])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .sign(key, SHA256())
    )


def _names(host: str) -> list[x509.GeneralName]:
    """What gRPC's clients compare, though they pin the certificate: `host`, and this machine's names if it is one."""
    local = host in (*_THIS_MACHINE, *_EVERY_ADDRESS)
    return [_name(text) for text in dict.fromkeys((host, *_THIS_MACHINE) if local else (host,))]


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
