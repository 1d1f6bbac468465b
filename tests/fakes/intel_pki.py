"""A fake Intel's keys and certificates: its root, CAs, TCB signer, PCK certificates and revocation lists.

Leaves out: collateral and quotes (intel.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.roots import PinnedRoot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
NOW_S = NOW.timestamp()
YEAR = timedelta(days=365)
DAY = timedelta(days=1)

FMSPC, PCE_ID, PPID = bytes.fromhex("90c06f000000"), b"\0\0", b"P" * 16
COMPONENTS = (5,) * 16
PCE_SVN = 11


def key(number: int) -> ec.EllipticCurvePrivateKey:
    """The same key each time, one for each number."""
    return ec.derive_private_key(number, ec.SECP256R1())


ROOT, PLATFORM_CA, PCK, SIGNER, ATTESTATION, STRANGER = (key(number) for number in range(1, 7))


def name(common_name: str) -> x509.Name:
    """A subject of Intel's form."""
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Intel Corporation"),
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate is to say, and who signs it."""

    subject: str
    issuer: str
    subject_key: ec.EllipticCurvePrivateKey
    issuer_key: ec.EllipticCurvePrivateKey
    serial: int
    is_ca: bool = False
    path_length: int | None = None
    begin: datetime = NOW - YEAR
    end: datetime = NOW + YEAR
    sgx_extension: bytes | None = None
    usage: x509.KeyUsage | None = None

    def make(self) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.subject))
            .issuer_name(name(self.issuer))
            .public_key(self.subject_key.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
            .add_extension(x509.BasicConstraints(ca=self.is_ca, path_length=self.path_length), critical=True)
        )
        if self.sgx_extension is not None:
            oid = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, self.sgx_extension), critical=False)
        if self.usage is not None:
            builder = builder.add_extension(self.usage, critical=True)
        return builder.sign(self.issuer_key, SHA256())


ROOT_NAME, CA_NAME = "Intel SGX Root CA", "Intel SGX PCK Platform CA"
ROOT_CERTIFICATE = Certificate(
    subject=ROOT_NAME, issuer=ROOT_NAME, subject_key=ROOT, issuer_key=ROOT, serial=1, is_ca=True, path_length=1
)
CA_CERTIFICATE = Certificate(
    subject=CA_NAME, issuer=ROOT_NAME, subject_key=PLATFORM_CA, issuer_key=ROOT, serial=2, is_ca=True, path_length=0
)
SIGNER_CERTIFICATE = Certificate(
    subject="Intel SGX TCB Signing", issuer=ROOT_NAME, subject_key=SIGNER, issuer_key=ROOT, serial=3
)
PCK_CERTIFICATE = Certificate(
    subject="Intel SGX PCK Certificate", issuer=CA_NAME, subject_key=PCK, issuer_key=PLATFORM_CA, serial=4
)
ROOT_MADE, CA_MADE, SIGNER_MADE = ROOT_CERTIFICATE.make(), CA_CERTIFICATE.make(), SIGNER_CERTIFICATE.make()


def pinned(root: x509.Certificate = ROOT_MADE) -> tuple[PinnedRoot, ...]:
    """The fake root, for `verify(…, roots=pinned())`."""
    digest = hashlib.sha256(root.public_bytes(Encoding.DER)).digest()
    return (PinnedRoot(name="fake Intel", sha256=digest, source="tests"),)


def pem(*certificates: x509.Certificate) -> bytes:
    """Certificates as a quote and the PCS have them."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def crl(
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    serials: Sequence[int] = (),
    *,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + 30 * DAY,
) -> bytes:
    """A revocation list in DER."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(name(issuer)).last_update(begin).next_update(end)
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin).build()
        builder = builder.add_revoked_certificate(revoked)
    return builder.sign(issuer_key, SHA256()).public_bytes(Encoding.DER)


def sign(signer: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """ECDSA with SHA-256, as r ‖ s."""
    r, s = decode_dss_signature(signer.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


# --- the SGX extension of a PCK certificate ---------------------------------------------------------------------------


def der(tag: int, content: bytes) -> bytes:
    """One DER element, of less than 64 KiB."""
    size = len(content)
    head = bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + head + content


def integer(value: int) -> bytes:
    """An INTEGER of 0 or more."""
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def member(path: Sequence[int], value: bytes) -> bytes:
    """`SEQUENCE { OID, value }` under 1.2.840.113741.1.13.1."""
    return der(0x30, der(6, bytes.fromhex("2a864886f84d010d01") + bytes(path)) + value)


def sgx_members(
    *,
    fmspc: bytes = FMSPC,
    ppid: bytes = PPID,
    components: Sequence[int] = COMPONENTS,
    pce_svn: int = PCE_SVN,
    flags: Sequence[bool] | None = (True, True, True),
) -> dict[int, bytes]:
    """The members of the SGX extension by their number, each to be replaced at will."""
    tcb = [member((2, number), integer(svn)) for number, svn in enumerate(components, start=1)]
    tcb += [member((2, 17), integer(pce_svn)), member((2, 18), der(4, bytes(components)))]
    members = {
        1: member((1,), der(4, ppid)),
        2: member((2,), der(0x30, b"".join(tcb))),
        3: member((3,), der(4, PCE_ID)),
        4: member((4,), der(4, fmspc)),
        5: member((5,), der(0x0A, b"\1")),
    }
    if flags is not None:
        bits = (member((7, number), der(1, b"\xff" if flag else b"\0")) for number, flag in enumerate(flags, start=1))
        members |= {6: member((6,), der(4, b"I" * 16)), 7: member((7,), der(0x30, b"".join(bits)))}
    return members


def sgx_extension(members: Mapping[int, bytes]) -> bytes:
    """The whole extension."""
    return der(0x30, b"".join(members.values()))


def pck_certificate(extension: bytes | None = None, **changes: Any) -> x509.Certificate:
    """A PCK certificate, by the fake platform CA unless the changes say otherwise."""
    fields = {slot: getattr(PCK_CERTIFICATE, slot) for slot in Certificate.__slots__}
    extension = sgx_extension(sgx_members()) if extension is None else extension
    return Certificate(**{**fields, "sgx_extension": extension, **changes}).make()
