"""An AMD that signs anything: reports, VCEKs and VLEKs with every extension, chains and revocation lists.

`FakeMachine` is a good machine, and each of its fields can be another. Keys are RSA-2048, made once a session.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.roots import PinnedRoot

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
PSS = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)
AMD = "1.3.6.1.4.1.3704.1"
INDIRECT = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=False,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=True,
    only_contains_attribute_certs=False,
)
CHIP = {"Milan": bytes(range(64)), "Genoa": bytes(range(64)), "Turin": bytes(range(8))}

# Field: offset and size, as in AMD document 56860 revision 1.58, table ATTESTATION_REPORT.
FIELDS = {
    "version": (0x000, 4),
    "guest_svn": (0x004, 4),
    "policy": (0x008, 8),
    "family_id": (0x010, 16),
    "image_id": (0x020, 16),
    "vmpl": (0x030, 4),
    "signature_algo": (0x034, 4),
    "current_tcb": (0x038, 8),
    "platform_info": (0x040, 8),
    "key_info": (0x048, 4),
    "report_data": (0x050, 64),
    "measurement": (0x090, 48),
    "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48),
    "author_key_digest": (0x110, 48),
    "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32),
    "reported_tcb": (0x180, 8),
    "cpuid": (0x188, 3),
    "chip_id": (0x1A0, 64),
    "committed_tcb": (0x1E0, 8),
    "current_version": (0x1E8, 3),
    "committed_version": (0x1EC, 3),
    "launch_tcb": (0x1F0, 8),
    "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8),
}
CPUID = {"Milan": b"\x19\x01\x01", "Genoa": b"\x19\x11\x01", "Turin": b"\x1a\x02\x01"}
FIRMWARE = {"Milan": b"\x23\x37\x01", "Genoa": b"\x31\x37\x01", "Turin": b"\x41\x37\x01"}
TCB = {
    "Milan": {"bootloader": 4, "tee": 0, "snp": 0x1B, "microcode": 0xDE},
    "Genoa": {"bootloader": 10, "tee": 0, "snp": 0x1B, "microcode": 0x56},
    "Turin": {"fmc": 1, "bootloader": 1, "tee": 1, "snp": 4, "microcode": 0x50},
}


@functools.cache
def rsa_key(_name: str) -> rsa.RSAPrivateKey:
    """One key per name and session."""
    return rsa.generate_private_key(65537, 2048)


@functools.cache
def ec_key(_name: str, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> ec.EllipticCurvePrivateKey:
    """One key per name and session."""
    return ec.generate_private_key(curve())


def tcb_bytes(product: str, levels: Mapping[str, int]) -> bytes:
    """A TCB version in the product's layout."""
    if product == "Turin":
        return bytes([levels["fmc"], levels["bootloader"], levels["tee"], levels["snp"], 0, 0, 0, levels["microcode"]])
    return bytes([levels["bootloader"], levels["tee"], 0, 0, 0, 0, levels["snp"], levels["microcode"]])


def der(tag: int, content: bytes) -> bytes:
    """A short DER value."""
    return bytes((tag, len(content))) + content


def integer(value: int) -> bytes:
    """A DER INTEGER."""
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def vek_extensions(
    product: str, key: str, levels: Mapping[str, int], csp_id: str = "CN=cloud.example"
) -> dict[str, bytes]:
    """AMD's extensions by the last part of their OID, as AMD's server writes them."""
    is_turin = product == "Turin"
    name = product + "-B0" if product == "Milan" and key == "VCEK" else product
    return {
        "1": integer(1 if is_turin else 0),
        "2": der(0x16, name.encode()),
        **({"3.9": integer(levels["fmc"])} if is_turin else {"3.4": integer(0)}),
        "3.1": integer(levels["bootloader"]),
        "3.2": integer(levels["tee"]),
        "3.3": integer(levels["snp"]),
        **{f"3.{place}": integer(0) for place in (5, 6, 7)},
        "3.8": integer(levels["microcode"]),
        **({"4": CHIP[product]} if key == "VCEK" else {"5": der(0x16, csp_id.encode())}),
    }


def name(common_name: str) -> x509.Name:
    """A name of AMD's form."""
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    )


def certificate(
    subject: str,
    issuer: str,
    *,
    public_key: Any,
    signer: rsa.RSAPrivateKey,
    serial: int,
    lifetime: tuple[datetime, datetime] = (NOW - YEAR, NOW + YEAR),
    extensions: Mapping[str, bytes] | None = None,
) -> bytes:
    """A certificate in DER, signed with RSA-PSS; a CA's if it has no extensions of AMD's; serial 0 is possible."""
    builder = x509.CertificateBuilder(
        subject_name=name(subject),
        issuer_name=name(issuer),
        public_key=public_key,
        serial_number=serial or 1,
        not_valid_before=lifetime[0],
        not_valid_after=lifetime[1],
    )
    if extensions is None:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for oid, value in (extensions or {}).items():
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{AMD}.{oid}"), value)
        builder = builder.add_extension(unknown, critical=False)
    made = builder.sign(signer, SHA384(), rsa_padding=PSS)
    return made.public_bytes(Encoding.DER) if serial else _with_serial_0(made, signer)


def _with_serial_0(made: x509.Certificate, signer: rsa.RSAPrivateKey) -> bytes:
    """The same certificate with the serial number that AMD gives to VCEKs, which no builder accepts."""
    old = made.tbs_certificate_bytes
    new = old.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x01", b"\xa0\x03\x02\x01\x02\x02\x01\x00", 1)
    signature = signer.sign(new, PSS, SHA384())
    return made.public_bytes(Encoding.DER).replace(old, new).replace(made.signature, signature)


