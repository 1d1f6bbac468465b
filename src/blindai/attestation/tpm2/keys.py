"""A TPM's public areas, names and signatures (TPM 2.0 Library, Part 2, revision 1.59).

Leaves out: what is signed (tpm2/quote.py), and who certifies a key (tpm2/certificates.py).
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from blindai.attestation.exact_reader import ExactReader
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

# Part 2, TPM_ALG_ID.
RSA, ECC, NULL = 0x0001, 0x0023, 0x0010
SCHEMES = {0x0014: "rsassa", 0x0016: "rsapss", 0x0018: "ecdsa"}
DIGESTS = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
DIGEST_BYTES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
ACCEPTED_DIGESTS = ("sha256", "sha384", "sha512")  # SHA-1 is parsed, so that its refusal has a name
# Part 2, TPM_ECC_CURVE.
_CURVES: dict[int, tuple[ec.EllipticCurve, int]] = {
    0x0003: (ec.SECP256R1(), 32),
    0x0004: (ec.SECP384R1(), 48),
    0x0005: (ec.SECP521R1(), 66),
}
# Part 2, TPMA_OBJECT, the newer attributes of revision 1.83 too; the others are reserved and zero.
ATTRIBUTES = {
    1: "fixedTPM",
    2: "stClear",
    4: "fixedParent",
    5: "sensitiveDataOrigin",
    6: "userWithAuth",
    7: "adminWithPolicy",
    8: "firmwareLimited",
    9: "svnLimited",
    10: "noDA",
    11: "encryptedDuplication",
    16: "restricted",
    17: "decrypt",
    18: "sign",
    19: "x509sign",
}
_DEFAULT_EXPONENT = 65537  # Part 2, TPMS_RSA_PARMS: zero stands for it
_MAX_DIGEST = 64
_MAX_MODULUS = 512
_MIN_RSA_BITS = 2048
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303  # refused by name before it is used
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a key signs: `rsassa`, `rsapss` or `ecdsa`, over a digest such as `sha256`."""

    name: str
    digest: str

    @property
    def text(self) -> str:
        """For example `rsassa with sha256`."""
        return f"{self.name} with {self.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmPublic:
    """A TPMT_PUBLIC of an asymmetric key (Part 2).

    Attributes:
        attributes: the names of the attributes that are set, as in `ATTRIBUTES`.
        scheme: None if the key has none of its own.
        has_symmetric: whether it can protect other keys, as a storage key does.
        name: the key's TPM name, `u16 nameAlg ‖ digest of the public area`, 34 bytes for SHA-256.
    """

    key: PublicKey = field(repr=False)
    name_digest: str
    attributes: frozenset[str]
    scheme: Scheme | None
    has_symmetric: bool
    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmSignature:
    """A TPMT_SIGNATURE (Part 2), or a bare RSA signature with the scheme that its source states.

    Attributes:
        value: what `cryptography` takes: an RSA signature, or the DER of r and s.
    """

    scheme: Scheme
    value: bytes = field(repr=False)


@contextmanager
def parsing_tpm(tee: str, what: str) -> Iterator[None]:
    """Turn a parser's ValueError into a refusal with the code `<tee>.<what>_format`.

    Raises:
        MalformedEvidenceError: the block raised ValueError.
    """
    try:
        yield
    except ValueError as error:
        code = f"{tee}.{what}_format"
        raise MalformedEvidenceError(
            f"expected a TPM's {what}, found that {error}", finding_code=code, tee=tee
        ) from None


def parse_public(raw: bytes, *, tee: str) -> TpmPublic:
    """Read exactly a TPMT_PUBLIC of an RSA or elliptic-curve key.

    Raises:
        MalformedEvidenceError: anything else, code `<tee>.ak_format`.
    """
    with parsing_tpm(tee, "ak"):
        reader = ExactReader(raw)
        kind = reader.number(2, "the type")
        name_algorithm = reader.number(2, "the name algorithm")
        name_digest = digest_name(name_algorithm)
        attributes = _attributes(reader.number(4, "the attributes"))
        reader.sized(2, "the policy", limit=_MAX_DIGEST)
        has_symmetric = _take_symmetric(reader)
        scheme = _take_scheme(reader)
        key = _take_key(reader, kind)
        reader.finish("the public area")
    name = name_algorithm.to_bytes(2, "big") + hashlib.new(name_digest, raw).digest()
    return TpmPublic(
        key=key,
        name_digest=name_digest,
        attributes=attributes,
        scheme=scheme,
        has_symmetric=has_symmetric,
        name=name,
    )


