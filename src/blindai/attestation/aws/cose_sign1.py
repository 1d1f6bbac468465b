"""Reads a COSE_Sign1 with an ECDSA P-384 signature and nothing unprotected, exactly (RFC 9052 §4.2, RFC 8949).

The envelope has one accepted encoding, with or without its tag, so that no byte outside the signature can vary.
Leaves out: what the payload says (tee/), and whose key signed it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Never

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

# RFC 9052 §4.2: COSE_Sign1 = 18([protected bstr, unprotected map, payload bstr, signature bstr])
_TAG = b"\xd2"  # 18, optional
PROTECTED = cbor2.dumps({1: -35})  # RFC 9053 table 1: 1 is `alg`, -35 is ES384
_MEMBERS = 4
SIGNATURE_BYTES = 96  # RFC 9053 §2.1: r and s with 48 bytes each
MAX_PAYLOAD_BYTES = 16384
_MAX_DEPTH = 2  # a map that holds a map or an array of strings
_BEGIN_MAP, _BREAK = b"\xbf", b"\xff"  # RFC 8949 §3.2.2, a map of indefinite length


@dataclass(frozen=True, slots=True, kw_only=True)
class CoseSign1:
    """A signed payload.

    Attributes:
        payload: 1 to 16384 bytes.
        signature: r and s, 96 bytes.
    """

    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def is_signed_by(self, key: PublicKeyTypes) -> bool:
        """Whether this key, of P-384, signed the payload (RFC 9052 §4.4, with no external data)."""
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            return False
        half = SIGNATURE_BYTES // 2
        r, s = (int.from_bytes(part, "big") for part in (self.signature[:half], self.signature[half:]))
        try:
            key.verify(encode_dss_signature(r, s), to_be_signed(self.payload), ec.ECDSA(hashes.SHA384()))
        except InvalidSignature:
            return False
        return True


def to_be_signed(payload: bytes) -> bytes:
    """`Sig_structure` of RFC 9052 §4.4 in its one encoding."""
    return cbor2.dumps(["Signature1", PROTECTED, b"", payload])


def parse_sign1(raw: bytes) -> CoseSign1:
    """Read exactly a COSE_Sign1, tagged or not.

    Raises:
        ValueError: another form, size, algorithm or encoding.
    """
    if len(raw) > MAX_PAYLOAD_BYTES + 256:
        raise ValueError(f"{len(raw)} bytes are more than an envelope of {MAX_PAYLOAD_BYTES} can have")
    body = raw.removeprefix(_TAG)
    members = _decode(body)
    if not isinstance(members, list) or len(members) != _MEMBERS:
        raise ValueError("it is no array of four, so no COSE_Sign1")
    protected, unprotected, payload, signature = members
    if protected != PROTECTED:
        raise ValueError("the protected header is not exactly {1: -35}, ES384")
    if unprotected != {}:
        raise ValueError("the unprotected header is not empty")
    exact_bytes(payload, "the payload", 1, MAX_PAYLOAD_BYTES)
    exact_bytes(signature, "the signature", SIGNATURE_BYTES, SIGNATURE_BYTES)
    if cbor2.dumps(members) != body:
        raise ValueError("the envelope has another encoding than the shortest, or something follows it")
    return CoseSign1(payload=payload, signature=signature)


def read_map(data: bytes) -> dict[str, Any]:
    """A CBOR map with text as names, of definite length or, around it only, of indefinite length.

    Nothing in it has a tag, and each value has its shortest encoding; the values' types are the caller's to check.

    Raises:
        ValueError: anything else.
    """
    value = _decode(data)
    if type(value) is not dict or not all(type(name) is str for name in value):
        raise ValueError("it is no map with text as names")
    items = b"".join(cbor2.dumps(name) + cbor2.dumps(member) for name, member in value.items())
    if data not in {cbor2.dumps(value), _BEGIN_MAP + items + _BREAK}:
        raise ValueError("a value has another encoding than the shortest, or something follows the map")
    return value


def exact_bytes(value: object, what: str, least: int, most: int) -> bytes:
    """A byte string with a size in these bounds.

    Raises:
        ValueError: anything else.
    """
    if type(value) is not bytes or not least <= len(value) <= most:
        found = f"{len(value)} bytes" if type(value) is bytes else "another type"
        raise ValueError(f"{what} is no byte string of {least} to {most} bytes: {found}")
    return value


def _decode(data: bytes) -> Any:
    """One CBOR item; what may follow it is found by encoding the item again."""
    try:
        return cbor2.loads(
            data,
            max_depth=_MAX_DEPTH,
            allow_duplicate_keys=False,
            semantic_decoders=defaultdict(lambda: _refuse_tag),
        )
    except cbor2.CBORError as error:
        raise ValueError(f"it is not the CBOR that is expected: {error}") from None


def _refuse_tag(*_: object) -> Never:
    """Dates, patterns, big numbers, shared and cyclic values: none belongs here."""
    raise ValueError("a tag")
