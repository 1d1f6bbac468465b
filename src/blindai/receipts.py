"""Receipts: the enclave's signed word on what it computed, about which request (docs/spec/receipt.md).

A receipt is a compact JWS (RFC 7515) with Ed25519 (RFC 9864), verified with the key that the attested keyset names:
algorithm and key are never taken from its header. It commits to both bodies under salts, so that either can be
opened alone and neither can be guessed. Leaves out: whether the keyset is to be believed (channel/attested.py).
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from blindai.errors import InvalidReceiptError
from blindai.hkdf import Expander
from blindai.wire import (
    JSON_INTEGER_LIMIT,
    base64url_decode,
    base64url_encode,
    compact_json,
    exact_bytes,
    label,
    length_prefixed,
    printable,
    strict_json,
    strict_struct,
)

ALGORITHM = "Ed25519"
TYPE = "blindai-receipt+jws"
MAX_RECEIPT_BYTES = 16 * 1024
_Whole = Annotated[int, msgspec.Meta(ge=0, le=JSON_INTEGER_LIMIT)]
_Door = Literal["sealed", "pinned-tls"]


class ModelIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """Which model answered: `digest` is "sha256:" and 64 hex digits, over its files and session options."""

    name: str
    version: str
    digest: str
    engine: str
    precision: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # one an answer: cheaper than a dataclass
    """What the enclave signs.

    Attributes:
        keyset_id: KSID of the attested keyset whose receipt key signs.
        request_id: the client's 16 random bytes.
        door: where the request came in: `sealed` or `pinned-tls`.
        complete: whether the request was read to its end.
        model: None for requests that run no model.
        runtime_policy: digest of the attested runtime policy.
        padded: whether bodies were padded.
        start_ms: the guest's clock when the request began, in Unix milliseconds (a claim: the host can shift it).
        end_ms: likewise, when the answer was ready.
        request: salted commitment to the request's body.
        response: salted commitment to the answer's body.
    """

    keyset_id: bytes
    request_id: bytes
    door: _Door
    method: str
    path: str
    status: int
    complete: bool
    model: ModelIdentity | None
    runtime_policy: bytes
    padded: bool
    start_ms: int
    end_ms: int
    request: bytes
    response: bytes


class BodyCommitment:
    """A salted commitment to one body, fed as the body passes."""

    __slots__ = ("_hash",)

    def __init__(self, prefix: bytes) -> None:
        self._hash = hashlib.sha256(prefix)

    @classmethod
    def to_request(cls, salt: bytes) -> BodyCommitment:
        """`SHA-256(L("receipt-request") ‖ Expand(salt, L("salt-request"), 32) ‖ body)`."""
        return cls.to_both(salt)[0]

    @classmethod
    def to_response(cls, salt: bytes) -> BodyCommitment:
        """The same with `receipt-response` and `salt-response`."""
        return cls.to_both(salt)[1]

    @classmethod
    def to_both(cls, salt: bytes) -> tuple[BodyCommitment, BodyCommitment]:
        """Those to the request and to the response."""
        salts = Expander(salt)
        return (
            cls(label("receipt-request") + salts.expand(label("salt-request"), 32)),
            cls(label("receipt-response") + salts.expand(label("salt-response"), 32)),
        )

    def update(self, data: bytes | memoryview | bytearray) -> None:
        """Take the next piece of the body."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """The commitment to what was fed so far."""
        return self._hash.digest()


def receipt_key_id(public_key: bytes) -> str:
    """The `kid` of a receipt key."""
    return base64url_encode(hashlib.sha256(label("receipt-key") + length_prefixed(public_key)).digest())


def sign_receipt(receipt: Receipt, key: Ed25519PrivateKey, *, public_key: bytes) -> str:
    """The receipt as a compact JWS; `public_key` is the key's other half."""
    signed = f"{_protected_header(public_key)}.{base64url_encode(compact_json(_payload(receipt)))}"  # RFC 7515 §5.1
    return f"{signed}.{base64url_encode(key.sign(signed.encode('ascii')))}"


@functools.lru_cache(maxsize=64)  # a server signs, and a client verifies, many with one key
def _protected_header(public_key: bytes) -> str:
    return base64url_encode(msgspec.json.encode(_header(public_key)))


def _header(public_key: bytes) -> dict[str, str]:
    return {"alg": ALGORITHM, "typ": TYPE, "kid": receipt_key_id(public_key)}


