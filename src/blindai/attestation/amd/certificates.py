"""AMD's certificates and revocation lists: who signed a report's key, and what the key stands for (sev_snp.md §2, §3).

ARK (root, pinned) → ASK → VCEK, the key of one chip; or ARK → ASVK → VLEK, the key that AMD gives to a cloud provider
for many chips. Extensions by AMD's "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification",
document 57230, table "VCEK Certificate Extension Fields", and its VLEK counterpart.
Leaves out: the links between certificates (x509_chain.py), and the report (amd/report.py).
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.amd.report import TEE
from blindai.attestation.amd.tcb import Product, Tcb
from blindai.attestation.checks import judge
from blindai.attestation.x509_bounds import require_bounded, without_warnings
from blindai.attestation.x509_chain import UNREADABLE, may_sign_crls, read_certificate
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.evidence import Finding

_AMD = "1.3.6.1.4.1.3704.1"
_STRUCT_VERSION, _PRODUCT_NAME, _HWID, _CSP_ID = (f"{_AMD}.{last}" for last in (1, 2, 4, 5))
# Structure version 0 is Milan's and Genoa's, 1 is Turin's, which has an FMC and no fourth SPL.
_SPL = {"bootloader": 1, "tee": 2, "snp": 3, "microcode": 8}
_COMPONENTS = {0: _SPL, 1: {**_SPL, "fmc": 9}}
_RESERVED_SPLS = {0: (4, 5, 6, 7), 1: (5, 6, 7)}
HWID_BYTES = {Product.MILAN: 64, Product.GENOA: 64, Product.TURIN: 8}
_INTEGER, _OCTET_STRING, _IA5_STRING = 0x02, 0x04, 0x16
_HEAD_BYTES, _SHORT_FORM = 2, 0x80  # of a DER value: tag and length, the length below 128
_HIGHEST_SPL = 0xFF


class SigningKey(enum.IntEnum):
    """What signed a report: SIGNING_KEY of table ATTESTATION_REPORT, document 56860; 7 is none, others are reserved."""

    VCEK = 0
    VLEK = 1


_SUBJECTS = {"SEV-VCEK": SigningKey.VCEK, "SEV-VLEK": SigningKey.VLEK}
_ISSUERS = {SigningKey.VCEK: "SEV-", SigningKey.VLEK: "SEV-VLEK-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """What AMD's certificate says of the key that signed a report.

    Attributes:
        product_name: as in the certificate, for example `Milan-B0`.
        hwid: the chip, only of a VCEK: 64 bytes, or 8 on Turin.
        csp_id: the cloud provider, only of a VLEK.
    """

    signing_key: SigningKey
    product: Product
    product_name: str
    public_key: EllipticCurvePublicKey
    tcb: Tcb
    hwid: bytes | None
    csp_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """When a genuine list was made, and until when it is fresh, in Unix seconds."""

    this_update: float
    next_update: float


def read_amd_certificate(der: bytes, what: str) -> x509.Certificate:
    """One certificate from exactly its DER; its serial number may be 0, as every VCEK's and VLEK's is.

    Raises:
        MalformedEvidenceError: anything else.
    """
    return read_certificate(der, tee=TEE, what=what, least_serial=0)


@functools.lru_cache(maxsize=16)
def read_amd_issuer(der: bytes, what: str) -> x509.Certificate:
    """`read_amd_certificate`, kept: for those above a machine's own, which its whole product line shows.

    Raises:
        MalformedEvidenceError: as there.
    """
    return read_amd_certificate(der, what)


def roles_of(chain: Sequence[x509.Certificate]) -> tuple[SigningKey, Product] | None:
    """Which key of which product line a chain of leaf, intermediate and root is for, by their names.

    None if the names do not belong together. The root must be pinned already: its name says the product.
    """
    leaf, intermediate, root = (_common_name(certificate) for certificate in chain)
    product = next((product for product in Product if root == f"ARK-{product.value}"), None)
    key = _SUBJECTS.get(leaf)
    if product is None or key is None or intermediate != f"{_ISSUERS[key]}{product.value}":
        return None
    return key, product


def _common_name(certificate: x509.Certificate) -> str:
    match certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME):
        case [name]:
            return str(name.value)
    return ""


def names_of(chain: Sequence[x509.Certificate]) -> str:
    """The names from leaf to root, for people."""
    return " < ".join(_common_name(certificate) or "without a common name" for certificate in chain)


def read_endorsement(certificate: x509.Certificate, key: SigningKey, product: Product) -> Endorsement:
    """The extensions of a VCEK's or VLEK's certificate.

    Raises:
        MalformedEvidenceError: one is missing, not as AMD writes it, or one of the other kind of key.
    """
    public_key = certificate.public_key()
    if not isinstance(public_key, EllipticCurvePublicKey) or not isinstance(public_key.curve, SECP384R1):
        raise _malformed("a key that is not on P-384")
    values = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    version = _integer(values, _STRUCT_VERSION)
    if version != (1 if product is Product.TURIN else 0):
        raise _malformed(f"structure version {version} for {product.value}")
    if any(_integer(values, _spl(place)) for place in _RESERVED_SPLS[version]):
        raise _malformed("a reserved SPL that is not 0")
    if (_HWID in values) is not (key is SigningKey.VCEK) or (_CSP_ID in values) is not (key is SigningKey.VLEK):
        raise _malformed(f"a {key.name} with another one's identity")
    return Endorsement(
        signing_key=key,
        product=product,
        product_name=_text(values, _PRODUCT_NAME),
        public_key=public_key,
        tcb=Tcb(**{name: _integer(values, _spl(place)) for name, place in _COMPONENTS[version].items()}),
        hwid=_read_hwid(values[_HWID], HWID_BYTES[product]) if key is SigningKey.VCEK else None,
        csp_id=_text(values, _CSP_ID) if key is SigningKey.VLEK else None,
    )


def _spl(place: int) -> str:
    return f"{_AMD}.3.{place}"


def _integer(values: dict[str, bytes], oid: str) -> int:
    """An INTEGER of 0 to 255 in DER."""
    content = _content(values, oid, _INTEGER)
    number = int.from_bytes(content, "big")
    # The bit above the number is the sign: one that is negative, or empty, has not the size of what it is read as.
    if number > _HIGHEST_SPL or len(content) != number.bit_length() // 8 + 1:
        raise _malformed(f"extension {oid} that is no number of one byte")
    return number


def _text(values: dict[str, bytes], oid: str) -> str:
    """An IA5String."""
    text = _content(values, oid, _IA5_STRING).decode("latin-1")
    if not text.isascii() or not text.isprintable():
        raise _malformed(f"extension {oid} that is no printable text")
    return text


def _content(values: dict[str, bytes], oid: str, tag: int) -> bytes:
    """What stands in a DER value of that tag, in the short form: every value of AMD's is below 128 bytes."""
    if oid not in values:
        raise _malformed(f"no extension {oid}")
    content = values[oid][_HEAD_BYTES:]
    if len(content) >= _SHORT_FORM or values[oid] != bytes((tag, len(content))) + content:
        raise _malformed(f"extension {oid} of another type")
    return content


