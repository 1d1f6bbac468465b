"""An AWS of our own: a root, its certificates down to one enclave, and documents that say whatever a test wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.roots import PinnedRoot

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOW = MADE.timestamp() + 10
MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef"
PROTECTED = cbor2.dumps({1: -35})

PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(  # noqa: PLR0913  # whatever a certificate can say
    name: str,
    issuer: Issued | None = None,
    *,
    key: PrivateKey | None = None,
    certified: CertificatePublicKeyTypes | None = None,
    begin: datetime = MADE - timedelta(minutes=5),
    lifetime: timedelta = timedelta(hours=3),
    path_length: int | None = 0,
    is_ca: bool = True,
    usage: str | None = "",
) -> Issued:
    """A certificate, signed by the issuer or by itself; a `+` in its name stands between two names.

    `certified` is another public key than `key`'s, whose owner can sign nothing here.
    `usage` is `key_cert_sign` for CAs unless said otherwise; there may be several.
    """
    key = key or ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one) for one in name.split("+") if one])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(certified or key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + lifetime)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length if is_ca else None), critical=True)
    )
    if usage is not None:
        chosen = usage or ("key_cert_sign" if is_ca else "digital_signature")
        builder = builder.add_extension(_key_usage(chosen), critical=True)
    return Issued(certificate=builder.sign(issuer.key if issuer else key, hashes.SHA384()), key=key)


def _key_usage(chosen: str) -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{name: name in chosen.split() for name in names})


ROOT = issue(
    "aws.nitro-enclaves", begin=datetime(2019, 10, 28, tzinfo=UTC), lifetime=timedelta(days=9000), path_length=3
)
REGION = issue("fake.us-east-1.aws.nitro-enclaves", ROOT, lifetime=timedelta(days=20), path_length=2)
ZONE = issue("fake.zonal.us-east-1.aws.nitro-enclaves", REGION, lifetime=timedelta(days=6), path_length=1)
INSTANCE = issue("i-0123456789abcdef0.us-east-1.aws.nitro-enclaves", ZONE, lifetime=timedelta(days=1), path_length=0)
LEAF = issue(f"{MODULE_ID}.us-east-1.aws", INSTANCE, is_ca=False)
ROOTS = (PinnedRoot(name="fake AWS", sha256=ROOT.certificate.fingerprint(hashes.SHA256()), source="this file"),)


def pcr(index: int) -> bytes:
    """What a good enclave's PCR holds; 16 to 31 are the enclave's own and not there."""
    return bytes([index + 1]) * 48 if index in {0, 1, 2, 3, 4, 8} else bytes(48)


@dataclass(kw_only=True)
class Enclave:
    """One enclave, and everything that its document can say.

    Attributes:
        bundle: from the root to the leaf's issuer.
        members: what the document says otherwise than a good one; a member that is `...` is left out.
    """

    leaf: Issued = LEAF
    bundle: tuple[Issued, ...] = (ROOT, REGION, ZONE, INSTANCE)
    user_data: bytes | None = bytes(range(64))
    members: dict[str, Any] = field(default_factory=dict)
    protected: Any = PROTECTED
    unprotected: Any = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """The document's members."""
        members: dict[str, Any] = {
            "module_id": MODULE_ID,
            "digest": "SHA384",
            "timestamp": round(MADE.timestamp() * 1000),
            "pcrs": {index: pcr(index) for index in range(16)},
            "certificate": self.leaf.der,
            "cabundle": [one.der for one in self.bundle],
            "public_key": None,
            "user_data": self.user_data,
            "nonce": None,
        }
        return {name: value for name, value in (members | self.members).items() if value is not ...}

    def document(self, *, tagged: bool = False) -> bytes:
        """The signed document."""
        return self.sign(cbor2.dumps(self.payload()), tagged=tagged)

    def sign(self, payload: Any, *, tagged: bool = False) -> bytes:
        """Any payload, signed."""
        signed = cbor2.dumps(["Signature1", self.protected, b"", payload])
        envelope = [self.protected, self.unprotected, payload, self.signature(signed)]
        return cbor2.dumps(cbor2.CBORTag(18, envelope) if tagged else envelope)

    def signature(self, signed: bytes) -> bytes:
        """Two numbers, r and s, each as long as a number of the key's curve."""
        half = (self.leaf.key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(self.leaf.key.sign(signed, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(half, "big") + s.to_bytes(half, "big")

    def item(self) -> EvidenceItem:
        """The document as evidence."""
        return EvidenceItem(tee="nitro", evidence=self.document(), endorsements=())


def indefinite(members: dict[str, Any]) -> bytes:
    """A map of indefinite length, as newer hypervisors send it."""
    return b"\xbf" + b"".join(cbor2.dumps(name) + cbor2.dumps(value) for name, value in members.items()) + b"\xff"