def verify_receipt(token: str, *, public_key: bytes, keyset_id: bytes) -> Receipt:
    """The receipt, if `public_key` signed exactly this one for the keyset `keyset_id`.

    Raises:
        InvalidReceiptError: another key, algorithm, header or keyset; a changed or malformed receipt.
    """
    if len(token) > MAX_RECEIPT_BYTES:
        raise InvalidReceiptError(f"a receipt has at most {MAX_RECEIPT_BYTES} bytes")
    payload = _authentic_payload(token, public_key)
    try:
        receipt = _parse(strict_struct(_decoder, payload, max_bytes=MAX_RECEIPT_BYTES))
    except ValueError as error:
        raise InvalidReceiptError(f"the receipt is malformed: {error}") from None
    if receipt.keyset_id != keyset_id:
        raise InvalidReceiptError("the receipt belongs to another keyset")
    return receipt


def _authentic_payload(token: str, public_key: bytes) -> bytes:
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004  # RFC 7515 §3.1: header.payload.signature
        raise InvalidReceiptError("a receipt is a compact JWS of three parts")
    try:
        _require_header(parts[0], public_key)
        payload, signature = base64url_decode(parts[1]), base64url_decode(parts[2])
        signed = f"{parts[0]}.{parts[1]}".encode("ascii")
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)  # RFC 8037 §3.1, RFC 9864
    except (InvalidSignature, ValueError):
        raise InvalidReceiptError("the receipt is not signed by the keyset's receipt key") from None
    return payload


def _require_header(encoded: str, public_key: bytes) -> None:
    """Written as we write it, or saying the same in other JSON."""
    if encoded == _protected_header(public_key):
        return
    if strict_json(base64url_decode(encoded), max_bytes=1024) != _header(public_key):
        raise InvalidReceiptError("the receipt's header names another key, type or algorithm, or more than those")


class _Payload(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False):
    """The members of a receipt, as JSON types."""

    complete: bool
    door: _Door
    end_ms: _Whole
    keyset_id: str
    method: str
    model: ModelIdentity | None
    padding: Literal["padme", "none"]
    path: str
    request: str
    request_id: str
    response: str
    runtime_policy: str
    start_ms: _Whole
    status: _Whole
    version: Literal[1]


_decoder = msgspec.json.Decoder(_Payload)


def _payload(receipt: Receipt) -> _Payload:
    return _Payload(
        version=1,
        keyset_id=base64url_encode(receipt.keyset_id),
        request_id=base64url_encode(receipt.request_id),
        door=receipt.door,
        method=receipt.method,
        path=receipt.path,
        status=receipt.status,
        complete=receipt.complete,
        model=receipt.model,
        runtime_policy=base64url_encode(receipt.runtime_policy),
        padding="padme" if receipt.padded else "none",
        start_ms=receipt.start_ms,
        end_ms=receipt.end_ms,
        request=base64url_encode(receipt.request),
        response=base64url_encode(receipt.response),
    )


def _parse(members: _Payload) -> Receipt:
    if members.end_ms < members.start_ms:
        raise ValueError("it ends before it starts")
    return Receipt(
        keyset_id=exact_bytes(members.keyset_id, 32),
        request_id=exact_bytes(members.request_id, 16),
        door=members.door,
        method=printable(members.method),
        path=printable(members.path, max_bytes=2048),
        status=members.status,
        complete=members.complete,
        model=_checked_model(members.model),
        runtime_policy=exact_bytes(members.runtime_policy, 32),
        padded=members.padding == "padme",
        start_ms=members.start_ms,
        end_ms=members.end_ms,
        request=exact_bytes(members.request, 32),
        response=exact_bytes(members.response, 32),
    )


def _checked_model(model: ModelIdentity | None) -> ModelIdentity | None:
    for text in msgspec.structs.astuple(model) if model else ():
        printable(text)
    return model


def response_salt(salt: bytes) -> bytes:
    """Of a request's salt, the 32 bytes that open the response alone: the request stays closed."""
    return Expander(salt).expand(label("salt-response"), 32)


def opens_response(salt: bytes, body: bytes, receipt: Receipt) -> None:
    """Check that a body is the response that the receipt commits to; `salt` is that of `response_salt`.

    Raises:
        InvalidReceiptError: it is not.
    """
    commitment = BodyCommitment(label("receipt-response") + salt)
    commitment.update(body)
    if not hmac.compare_digest(commitment.digest(), receipt.response):
        raise InvalidReceiptError("the response is not the one that the receipt commits to")


def opens(salt: bytes, *, request_body: bytes, response_body: bytes, receipt: Receipt) -> None:
    """Check that the salt and both bodies are those the receipt commits to.

    Raises:
        InvalidReceiptError: the first body that is not.
    """
    for name, commitment, body, committed in (
        ("request", BodyCommitment.to_request(salt), request_body, receipt.request),
        ("response", BodyCommitment.to_response(salt), response_body, receipt.response),
    ):
        commitment.update(body)
        if not hmac.compare_digest(commitment.digest(), committed):
            raise InvalidReceiptError(f"the {name} is not the one that the receipt commits to")