def digest_name(algorithm: int) -> str:
    """A digest's name by its TPM_ALG_ID.

    Raises:
        ValueError: another algorithm than SHA-1, SHA-256, SHA-384 and SHA-512.
    """
    if algorithm not in DIGESTS:
        raise ValueError(f"algorithm {algorithm:#06x} is no digest known here")
    return DIGESTS[algorithm]


def _attributes(bits: int) -> frozenset[str]:
    if bits & ~sum(1 << bit for bit in ATTRIBUTES):
        raise ValueError(f"attributes {bits:#010x} have reserved bits")
    return frozenset(name for bit, name in ATTRIBUTES.items() if bits >> bit & 1)


def _take_symmetric(reader: ExactReader) -> bool:
    """TPMT_SYM_DEF_OBJECT (Part 2)."""
    if reader.number(2, "the symmetric algorithm") == NULL:
        return False
    reader.take(4, "the symmetric key's bits and mode")
    return True


def _take_scheme(reader: ExactReader) -> Scheme | None:
    """TPMT_RSA_SCHEME and TPMT_ECC_SCHEME (Part 2), those that sign."""
    algorithm = reader.number(2, "the scheme")
    if algorithm == NULL:
        return None
    if algorithm not in SCHEMES:
        raise ValueError(f"scheme {algorithm:#06x} is not known here")
    return Scheme(name=SCHEMES[algorithm], digest=digest_name(reader.number(2, "the scheme's digest")))


def _take_key(reader: ExactReader, kind: int) -> PublicKey:
    if kind == RSA:
        return _take_rsa_key(reader)
    if kind == ECC:
        return _take_curve_key(reader)
    raise ValueError(f"type {kind:#06x} is neither RSA nor ECC")


def _take_rsa_key(reader: ExactReader) -> PublicKey:
    bits = reader.number(2, "the key size")
    exponent = reader.number(4, "the exponent") or _DEFAULT_EXPONENT
    modulus = int.from_bytes(reader.sized(2, "the modulus", limit=_MAX_MODULUS), "big")
    if modulus.bit_length() != bits or bits < _MIN_RSA_BITS:
        raise ValueError(f"a modulus of {modulus.bit_length()} bits is declared as {bits}, at least {_MIN_RSA_BITS}")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _take_curve_key(reader: ExactReader) -> PublicKey:
    curve_id = reader.number(2, "the curve")
    if curve_id not in _CURVES:
        raise ValueError(f"curve {curve_id:#06x} is not known here")
    if reader.number(2, "the key derivation") != NULL:
        raise ValueError("a key that signs derives no others")
    curve, size = _CURVES[curve_id]
    x, y = (reader.sized(2, f"the coordinate {axis}", limit=size) for axis in "xy")
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()


def parse_signature(raw: bytes, *, tee: str) -> TpmSignature:
    """Read exactly a TPMT_SIGNATURE by RSASSA, RSAPSS or ECDSA.

    Raises:
        MalformedEvidenceError: anything else, code `<tee>.signature_format`.
    """
    with parsing_tpm(tee, "signature"):
        reader = ExactReader(raw)
        scheme = _take_scheme(reader)
        if scheme is None:
            raise ValueError("it has no scheme")
        if scheme.name == "ecdsa":
            r, s = (reader.sized(2, f"the number {name}", limit=_CURVES[0x0005][1]) for name in "rs")
            value = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        else:
            value = reader.sized(2, "the signature", limit=_MAX_MODULUS)
        reader.finish("the signature")
    return TpmSignature(scheme=scheme, value=value)


def is_signed(message: bytes, signature: TpmSignature, key: PublicKey) -> bool:
    """Whether the key made this signature over the message; the digest is the signature's own."""
    digest = _HASHES[signature.scheme.digest]
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            if signature.scheme.name != "ecdsa":
                return False
            key.verify(signature.value, message, ec.ECDSA(digest))
        else:
            key.verify(signature.value, message, _rsa_padding(signature.scheme.name, digest), digest)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm, KeyError):
        return False
    return True


def _rsa_padding(scheme: str, digest: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    """Raises KeyError for a scheme that is not RSA's."""
    salt_length = padding.PSS.AUTO  # Part 1, annex B, RSAPSS: as long as the key allows, or the digest's size
    schemes: dict[str, padding.AsymmetricPadding] = {
        "rsassa": padding.PKCS1v15(),
        "rsapss": padding.PSS(mgf=padding.MGF1(digest), salt_length=salt_length),
    }
    return schemes[scheme]
