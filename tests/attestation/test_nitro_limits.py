"""A Nitro document's limits: what stands just at one is read, and what is refused is refused for its own reason."""

from __future__ import annotations

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fakes import aws

from blindai.attestation.aws.cose_sign1 import MAX_PAYLOAD_BYTES, CoseSign1, parse_sign1, read_map, to_be_signed
from blindai.attestation.aws.nitro_document import parse

ENVELOPE = [aws.PROTECTED, {}, b"payload", bytes(96)]


def enveloped(payload: bytes) -> bytes:
    return cbor2.dumps([*ENVELOPE[:2], payload, bytes(96)])


def test_limits_are_inclusive() -> None:
    most = {"user_data": bytes(512), "nonce": bytes(512), "public_key": bytes(1024), "timestamp": 253402300799999}
    most |= {"module_id": "i" * 255, "certificate": bytes(1024), "cabundle": [bytes(1024)] * 7}
    assert parse(aws.Enclave(members=most).document()).ca_bundle == (bytes(1024),) * 7
    least = {"user_data": b"", "nonce": b"", "public_key": b"k", "timestamp": 1}
    least |= {"module_id": "i", "certificate": b"c", "cabundle": [b"c"]}
    read = parse(aws.Enclave(members=least).document())
    assert (read.user_data, read.nonce, read.timestamp_ms, read.certificate) == (b"", b"", 1, b"c")


@pytest.mark.parametrize("size", [1, MAX_PAYLOAD_BYTES])
def test_payloads_of_either_size_at_the_limit_are_read(size: int) -> None:
    assert parse_sign1(enveloped(bytes(size))).payload == bytes(size)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (bytes(MAX_PAYLOAD_BYTES + 257), "16641 bytes are more"),
        (bytes(MAX_PAYLOAD_BYTES + 256), "no array of four"),
        (cbor2.dumps(ENVELOPE[:3]), "no array of four"),
        (enveloped(b""), "the payload is no byte string of 1 to"),
        (enveloped(bytes(MAX_PAYLOAD_BYTES + 1)), "the payload is no byte string of 1 to"),
        (b"\x81" * 5000 + b"\0", "not the CBOR that is expected: .*nesting"),
    ],
)
def test_an_envelope_is_refused_for_its_own_reason(raw: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_sign1(raw)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (cbor2.dumps({1: 2}), "no map with text as names"),
        (cbor2.dumps({"a": 1, 1: 2}), "no map with text as names"),
        (b"\xa2" + (cbor2.dumps("a") + b"\0") * 2, "not the CBOR that is expected: .*Duplicate"),
        (cbor2.dumps({"a": cbor2.CBORTag(1, 5)}), "not the CBOR that is expected: .*tag 1"),
        (cbor2.dumps({"a": [[1]]}), "not the CBOR that is expected: .*nesting"),
    ],
)
def test_a_payload_is_refused_for_its_own_reason(payload: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_map(payload)


def test_a_document_is_not_shown_whole() -> None:
    shown = repr(parse(aws.Enclave().document()))
    assert "module_id" in shown
    assert not [name for name in ("payload", "signature", "certificate", "ca_bundle") if f"{name}=" in shown]


@pytest.mark.parametrize(("curve", "counts"), [(ec.SECP384R1(), True), (ec.SECP256R1(), False)])
def test_a_good_signature_counts_on_p_384_only(curve: ec.EllipticCurve, counts: bool) -> None:  # noqa: FBT001  # the expectation
    key = ec.generate_private_key(curve)
    numbers = decode_dss_signature(key.sign(to_be_signed(b"p"), ec.ECDSA(hashes.SHA384())))
    signature = b"".join(number.to_bytes(48, "big") for number in numbers)
    assert CoseSign1(payload=b"p", signature=signature).is_signed_by(key.public_key()) is counts
