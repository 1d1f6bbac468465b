"""An NVIDIA of our own, that certifies any device, signs any report and RIM, and answers anything about a certificate.

Everything has a good default and can be another: fields of a report, certificates, RIMs and their signatures, answers.
Leaves out: what real hardware does beyond the formats (tests/attestation/test_nvidia_gpu_samples.py).
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.roots import PinnedRoot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Key = ec.EllipticCurvePrivateKey
NOW = datetime(2026, 6, 1, tzinfo=UTC)
BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
NONCE = bytes(range(32))
FWID = hashlib.sha384(b"firmware").digest()
HOPPER_FWID, BLACKWELL_FWID = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
_SHA384_OID = bytes.fromhex("303d06096086480165030402020430")
MEASUREMENTS = tuple(hashlib.sha384(bytes([index])).digest() for index in range(64))
# Opaque fields by NVIDIA's numbers, as an H100 with driver 580 has them.
HOPPER: dict[int, bytes] = {
    6: bytes.fromhex("009f009601000000"),
    14: bytes.fromhex("b1030000"),
    15: b"882\0\0\0\0\0\0",
    17: b"1010\0",
    18: b"0200\0",
    3: b"580.178.04\0",
    4: bytes.fromhex("8001000000000000"),
    11: b"\xaa",
    20: FWID,
    21: b"\x55",
    34: b"\1\0",
    36: b"\0\0",
}
BLACKWELL = {**{kind: value for kind, value in HOPPER.items() if kind != 21}, 35: b"GB100\0", 36: b"\1\0"}
DRIVER, VBIOS = "580.178.04", "96.00.9F.00.01"


@functools.cache
def key(name: str) -> Key:
    """One key per name: making them is slow, and nothing depends on which they are."""
    assert name
    return ec.generate_private_key(ec.SECP384R1())


def name_of(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def certify(
    subject: str,
    *,
    by: str,
    is_ca: bool = True,
    subject_key: Any = None,
    serial: int = 7,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    begin: datetime = BEGIN,
    end: datetime = END,
) -> x509.Certificate:
    """A certificate for the key of that name, signed by the key of the other name."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(name_of(by))
        .public_key(subject_key or key(subject).public_key())
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(key(by), SHA384())


@functools.cache
def root(name: str) -> x509.Certificate:
    return certify(name, by=name)


def pinned(certificate: x509.Certificate) -> PinnedRoot:
    der = certificate.public_bytes(Encoding.DER)
    return PinnedRoot(name="a root of our own", sha256=hashlib.sha256(der).digest(), source="made by the test")


def fwid_extension(fwid: bytes = FWID, *, oid: str = HOPPER_FWID) -> x509.UnrecognizedExtension:
    """Hopper's ends with the identifier; Blackwell's has two of them in a list, and something after it."""
    if oid == BLACKWELL_FWID:
        value = b"\x30\x81\x88\xa6\x7e" + _SHA384_OID + fwid + _SHA384_OID + bytes(48) + b"\x87\x02\0\0"
    else:
        value = b"\x30\x81\xba\2\1\1" + _SHA384_OID + fwid
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def leaf_certificate(
    chip: str = "GH100", *, fwid: x509.UnrecognizedExtension | None = None, public_key: Any = None
) -> x509.Certificate:
    """The firmware's own, which the boot ROM signs."""
    extension = fwid or fwid_extension(oid=BLACKWELL_FWID if chip.startswith("GB") else HOPPER_FWID)
    return certify(
        f"{chip} A01 GSP FMC LF",
        by=f"{chip} A01 GSP BROM",
        is_ca=False,
        serial=0x53C22BA15E5D68088282DA074ED9FB37AA585771,
        extensions=[(extension, False)],
        subject_key=public_key,
    )


@functools.cache
def device_chain(chip: str = "GH100", *, serial: int = 0x41431D480FE5E87274) -> tuple[x509.Certificate, ...]:
    """Firmware, boot ROM, provisioner, family, root."""
    rom, provisioner, family = f"{chip} A01 GSP BROM", f"{chip} Provisioner", f"{chip} Identity"
    return (
        leaf_certificate(chip),
        certify(rom, by=provisioner, serial=serial),
        certify(provisioner, by=family),
        certify(family, by="Device root"),
        root("Device root"),
    )


def with_leaf(leaf: x509.Certificate, chip: str = "GH100") -> tuple[x509.Certificate, ...]:
    return (leaf, *device_chain(chip)[1:])


RIM_CHAIN_NAMES = ("RIM signer", "Reference values L3", "Reference values", "RIM root")


@functools.cache
def rim_chain() -> tuple[x509.Certificate, ...]:
    signer, lower, upper, top = RIM_CHAIN_NAMES
    return (
        certify(signer, by=lower, is_ca=False),
        certify(lower, by=upper),
        certify(upper, by=top),
        root(top),
    )


