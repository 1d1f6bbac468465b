"""Receipts: only the keyset's key, algorithm and exact words count; every byte matters."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from blindai.errors import InvalidReceiptError
from blindai.receipts import (
    MAX_RECEIPT_BYTES,
    BodyCommitment,
    ModelIdentity,
    Receipt,
    opens,
    receipt_key_id,
    sign_receipt,
    verify_receipt,
)
from blindai.wire import base64url_decode, base64url_encode, compact_json

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KSID = hashlib.sha256(b"keyset").digest()
MODEL = ModelIdentity(name="m", version="1", digest="sha256:" + "0" * 64, engine="onnxruntime 1.22", precision="FP32")
RECEIPT = Receipt(
    keyset_id=KSID,
    request_id=bytes(range(16)),
    door="sealed",
    method="POST",
    path="/v2/models/m/infer",
    status=200,
    complete=True,
    model=MODEL,
    runtime_policy=bytes(32),
    padded=True,
    start_ms=1_800_000_000_000,
    end_ms=1_800_000_000_007,
    request=hashlib.sha256(b"request").digest(),
    response=hashlib.sha256(b"response").digest(),
)

if TYPE_CHECKING:
    from collections.abc import Callable
TOKEN = sign_receipt(RECEIPT, KEY, public_key=PUBLIC)
HEADER: dict[str, Any] = {"alg": "Ed25519", "typ": "blindai-receipt+jws", "kid": receipt_key_id(PUBLIC)}


def verify(token: str, *, public_key: bytes = PUBLIC, keyset_id: bytes = KSID) -> Receipt:
    return verify_receipt(token, public_key=public_key, keyset_id=keyset_id)


def members() -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(base64url_decode(TOKEN.split(".")[1]))
    return payload


def signed_raw(header: bytes, payload: bytes, key: Ed25519PrivateKey = KEY) -> str:
    """A JWS by hand, with a signature that is right for whatever it says."""
    signed = f"{base64url_encode(header)}.{base64url_encode(payload)}"
    return f"{signed}.{base64url_encode(key.sign(signed.encode()))}"


def signed(payload: dict[str, Any], **header: Any) -> str:
    return signed_raw(compact_json({**HEADER, **header}), compact_json(payload))


_lines = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=40)
_digests = st.binary(min_size=32, max_size=32)
_times = st.integers(0, 2**53 - 1)
receipts = st.builds(
    Receipt,
    keyset_id=st.just(KSID),
    request_id=st.binary(min_size=16, max_size=16),
    door=st.sampled_from(["sealed", "pinned-tls"]),
    method=_lines,
    path=_lines,
    status=st.integers(0, 999),
    complete=st.booleans(),
    model=st.none()
    | st.builds(ModelIdentity, name=_lines, version=_lines, digest=_lines, engine=_lines, precision=_lines),
    runtime_policy=_digests,
    padded=st.booleans(),
    start_ms=_times,
    end_ms=_times,
    request=_digests,
    response=_digests,
).map(lambda receipt: replace(receipt, end_ms=max(receipt.start_ms, receipt.end_ms)))


@given(receipts)
def test_round_trip(receipt: Receipt) -> None:
    assert verify(sign_receipt(receipt, KEY, public_key=PUBLIC)) == receipt


def test_the_header_is_exactly_alg_typ_and_kid() -> None:
    assert json.loads(base64url_decode(TOKEN.split(".")[0])) == HEADER


def test_a_receipt_made_by_hand_from_the_specification_verifies() -> None:
    assert verify(signed(members())) == RECEIPT


def test_every_flipped_byte_is_refused(tell: Callable[[str], None]) -> None:
    data = TOKEN.encode()
    refused = 0
    for position in range(len(data)):
        for mask in (0x01, 0x02, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= mask
            with pytest.raises(InvalidReceiptError):
                verify(changed.decode("latin-1"))
            refused += 1
    assert refused == 4 * len(data)
    tell(f"receipt: {len(data)} bytes, {refused} flips refused")


@given(st.text(max_size=80) | st.text(alphabet="eyJhbGciOi.-_=", max_size=80))
def test_arbitrary_text_raises_only_invalid_receipt(text: str) -> None:
    with pytest.raises(InvalidReceiptError):
        verify(text)


@given(st.sampled_from(sorted(members())), st.none() | st.booleans() | st.integers(-9, 9) | st.text() | st.just([{}]))
def test_a_signed_payload_with_any_member_replaced_parses_or_raises_invalid_receipt(name: str, value: Any) -> None:
    try:
        receipt = verify(signed({**members(), name: value}))
    except InvalidReceiptError:
        return
    free = {"door", "status", "complete", "start_ms", "end_ms", "method", "path", "padding", "model"}
    assert receipt == RECEIPT or name in free


@pytest.mark.parametrize("public_key", [b"", bytes(31), bytes(33), bytes(32), b"\xff" * 32])
def test_a_public_key_that_is_none_raises_only_invalid_receipt(public_key: bytes) -> None:
    token = signed(members(), kid=receipt_key_id(public_key))
    with pytest.raises(InvalidReceiptError):
        verify(token, public_key=public_key)


def test_algorithm_none_is_refused() -> None:
    payload = TOKEN.split(".")[1]
    for alg in ("none", "None", "NONE"):
        header = base64url_encode(compact_json({**HEADER, "alg": alg}))
        for signature in ("", TOKEN.split(".")[2]):
            with pytest.raises(InvalidReceiptError):
                verify(f"{header}.{payload}.{signature}")


def test_hmac_with_the_public_key_as_secret_is_refused() -> None:
    signing_input = f"{base64url_encode(compact_json({**HEADER, 'alg': 'HS256'}))}.{TOKEN.split('.')[1]}"
    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (PUBLIC, base64url_encode(PUBLIC).encode(), pem):
        tag = hmac.digest(secret, signing_input.encode(), "sha256")
        with pytest.raises(InvalidReceiptError):
            verify(f"{signing_input}.{base64url_encode(tag)}")


@pytest.mark.parametrize("alg", ["EdDSA", "ed25519", "Ed448", "ES256", "", None, 1, ["Ed25519"]])
def test_another_algorithm_is_refused_even_with_a_right_signature(alg: object) -> None:
    with pytest.raises(InvalidReceiptError):
        verify(signed(members(), alg=alg))


@pytest.mark.parametrize(
    "header",
    [
        {"kid": receipt_key_id(OTHER.public_key().public_bytes_raw())},
        {"kid": ""},
        {"typ": "JWT"},
        {"crit": ["b64"], "b64": False},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": base64url_encode(PUBLIC)}},
        {"jku": "https://example.org/keys"},
        {"x5c": []},
        {"zip": "DEF"},
        {"nonce": ""},
    ],
)
def test_another_header_is_refused_even_with_a_right_signature(header: dict[str, Any]) -> None:
    with pytest.raises(InvalidReceiptError):
        verify(signed(members(), **header))


@pytest.mark.parametrize("missing", ["alg", "typ", "kid"])
def test_a_header_that_lacks_a_member_is_refused(missing: str) -> None:
    header = {name: value for name, value in HEADER.items() if name != missing}
    with pytest.raises(InvalidReceiptError):
        verify(signed_raw(compact_json(header), compact_json(members())))


def test_a_header_that_names_a_member_twice_is_refused() -> None:
    header = compact_json(HEADER).replace(b'{"alg"', b'{"alg":"none","alg"')
    with pytest.raises(InvalidReceiptError):
        verify(signed_raw(header, compact_json(members())))


def test_a_swapped_key_is_refused() -> None:
    other = OTHER.public_key().public_bytes_raw()
    with pytest.raises(InvalidReceiptError):
        verify(TOKEN, public_key=other)
    with pytest.raises(InvalidReceiptError):
        verify(sign_receipt(RECEIPT, OTHER, public_key=other))
    with pytest.raises(InvalidReceiptError):  # signed by another key under the right key's name
        verify(signed_raw(compact_json(HEADER), compact_json(members()), OTHER))


def test_another_part_another_form_or_padded_base64_is_refused() -> None:
    header, payload, signature = TOKEN.split(".")
    for token in (
        TOKEN + ".",
        TOKEN + "." + signature,
        "." + TOKEN,
        f"{header}.{payload}",
        f"{header}..{signature}",
        f"{header}.{payload}.",
        "",
        "..",
        f"{header}=.{payload}.{signature}",
        f"{header}.{payload}=.{signature}",
        f"{header}.{payload}.{signature}==",
        TOKEN + "\n",
        " " + TOKEN,
        json.dumps({"payload": payload, "protected": header, "signature": signature}),
    ):
        with pytest.raises(InvalidReceiptError):
            verify(token)


def test_spliced_receipts_are_refused() -> None:
    other = sign_receipt(replace(RECEIPT, status=500), KEY, public_key=PUBLIC).split(".")
    mine = TOKEN.split(".")
    for token in ((mine[0], other[1], mine[2]), (mine[0], mine[1], other[2])):
        with pytest.raises(InvalidReceiptError):
            verify(".".join(token))


def test_another_keyset_is_refused() -> None:
    with pytest.raises(InvalidReceiptError, match="another keyset"):
        verify(TOKEN, keyset_id=bytes(32))


def test_a_receipt_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidReceiptError, match="at most"):
        verify("a" * (MAX_RECEIPT_BYTES + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": True},
        {"door": "grpc"},
        {"door": None},
        {"padding": "most"},
        {"complete": 1},
        {"status": -1},
        {"status": True},
        {"start_ms": "1"},
        {"end_ms": 1_799_999_999_999},
        {"request": "AA"},
        {"request_id": base64url_encode(bytes(17))},
        {"model": {}},
        {"model": {"name": "m"}},
        {"path": "/a\nb"},
        {"counter": 7},
    ],
)
def test_a_signed_but_malformed_payload_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidReceiptError, match="malformed"):
        verify(signed({**members(), **changes}))


@pytest.mark.parametrize("missing", sorted(members()))
def test_a_signed_payload_that_lacks_a_member_is_refused(missing: str) -> None:
    payload = {name: value for name, value in members().items() if name != missing}
    with pytest.raises(InvalidReceiptError, match="malformed"):
        verify(signed(payload))


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b'{"version":1,"version":1}', b"\xff"])
def test_a_signed_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidReceiptError):
        verify(signed_raw(compact_json(HEADER), payload))


def expand_32(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 §2.3 for one block, by hand."""
    return hmac.digest(secret, info + b"\1", "sha256")