def _read_hwid(value: bytes, size: int) -> bytes:
    """The bare bytes, as AMD's server writes them, or an OCTET STRING of them, as its specification says."""
    if len(value) == size:
        return value
    content = value[_HEAD_BYTES:]
    if len(content) == size and value == bytes((_OCTET_STRING, size)) + content:
        return content
    raise _malformed(f"a hardware id of {len(value)} bytes instead of {size}")


def _malformed(found: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(
        f"expected a certificate of AMD's, found {found}", finding_code=f"{TEE}.vek_format", tee=TEE
    )


@functools.lru_cache(maxsize=8)  # a product line's list, the same for each of its machines
def read_crl(der: bytes) -> x509.CertificateRevocationList:
    """A revocation list from exactly its DER, with both times and no critical extension.

    AMD's lists are the ARK's own and have none; one that is indirect or partial would mean something else.

    Raises:
        MalformedEvidenceError: anything else.
    """
    try:
        with without_warnings():
            crl = x509.load_der_x509_crl(der)
            extensions = [*crl.extensions, *(one for entry in crl for one in entry.extensions)]
            require_bounded(crl.issuer)
            needed = (crl.last_update_utc, crl.next_update_utc)  # each is parsed only when asked for
        if crl.public_bytes(Encoding.DER) == der and all(needed) and not any(one.critical for one in extensions):
            return crl
    except UNREADABLE:
        pass
    raise MalformedEvidenceError(
        f"expected a revocation list in DER with its next update and no critical extension, found {len(der)} bytes",
        finding_code="sev_snp.crl_format",
        tee=TEE,
    )


def times_of(crl: x509.CertificateRevocationList) -> RevocationList:
    """The times of a list that `read_crl` read."""
    assert crl.next_update_utc is not None  # noqa: S101  # `read_crl` required it; for the type checker
    return RevocationList(this_update=crl.last_update_utc.timestamp(), next_update=crl.next_update_utc.timestamp())


def judge_revocation(crl: x509.CertificateRevocationList, chain: Sequence[x509.Certificate]) -> Iterator[Finding]:
    """The list is the root's, and names no certificate of the chain.

    Serial numbers are looked up for every certificate: an entry with serial 0 would name every VCEK at once.
    """
    is_signed = _is_signed_by(crl, chain[-1])
    yield judge(
        holds=is_signed,
        code="sev_snp.crl_signature",
        expected="a revocation list signed by the root",
        found="one signed by it" if is_signed else "one of another issuer or signature",
        why="A list that anybody may write can hide what AMD has revoked.",
    )
    with without_warnings():
        named = {entry.serial_number for entry in crl}
        revoked = [hex(one.serial_number) for one in chain if one.serial_number in named]
    yield judge(
        holds=not revoked,
        code="sev_snp.revoked",
        expected="a list that names no certificate of the chain",
        found=f"serial {', '.join(revoked)} in it" if revoked else f"none of {len(chain)} named",
        why="AMD revokes a key that it no longer answers for.",
        hint="ask the operator for the chain that AMD serves today; a machine whose own key is revoked is lost",
    )


def _is_signed_by(crl: x509.CertificateRevocationList, root: x509.Certificate) -> bool:
    # The root is pinned, and its key is RSA; whatever is wrong with the signature is False.
    is_its_own = crl.issuer == root.subject and may_sign_crls(root)
    return is_its_own and crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
