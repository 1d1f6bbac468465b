"""A TPM that quotes anything, and a vendor that certifies any key: every field of every structure can be another.

Keys of the vendor are P-256; a TPM's are RSA-2048, made once a session, or P-256.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.key_usage import key_usage
from fakes.tpm_boot import ALGORITHMS, FakeBoot, firmware, grub

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.roots import PinnedRoot
from blindai.attestation.tee.tpm import TpmEvidence, encode

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
BOUND = bytes(range(32))
ALL_PCRS = tuple(range(24))
# fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign
ATTRIBUTES = 0x00050072
NULL = 0x0010
SCHEMES = {"rsassa": 0x0014, "rsapss": 0x0016, "ecdsa": 0x0018}
HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303  # to be refused
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
CURVES = {"secp256r1": (0x0003, 32), "secp384r1": (0x0004, 48), "secp521r1": (0x0005, 66)}
AK_PURPOSE, EK_PURPOSE = "2.23.133.8.3", "2.23.133.8.1"
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@functools.cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    del number  # another number, another key
    return rsa.generate_private_key(65537, bits)


def u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def sized16(data: bytes) -> bytes:
    return u16(len(data)) + data


def scheme_bytes(name: str, digest: str) -> bytes:
    return u16(SCHEMES[name]) + u16(ALGORITHMS[digest][0]) if name else u16(NULL)


def public_area(
    key: Private,
    *,
    name_digest: str = "sha256",
    attributes: int = ATTRIBUTES,
    policy: bytes = b"",
    scheme: bytes,
    symmetric: bytes = b"\x00\x10",
) -> bytes:
    """TPMT_PUBLIC."""
    kind = 0x0001 if isinstance(key, rsa.RSAPrivateKey) else 0x0023
    head = u16(kind) + u16(ALGORITHMS[name_digest][0]) + u32(attributes) + sized16(policy) + symmetric + scheme
    if isinstance(key, rsa.RSAPrivateKey):
        modulus = key.public_key().public_numbers().n
        return head + u16(key.key_size) + u32(0) + sized16(modulus.to_bytes(key.key_size // 8, "big"))
    curve, size = CURVES[key.curve.name]
    numbers = key.public_key().public_numbers()
    return head + u16(curve) + u16(NULL) + b"".join(sized16(n.to_bytes(size, "big")) for n in (numbers.x, numbers.y))


def tpm_signature(key: Private, scheme: str, digest: str, message: bytes) -> bytes:
    """TPMT_SIGNATURE."""
    algorithm = HASHES[digest]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = CURVES[key.curve.name][1]
        numbers = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm)))
        return scheme_bytes(scheme, digest) + b"".join(sized16(n.to_bytes(size, "big")) for n in numbers)
    pss = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
    paddings: dict[str, padding.AsymmetricPadding] = {"rsassa": padding.PKCS1v15(), "rsapss": pss}
    return scheme_bytes(scheme, digest) + sized16(key.sign(message, paddings[scheme], algorithm))


@dataclass(kw_only=True)
class FakeTpm:
    """A good TPM after a good boot; each of its fields can be another."""

    boot: FakeBoot = field(default_factory=lambda: grub(firmware()))
    key: Private = field(default_factory=rsa_key)
    scheme: str = "rsassa"
    digest: str = "sha256"
    name_digest: str = "sha256"
    attributes: int = ATTRIBUTES
    symmetric: bytes = b"\x00\x10"
    parent: bytes = bytes.fromhex("4000000b")
    bank: str = "sha256"
    selection: tuple[int, ...] = ALL_PCRS
    bound: bytes = BOUND
    magic: int = 0xFF544347
    kind: int = 0x8018
    qualified_signer: bytes | None = None
    restart_count: int = 0
    safe: int = 1
    firmware_version: int = 7
    selections: bytes | None = None
    pcr_digest: bytes | None = None
    with_log: bool = True
    endorsements: dict[str, bytes] = field(default_factory=dict)

    @property
    def ak_public(self) -> bytes:
        return public_area(
            self.key,
            name_digest=self.name_digest,
            attributes=self.attributes,
            scheme=scheme_bytes(self.scheme, self.digest),
            symmetric=self.symmetric,
        )

    @property
    def ak_name(self) -> bytes:
        return u16(ALGORITHMS[self.name_digest][0]) + hashlib.new(self.name_digest, self.ak_public).digest()

    @property
    def pcr_values(self) -> bytes:
        return b"".join(self.boot.value(self.bank, index) for index in self.selection)

    def quote(self) -> bytes:
        """TPMS_ATTEST."""
        signer = self.qualified_signer
        if signer is None:
            signer = self.ak_name[:2] + hashlib.new(self.name_digest, self.parent + self.ak_name).digest()
        selections = self.selections
        if selections is None:
            bits = sum(1 << index for index in self.selection).to_bytes(3, "little")
            selections = u32(1) + u16(ALGORITHMS[self.bank][0]) + b"\x03" + bits
        pcr_digest = self.pcr_digest
        if pcr_digest is None:
            pcr_digest = hashlib.new(self.digest, self.pcr_values).digest()
        clock = bytes(8) + u32(3) + u32(self.restart_count) + bytes([self.safe])
        head = u32(self.magic) + u16(self.kind) + sized16(signer) + sized16(self.bound) + clock
        return head + self.firmware_version.to_bytes(8, "big") + selections + sized16(pcr_digest)

    def evidence(self) -> TpmEvidence:
        quote = self.quote()
        is_curve = isinstance(self.key, ec.EllipticCurvePrivateKey)
        scheme = "ecdsa" if is_curve else "rsapss" if self.scheme == "rsapss" else "rsassa"
        return TpmEvidence(
            quote=quote,
            signature=tpm_signature(self.key, scheme, self.digest, quote),
            ak_public=self.ak_public,
            ak_parent=self.parent,
            pcr_values=self.pcr_values,
            event_log=self.boot.log() if self.with_log else b"",
        )

    def item(self, **parts: bytes) -> EvidenceItem:
        """Evidence, with these parts of it replaced."""
        evidence = self.evidence()
        names = ("quote", "signature", "ak_public", "ak_parent", "pcr_values", "event_log")
        whole = TpmEvidence(**{name: parts.get(name, getattr(evidence, name)) for name in names})
        return EvidenceItem(tee="tpm", evidence=encode(whole), endorsements=tuple(self.endorsements.items()))


@dataclass(kw_only=True)
class FakeVendor:
    """A root, an intermediate CA below it, and any certificate or CRL of theirs."""

    name: str = "fake vendor"
    crl_urls: tuple[str, ...] = ("http://crl.test/",)
    root_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @functools.cached_property
    def root(self) -> x509.Certificate:
        return self.certify(self.root_key, "root", is_ca=True, issuer="root", signer=self.root_key)

    @functools.cached_property
    def intermediate(self) -> x509.Certificate:
        return self.certify(
            self.key, "intermediate", is_ca=True, issuer="root", signer=self.root_key, crl_urls=self.crl_urls
        )

    @property
    def pinned(self) -> tuple[PinnedRoot, ...]:
        sha256 = hashlib.sha256(self.root.public_bytes(Encoding.DER)).digest()
        return (PinnedRoot(name=self.name, sha256=sha256, source="tests"),)

    def certify(  # noqa: PLR0913  # everything about a certificate can be another
        self,
        key: Private | rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        subject: str = "key",
        *,
        issuer: str = "intermediate",
        signer: Private | None = None,
        is_ca: bool | None = False,
        signs: bool = True,
        usage: bool = True,
        revokes: bool = True,
        purposes: tuple[str, ...] = (),
        extensions: tuple[x509.ExtensionType, ...] = (),
        crl_urls: tuple[str, ...] = (),
        not_after: datetime = NOW + YEAR,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key() if isinstance(key, Private) else key)
            .serial_number(sum(subject.encode()))
            .not_valid_before(NOW - YEAR)
            .not_valid_after(not_after)
        )
        if is_ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        if usage:
            builder = builder.add_extension(_usage(is_ca=bool(is_ca), signs=signs, revokes=revokes), critical=True)
        if purposes:
            oids = [x509.ObjectIdentifier(purpose) for purpose in purposes]
            builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=False)
        if crl_urls:
            point = x509.DistributionPoint([x509.UniformResourceIdentifier(url) for url in crl_urls], None, None, None)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(signer or self.key, hashes.SHA256())

    def crl(
        self,
        *,
        issuer: str = "root",
        signer: Private | None = None,
        revoked: tuple[x509.Certificate, ...] = (),
        begin: datetime = NOW - timedelta(days=1),
        end: datetime = NOW + timedelta(days=1),
        extension: x509.ExtensionType | None = None,
        critical: bool = True,
        of_entries: x509.ExtensionType | None = None,
    ) -> bytes:
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]),
            last_update=begin,
            next_update=end,
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(begin)
            if of_entries is not None:
                entry = entry.add_extension(of_entries, critical=critical)
            builder = builder.add_revoked_certificate(entry.build())
        if extension is not None:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer or self.root_key, hashes.SHA256()).public_bytes(Encoding.DER)

    def chain(self, leaf: x509.Certificate, kind: str = "ak") -> dict[str, bytes]:
        """The endorsements of a certificate, with the root's CRL."""
        certificates = {"certificate": leaf, "intermediate_1": self.intermediate, "root": self.root}
        chain = {f"{kind}_{name}": one.public_bytes(Encoding.DER) for name, one in certificates.items()}
        return {**chain, f"{kind}_crl_1": self.crl()}


def _usage(*, is_ca: bool, signs: bool, revokes: bool) -> x509.KeyUsage:
    if is_ca:
        return key_usage("key_cert_sign", "crl_sign") if revokes else key_usage("key_cert_sign")
    return key_usage("digital_signature" if signs else "key_encipherment")