def revocation_list(
    product: str,
    *,
    serials: Iterable[int] = (),
    updates: tuple[datetime, datetime] = (NOW - timedelta(days=1), NOW + timedelta(days=30)),
    issuer: str = "",
    signer: str = "",
    critical: bool = False,
) -> bytes:
    """The ARK's CRL in DER; a critical one says that it is indirect."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name(issuer or f"ARK-{product}"))
        .last_update(updates[0])
        .next_update(updates[1])
        .add_extension(x509.CRLNumber(7), critical=False)
    )
    if critical:
        builder = builder.add_extension(INDIRECT, critical=True)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=updates[0]).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(rsa_key(signer or f"ARK-{product}"), SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeMachine:
    """A machine whose evidence is good under the preset `strict`, unless a field says otherwise.

    Attributes:
        fields: of the report, by name: numbers or bytes.
        patches: bytes put over the report at an offset, before it is signed; `unsigned` ones after.
        extensions: of the VEK's certificate, by the last part of the OID; None leaves one out.
        names: subject of `vek`, `intermediate` or `root`; issuers follow.
        signers: name of the key that signs `vek`, `intermediate` or `root`, or the report, instead of the right one.
        lifetimes: of `vek`, `intermediate` or `root`.
        crl: arguments of `revocation_list`; None leaves it out.
    """

    product: str = "Genoa"
    key: str = "VCEK"
    fields: Mapping[str, int | bytes] = field(default_factory=dict)
    patches: Mapping[int, bytes] = field(default_factory=dict)
    unsigned: Mapping[int, bytes] = field(default_factory=dict)
    extensions: Mapping[str, bytes | None] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    signers: Mapping[str, str] = field(default_factory=dict)
    lifetimes: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    vek_curve: type[ec.EllipticCurve] = ec.SECP384R1
    vek_serial: int = 0
    crl: Mapping[str, Any] | None = field(default_factory=dict)

    def report(self) -> bytes:
        """The report, signed."""
        levels = tcb_bytes(self.product, TCB[self.product])
        values: dict[str, int | bytes] = {
            "version": 5,
            "policy": 0x30000,
            "signature_algo": 1,
            "platform_info": 0x25,
            "key_info": 0 if self.key == "VCEK" else 4,
            "measurement": b"m" * 48,
            "report_data": b"d" * 64,
            "report_id_ma": b"\xff" * 32,
            **dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), levels),
            "cpuid": CPUID[self.product],
            "chip_id": CHIP[self.product].ljust(64, b"\0") if self.key == "VCEK" else bytes(64),
            "current_version": FIRMWARE[self.product],
            "committed_version": FIRMWARE[self.product],
            "launch_mit_vector": 0x0B,
            "current_mit_vector": 0x0B,
            **self.fields,
        }
        raw = bytearray(0x4A0)
        for field_name, value in values.items():
            offset, size = FIELDS[field_name]
            raw[offset : offset + size] = value.to_bytes(size, "little") if isinstance(value, int) else value
        _patch(raw, self.patches)
        signer = ec_key(self.signers.get("report", "vek"), self.vek_curve)
        r, s = decode_dss_signature(signer.sign(bytes(raw[:0x2A0]), ec.ECDSA(SHA384())))
        raw[0x2A0:0x2E8], raw[0x2E8:0x330] = r.to_bytes(72, "little"), s.to_bytes(72, "little")
        _patch(raw, self.unsigned)
        return bytes(raw)

    def chain(self) -> dict[str, bytes]:
        """The certificates by the names of their endorsements."""
        middle = f"SEV-{self.product}" if self.key == "VCEK" else f"SEV-VLEK-{self.product}"
        right = {"vek": f"SEV-{self.key}", "intermediate": middle, "root": f"ARK-{self.product}"}
        names = {**right, **self.names}
        signers = {"vek": right["intermediate"], "intermediate": right["root"], "root": right["root"], **self.signers}
        issuers = {"vek": names["intermediate"], "intermediate": names["root"], "root": names["root"]}
        keys: dict[str, Any] = {
            "vek": ec_key("vek", self.vek_curve),
            "intermediate": rsa_key(right["intermediate"]),
            "root": rsa_key(right["root"]),
        }
        given = vek_extensions(self.product, self.key, TCB[self.product]) | dict(self.extensions)
        of_vek = {oid: value for oid, value in given.items() if value is not None}
        return {
            role: certificate(
                names[role],
                issuers[role],
                public_key=keys[role].public_key(),
                signer=rsa_key(signers[role]),
                serial={"vek": self.vek_serial, "intermediate": 0x20002, "root": 0x20000}[role],
                lifetime=self.lifetimes.get(role, (NOW - YEAR, NOW + YEAR)),
                extensions=of_vek if role == "vek" else None,
            )
            for role in ("vek", "intermediate", "root")
        }

    def item(self) -> EvidenceItem:
        """The report with its endorsements."""
        endorsements = self.chain()
        if self.crl is not None:
            endorsements["crl"] = revocation_list(self.product, **self.crl)
        return EvidenceItem(tee="sev_snp", evidence=self.report(), endorsements=tuple(endorsements.items()))


def _patch(raw: bytearray, patches: Mapping[int, bytes]) -> None:
    for offset, data in patches.items():
        raw[offset : offset + len(data)] = data


def pinned(item: EvidenceItem) -> tuple[PinnedRoot, ...]:
    """The root of this evidence, trusted."""
    root = dict(item.endorsements)["root"]
    return (PinnedRoot(name="a fake ARK", sha256=hashlib.sha256(root).digest(), source="tests/fakes/amd.py"),)
