"""A Sigstore of one's own: a certificate authority, two logs, a trusted root, and bundles for anything.

Synthetic throughout: forms follow Sigstore's bundle v0.3 and trusted root v0.1, RFC 6962 for the certificate's log, and
Rekor v1 (`hashedrekord` 0.0.1) for the signature's, with a tree of one leaf.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_ISSUER_OID = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_SCT_LIST_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ORIGIN = "log.example.org - 1"
_SIGNED_AT = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


def _key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def _spki(key: EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _log_id(key: EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(_spki(key)).digest()


def _sign(key: EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ECDSA(SHA256()))


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _octet_string(data: bytes) -> bytes:
    short = 128  # bytes: a longer one's length has a length of its own, and this list is shorter than 256
    return (b"\x04" if len(data) < short else b"\x04\x81") + len(data).to_bytes(1, "big") + data


@dataclass(frozen=True, slots=True)
class SigstoreWorld:
    """Everybody who must sign for a bundle to verify; each world trusts only itself."""

    authority: EllipticCurvePrivateKey = field(default_factory=_key, repr=False)
    certificate_log: EllipticCurvePrivateKey = field(default_factory=_key, repr=False)
    signature_log: EllipticCurvePrivateKey = field(default_factory=_key, repr=False)

    def trusted_root(self) -> bytes:
        """`trusted_root.json`."""
        validity = {"start": "2025-01-01T00:00:00Z"}
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_log(self.signature_log, "https://log.example.org", validity)],
            "ctlogs": [_log(self.certificate_log, "https://ct.example.org", validity)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "example.org", "commonName": "authority"},
                    "uri": "https://authority.example.org",
                    "certChain": {"certificates": [{"rawBytes": _text(self._root().public_bytes(Encoding.DER))}]},
                    "validFor": validity,
                }
            ],
            "timestampAuthorities": [],
        }
        return json.dumps(root).encode()

    def bundle(self, data: bytes, *, identity: str, issuer: str) -> bytes:
        """A bundle that says: this identity, by word of this issuer, signed these bytes."""
        key = _key()
        certificate = self._certificate(key, identity, issuer)
        signature, digest = _sign(key, data), hashlib.sha256(data).digest()
        body = {
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
                "signature": {
                    "content": _text(signature),
                    "publicKey": {"content": _text(certificate.public_bytes(Encoding.PEM))},
                },
            },
        }
        whole = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": _text(certificate.public_bytes(Encoding.DER))},
                "tlogEntries": [self._entry(json.dumps(body, separators=(",", ":")).encode())],
            },
            "messageSignature": {
                "messageDigest": {"algorithm": "SHA2_256", "digest": _text(digest)},
                "signature": _text(signature),
            },
        }
        return json.dumps(whole).encode()

    def _root(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        builder = _builder(name, name, self.authority, serial=1, days=3650)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key())
        return builder.add_extension(identifier, critical=False).sign(self.authority, SHA256())

    def _certificate(self, key: EllipticCurvePrivateKey, identity: str, issuer: str) -> x509.Certificate:
        root = self._root()
        builder = _builder(x509.Name([]), root.subject, key, serial=2, days=0)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key())
        builder = builder.add_extension(authority, critical=False)
        builder = builder.add_extension(x509.UnrecognizedExtension(_ISSUER_OID, issuer.encode()), critical=False)
        before = self._with_timestamp(builder, bytes(72))  # the log signs all but its own word
        return self._with_timestamp(builder, self._timestamp_signature(before.tbs_precertificate_bytes))

    def _with_timestamp(self, builder: x509.CertificateBuilder, signature: bytes) -> x509.Certificate:
        milliseconds = int(_SIGNED_AT.timestamp() * 1000).to_bytes(8, "big")
        head = b"\0" + _log_id(self.certificate_log) + milliseconds + bytes(2) + b"\x04\x03"
        one = head + len(signature).to_bytes(2, "big") + signature
        listed = len(one).to_bytes(2, "big") + one
        value = _octet_string(len(listed).to_bytes(2, "big") + listed)
        extension = x509.UnrecognizedExtension(_SCT_LIST_OID, value)
        return builder.add_extension(extension, critical=False).sign(self.authority, SHA256())

    def _timestamp_signature(self, certificate: bytes) -> bytes:
        milliseconds = int(_SIGNED_AT.timestamp() * 1000).to_bytes(8, "big")
        entry = _log_id(self.authority) + len(certificate).to_bytes(3, "big") + certificate
        return _sign(self.certificate_log, b"\0\0" + milliseconds + b"\0\1" + entry + bytes(2))

    def _entry(self, body: bytes) -> dict[str, Any]:
        log_id, at = _log_id(self.signature_log), int(_SIGNED_AT.timestamp())
        promise = {"body": _text(body), "integratedTime": at, "logID": log_id.hex(), "logIndex": 0}
        promised = json.dumps(promise, sort_keys=True, separators=(",", ":")).encode()
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"{_ORIGIN}\n1\n{_text(root)}\n"
        signed = _text(log_id[:4] + _sign(self.signature_log, note.encode()))
        return {
            "logIndex": "0",
            "logId": {"keyId": _text(log_id)},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.1"},
            "integratedTime": str(at),
            "inclusionPromise": {"signedEntryTimestamp": _text(_sign(self.signature_log, promised))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _text(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 {_ORIGIN.partition(' ')[0]} {signed}\n"},
            },
            "canonicalizedBody": _text(body),
        }


def _log(key: EllipticCurvePrivateKey, url: str, validity: dict[str, str]) -> dict[str, Any]:
    public = {"rawBytes": _text(_spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": validity}
    return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": {"keyId": _text(_log_id(key))}}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, *, serial: int, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_SIGNED_AT - dt.timedelta(days=days, minutes=5))
        .not_valid_after(_SIGNED_AT + dt.timedelta(days=days, minutes=5))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