def raw_signature(signer: Key, data: bytes) -> bytes:
    r, s = decode_dss_signature(signer.sign(data, ec.ECDSA(SHA384())))
    size = (signer.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def opaque_data(fields: Mapping[int, bytes]) -> bytes:
    return b"".join(
        kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value for kind, value in fields.items()
    )


def block(index: int, value: bytes, *, value_type: int = 1, specification: int = 1) -> bytes:
    inner = bytes([value_type]) + len(value).to_bytes(2, "little") + value
    return bytes([index, specification]) + len(inner).to_bytes(2, "little") + inner


def unsigned_report(
    *,
    opaque: bytes = opaque_data(HOPPER),
    record: bytes | None = None,
    count: int | None = None,
    nonce: bytes = NONCE,
    request: bytes = b"\x11\xe0\1\xff",
    response: bytes = b"\x11\x60\0\0",
    slot: int = 0,
) -> bytes:
    """Request ‖ response up to the signature."""
    blocks = [block(index, value) for index, value in enumerate(MEASUREMENTS, start=1)]
    record = b"".join(blocks) if record is None else record
    head = request + nonce + bytes([slot]) + response + bytes([len(blocks) if count is None else count])
    return head + len(record).to_bytes(3, "little") + record + bytes(32) + len(opaque).to_bytes(2, "little") + opaque


def report(*, chip: str = "GH100", signer: Key | None = None, **fields: Any) -> bytes:
    unsigned = unsigned_report(**fields)
    return unsigned + raw_signature(signer or key(f"{chip} A01 GSP FMC LF"), unsigned)


SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
DS = "http://www.w3.org/2000/09/xmldsig#"


def resource(index: int, digests: Sequence[bytes], *, active: str = "True") -> str:
    hashes = " ".join(f'ns2:Hash{number}="{digest.hex()}"' for number, digest in enumerate(digests))
    return (
        f'<ns0:Resource type="Measurement" index="{index}" active="{active}" alternatives="{len(digests)}" '
        f'{hashes} name="Measurement_{index}" size="48"/>'
    )


def rim_content(*, product: str = "GH100", version: str = DRIVER, resources: str) -> str:
    return (
        f'<SoftwareIdentity xmlns="{SWID}" xmlns:ns0="{SWID}" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" '
        f'name="{product}" tagId="1">\n    <ns0:Entity name="NVIDIA Corporation" role="softwareCreator tagCreator"/>\n'
        f'    <ns0:Meta colloquialVersion="{version}" edition="GPU" product="{product}"/>\n'
        f"    <ns0:Payload>{resources}</ns0:Payload>\n</SoftwareIdentity>"
    )


def golden(indexes: Sequence[int], measurements: Sequence[bytes] = MEASUREMENTS) -> str:
    """Active resources with two alternatives, the second of which is right, and an inactive one."""
    active = "".join(resource(index, [bytes(48), measurements[index]]) for index in indexes)
    return active + resource(200, [bytes(48)], active="False")


def signed_rim(
    content: str,
    *,
    chain: Sequence[x509.Certificate] | None = None,
    signer: Key | None = None,
    change_signed_info: Callable[[str], str] = str,
) -> bytes:
    """The content with an enveloped signature, by lxml's own canonical form and not by the library under test."""
    from lxml import etree  # type: ignore[import-untyped]

    digest = hashlib.sha384(etree.tostring(etree.fromstring(content), method="c14n")).digest()
    c14n = "http://www.w3.org/2006/12/xml-c14n11"
    signed_info = change_signed_info(
        f'<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{c14n}"/>'
        '<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"/><ds:Reference URI="">'
        f'<ds:Transforms><ds:Transform Algorithm="{DS}enveloped-signature"/><ds:Transform Algorithm="{c14n}"/>'
        '</ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/>'
        f"<ds:DigestValue>{base64.b64encode(digest).decode()}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
    )
    certificates = "".join(
        f"<ds:X509Certificate>{base64.encodebytes(one.public_bytes(Encoding.DER)).decode()}</ds:X509Certificate>"
        for one in chain or rim_chain()
    )

    def document(value: str) -> str:
        signature = (
            f'<ds:Signature xmlns:ds="{DS}">{signed_info}<ds:SignatureValue>{value}</ds:SignatureValue>'
            f"<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        )
        return content.replace("</SoftwareIdentity>", signature + "</SoftwareIdentity>")

    unsigned = etree.fromstring(document("AAAA")).find(f"{{{DS}}}Signature")
    alone = etree.fromstring(etree.tostring(unsigned)).find(f"{{{DS}}}SignedInfo")
    value = raw_signature(signer or key(RIM_CHAIN_NAMES[0]), etree.tostring(alone, method="c14n"))
    return document(base64.b64encode(value).decode()).encode()


DRIVER_INDEXES, VBIOS_INDEXES = (1, 5, 35), (2, 3, 63)


def driver_rim(product: str = "GH100") -> bytes:
    return signed_rim(rim_content(product=product, resources=golden(DRIVER_INDEXES)))


def vbios_rim(product: str = "GH100") -> bytes:
    return signed_rim(rim_content(product=product, version=VBIOS, resources=golden(VBIOS_INDEXES)))


OCSP_SIGNING = ((x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING]), False),)


