"""A TPM's structures at their limits, each read field by field: what just fits is read, one more is refused."""

from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fakes.tpm_vendor import (
    ATTRIBUTES,
    NULL,
    FakeTpm,
    public_area,
    rsa_key,
    scheme_bytes,
    sized16,
    tpm_signature,
    u16,
    u32,
)

from blindai.attestation.tpm2 import keys
from blindai.attestation.tpm2.keys import Scheme, TpmSignature, is_signed, parse_public, parse_signature
from blindai.attestation.tpm2.quote import parse_quote
from blindai.errors import MalformedEvidenceError

RSASSA, ECDSA = scheme_bytes("rsassa", "sha256"), scheme_bytes("ecdsa", "sha256")
HEAD = u16(0x0001) + u16(0x000B) + u32(ATTRIBUTES) + sized16(b"") + u16(NULL) + RSASSA
CURVE_KEY = ec.generate_private_key(ec.SECP256R1())
NAMES = {
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


def refused(part: str, raw: bytes, problem: str) -> None:
    """With the part's own code, and for this reason."""
    parser, code = {
        "public": (parse_public, "ak_format"),
        "signature": (parse_signature, "signature_format"),
        "quote": (parse_quote, "quote_format"),
    }[part]
    with pytest.raises(MalformedEvidenceError, match=re.escape(problem)) as refusal:
        parser(raw, tee="tpm")
    assert refusal.value.finding_code == f"tpm.{code}"


def rsa_area(bits: int, *, said: int | None = None, exponent: int = 0) -> bytes:
    modulus = ((1 << bits - 1) + 1).to_bytes((bits + 7) // 8, "big")
    return HEAD + u16(said or bits) + u32(exponent) + sized16(modulus)


def test_the_smallest_and_the_largest_rsa_key_are_read() -> None:
    for bits in (2048, 4096):
        key = parse_public(rsa_area(bits), tee="tpm").key
        assert isinstance(key, rsa.RSAPublicKey)
        assert (key.key_size, key.public_numbers().e) == (bits, 65537)
    other = parse_public(rsa_area(2048, exponent=3), tee="tpm").key
    assert isinstance(other, rsa.RSAPublicKey)
    assert other.public_numbers().e == 3


def test_rsa_keys_beyond_are_refused() -> None:
    refused("public", rsa_area(2047), "a modulus of 2047 bits is declared as 2047")
    refused("public", rsa_area(4104), "the modulus has 513 bytes, at most 512")
    refused("public", rsa_area(2048, said=2049), "a modulus of 2048 bits is declared as 2049")


def test_a_policy_is_at_most_a_digest() -> None:
    key = rsa_key()
    assert parse_public(public_area(key, policy=bytes(64), scheme=RSASSA), tee="tpm").scheme is not None
    refused("public", public_area(key, policy=bytes(65), scheme=RSASSA), "the policy has 65 bytes, at most 64")


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_a_coordinate_is_as_long_as_the_curves_numbers(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    area = public_area(key, scheme=ECDSA)
    assert parse_public(area, tee="tpm").key == key.public_key()
    size = (curve.key_size + 7) // 8
    head, x, y = area[: -2 * (size + 2)], area[-2 * size - 2 : -size - 2], area[-size:]
    assert parse_public(head + sized16(x) + sized16(y), tee="tpm").key == key.public_key()
    for axis, raw in (("x", sized16(b"\0" + x) + sized16(y)), ("y", sized16(x) + sized16(b"\0" + y))):
        refused("public", head + raw, f"the coordinate {axis} has {size + 1} bytes, at most {size}")


def test_every_attribute_has_its_bit_and_every_other_bit_is_refused() -> None:
    for bit in range(32):
        area = public_area(rsa_key(), attributes=1 << bit, scheme=RSASSA)
        if bit in NAMES:
            assert parse_public(area, tee="tpm").attributes == {NAMES[bit]}
        else:
            refused("public", area, "have reserved bits")


def test_a_symmetric_algorithm_marks_a_storage_key() -> None:
    assert not parse_public(public_area(rsa_key(), scheme=RSASSA), tee="tpm").has_symmetric
    area = public_area(rsa_key(), scheme=u16(NULL), symmetric=b"\x00\x06\x00\x80\x00\x43")
    assert parse_public(area, tee="tpm").has_symmetric
    assert parse_public(area, tee="tpm").scheme is None


def test_signatures_are_as_long_as_the_longest_number() -> None:
    assert parse_signature(RSASSA + sized16(bytes(512)), tee="tpm").value == bytes(512)
    refused("signature", RSASSA + sized16(bytes(513)), "the signature has 513 bytes, at most 512")
    one, most, more = sized16(b"\1"), sized16(b"\1" * 66), sized16(b"\1" * 67)
    for numbers in (most + one, one + most):
        r, s = decode_dss_signature(parse_signature(ECDSA + numbers, tee="tpm").value)
        assert {r, s} == {1, int.from_bytes(b"\1" * 66, "big")}
    refused("signature", ECDSA + more + one, "the number r has 67 bytes, at most 66")
    refused("signature", ECDSA + one + more, "the number s has 67 bytes, at most 66")
    refused("signature", u16(NULL), "it has no scheme")


def test_a_signature_counts_with_the_scheme_of_its_key_only() -> None:
    curve, key = CURVE_KEY, rsa_key()
    good = parse_signature(tpm_signature(curve, "ecdsa", "sha256", b"m"), tee="tpm")
    assert is_signed(b"m", good, curve.public_key())
    for name in ("rsassa", "rsapss", "another"):
        other = TpmSignature(scheme=Scheme(name=name, digest="sha256"), value=good.value)
        assert not is_signed(b"m", other, curve.public_key())
    pkcs = key.sign(b"m", padding.PKCS1v15(), hashes.SHA256())
    accepted = {
        name: is_signed(b"m", TpmSignature(scheme=Scheme(name=name, digest="sha256"), value=pkcs), key.public_key())
        for name in ("rsassa", "rsapss", "ecdsa")
    }
    assert accepted == {"rsassa": True, "rsapss": False, "ecdsa": False}


def test_each_digest_has_its_size() -> None:
    assert {name: algorithm.digest_size for name, algorithm in keys._HASHES.items()} == keys.DIGEST_BYTES


def quote(signer: bytes = b"s", extra: bytes = b"e", digest: bytes = b"d") -> bytes:
    clock = (1).to_bytes(8, "big") + u32(2) + u32(3) + b"\1" + (4).to_bytes(8, "big")
    head = u32(0xFF544347) + u16(0x8018) + sized16(signer) + sized16(extra) + clock
    return head + u32(1) + u16(0x000B) + b"\3\x81\0\x80" + sized16(digest)


def test_a_quote_is_read_field_by_field() -> None:
    read = parse_quote(quote(), tee="tpm")
    assert (read.qualified_signer, read.extra_data, read.pcr_digest) == (b"s", b"e", b"d")
    assert (read.clock, read.reset_count, read.restart_count, read.safe, read.firmware_version) == (1, 2, 3, True, 4)
    assert (read.bank, read.selection, read.signed) == ("sha256", (0, 7, 23), quote())


@pytest.mark.parametrize(
    ("field", "name"), [("signer", "qualified signer"), ("extra", "extra data"), ("digest", "PCR digest")]
)
def test_a_quotes_parts_are_at_most_66_bytes_long(field: str, name: str) -> None:
    parse_quote(quote(**{field: bytes(66)}), tee="tpm")
    refused("quote", quote(**{field: bytes(67)}), f"the {name} has 67 bytes, at most 66")


def test_keys_signatures_and_quotes_are_not_shown_whole() -> None:
    evidence = FakeTpm().evidence()
    public, signature = parse_public(evidence.ak_public, tee="tpm"), parse_signature(evidence.signature, tee="tpm")
    shown = repr(public) + repr(signature) + repr(parse_quote(evidence.quote, tee="tpm"))
    assert re.findall(r"\b(?:key|value|signed)=", shown) == []
    assert "name_digest='sha256'" in shown