@given(st.binary(max_size=64), st.integers(0, 64))
def test_commitments_are_the_specified_hashes_however_the_body_is_cut(body: bytes, cut: int) -> None:
    salt = bytes(range(32))
    request, response = BodyCommitment.to_request(salt), BodyCommitment.to_response(salt)
    for piece in (body[:cut], memoryview(body[cut:])):
        request.update(piece)
        response.update(piece)
    for commitment, name in ((request, b"request"), (response, b"response")):
        salted = b"blindai/1 receipt-" + name + b"\0" + expand_32(salt, b"blindai/1 salt-" + name + b"\0") + body
        assert commitment.digest() == hashlib.sha256(salted).digest()


def committed(salt: bytes, request_body: bytes, response_body: bytes) -> Receipt:
    request, response = BodyCommitment.to_request(salt), BodyCommitment.to_response(salt)
    request.update(request_body)
    response.update(response_body)
    return replace(RECEIPT, request=request.digest(), response=response.digest())


def test_a_receipt_opens_only_with_its_salt_and_bodies() -> None:
    salt = b"s" * 32
    receipt = committed(salt, b"in", b"out")
    opens(salt, request_body=b"in", response_body=b"out", receipt=receipt)
    for wrong_salt, request_body, response_body, name in (
        (salt, b"In", b"out", "request"),
        (salt, b"in", b"out ", "response"),
        (salt, b"out", b"in", "request"),
        (b"t" * 32, b"in", b"out", "request"),
    ):
        with pytest.raises(InvalidReceiptError, match=name):
            opens(wrong_salt, request_body=request_body, response_body=response_body, receipt=receipt)


def test_equal_bodies_leave_different_commitments_in_each_direction() -> None:
    receipt = committed(b"s" * 32, b"same", b"same")
    assert receipt.request != receipt.response