def responder_of(issuer: str, **changes: Any) -> x509.Certificate:
    return certify(f"Responder of {issuer}", **{"by": issuer, "is_ca": False, "extensions": OCSP_SIGNING, **changes})


def answer(  # noqa: PLR0913  # everything that a responder can say
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    *,
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD,
    reason: x509.ReasonFlags | None = None,
    begins: datetime = NOW - timedelta(hours=1),
    ends: datetime | None = NOW + timedelta(hours=23),
    responder: x509.Certificate | None = None,
    signer: Key | None = None,
    algorithm: Any = None,
    signed_with: Any = None,
    by_name: bool = False,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """An OCSP answer by the issuer's responder, or by whoever is given."""
    common_name = str(issuer.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
    responder = responder or responder_of(common_name)
    is_revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=certificate,
            issuer=issuer,
            algorithm=algorithm or SHA384(),
            cert_status=status,
            this_update=begins,
            next_update=ends,
            revocation_time=begins if is_revoked else None,
            revocation_reason=reason,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH, responder)
        .certificates([responder])
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    made = builder.sign(signer or key(f"Responder of {common_name}"), signed_with or SHA384())
    return made.public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a server shows of one device; each part can be replaced (`dataclasses.replace`)."""

    report: bytes = field(default_factory=report)
    chain: tuple[x509.Certificate, ...] = field(default_factory=device_chain)
    rims: Mapping[str, bytes] = field(default_factory=dict)
    answers: tuple[bytes, ...] = ()

    def item(self, **more: bytes) -> EvidenceItem:
        """As it travels; `more` are endorsements that are not NVIDIA's."""
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in self.chain)
        numbered = {f"ocsp_{number}": answer for number, answer in enumerate(self.answers)}
        endorsements = {"device_chain": pem, **self.rims, **numbered, **more}
        return EvidenceItem(tee="nvidia_gpu", evidence=self.report, endorsements=tuple(endorsements.items()))

    def replace(self, **changes: Any) -> Shown:
        return dataclasses.replace(self, **changes)


@functools.cache
def good_answers(chip: str = "GH100") -> tuple[bytes, ...]:
    """About every certificate that an authority issued."""
    device, rim = device_chain(chip)[1:], rim_chain()
    return tuple(answer(child, issuer) for chain in (device, rim) for child, issuer in itertools.pairwise(chain))


@functools.cache
def hopper() -> Shown:
    """A good H100, shown with everything."""
    return Shown(rims={"driver_rim": driver_rim(), "vbios_rim": vbios_rim()}, answers=good_answers())


@functools.cache
def blackwell() -> Shown:
    """A good B200, likewise."""
    return Shown(
        report=report(chip="GB100", opaque=opaque_data(BLACKWELL)),
        chain=device_chain("GB100"),
        rims={"driver_rim": driver_rim("GB100"), "vbios_rim": vbios_rim("GB100")},
        answers=good_answers("GB100"),
    )


def _pdi(number: int) -> bytes:
    return number.to_bytes(8, "big")


def hgx(gpus: int = 2, switches: int = 2) -> list[Shown]:
    """GPUs with protected PCIe and their NVSwitches, all of which name each other; no RIMs and no answers."""
    gpu_pdis, switch_pdis = [_pdi(0x10 + n) for n in range(gpus)], [_pdi(0x20 + n) for n in range(switches)]
    links = b"".join(pdi[::-1] for pdi in switch_pdis) + bytes(8)
    named = b"".join(gpu_pdis) + b"\xff" * 8 * (8 - gpus) + bytes(64)
    gpu_report = report(opaque=opaque_data({**HOPPER, 21: b"\xaa", 22: links, 36: b"\2\0"}))
    shown = [
        Shown(report=gpu_report, chain=device_chain(serial=int.from_bytes(b"\x41" + pdi, "big"))) for pdi in gpu_pdis
    ]
    for pdi in switch_pdis:
        opaque = opaque_data({6: b"96.10.55.00.01", 22: pdi, 25: b"\1\0", 26: named})
        chain = device_chain("LS_10", serial=int.from_bytes(b"\x50" + pdi, "big"))
        shown.append(Shown(report=report(chip="LS_10", opaque=opaque), chain=chain))
    return shown
