"""Manifests: exactly reference values, signed over their exact bytes by a key that is pinned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.manifest import (
    Manifest,
    parse_manifest,
    parse_signatures,
    sign_manifest,
    verify_manifest,
)
from blindai.attestation.policy_release import parse_release
from blindai.errors import InvalidManifestError

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(3)]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]
DIGEST = "sha256:" + "cd" * 32
GOOD = f"""version = 1
name = "blindai"
release = "1.2.0"

[tee.sev_snp]
measurement = ["{"ab" * 48}"]

[tee.tpm.pcrs]
"4" = ["{"ef" * 32}", "{"01" * 32}"]

[tee.sgx]
isv_prod_id = 3

[models]
risk = "{DIGEST}"
"""


def lines(*keys: Ed25519PrivateKey, data: bytes = GOOD.encode()) -> bytes:
    return "".join(f"{sign_manifest(data, key).line()}\n" for key in keys).encode()


def refusal(data: bytes, signatures: bytes, *keys: bytes) -> InvalidManifestError:
    with pytest.raises(InvalidManifestError) as refused:
        verify_manifest(data, signatures, public_keys=keys, source="m")
    return refused.value


def test_a_manifest_says_what_stands_in_its_file() -> None:
    assert parse_manifest(GOOD.encode(), source="m") == Manifest(
        name="blindai",
        release=parse_release("1.2.0"),
        tees={
            "sev_snp": {"measurement": ["ab" * 48]},
            "tpm": {"pcrs": {"4": ["ef" * 32, "01" * 32]}},
            "sgx": {"isv_prod_id": 3},
        },
        models=(("risk", DIGEST),),
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("version = 1", "version = 2", "m, line 1: `version` must be 1: this release reads manifests of version 1"),
        ('name = "blindai"', "name = 1", "m, line 2: `name` must be a text"),
        ('name = "blindai"', 'name = "a\\nb"', "m, line 2: `name` must be a text"),
        ('name = "blindai"\n', "", "m, line 1: the policy does not set `name`"),
        ('release = "1.2.0"', 'release = "1.2"', "m, line 3: `release` is no release"),
        ('release = "1.2.0"', "release = 1.2", "m, line 3: `release` is no release"),
        ("[models]", "[model]", "m, line 14: `model` is not known here; known are version, name, release, tee, models"),
        ("[tee.sev_snp]", "[tee.SNP]", "m, line 5: `tee.SNP` is not the name of a TEE"),
        ("[tee.sgx]\nisv_prod_id = 3\n", "[tee.sgx]\n", "m, line 11: `tee.sgx` has no reference value"),
        ("isv_prod_id = 3", "isv_prod_id = -1", "m, line 12: `tee.sgx.isv_prod_id` must be a list of lower-case hex"),
        ("isv_prod_id = 3", "isv_prod_id = []", "m, line 12: `tee.sgx.isv_prod_id` must be a list of"),
        ("isv_prod_id = 3", "isv_prod_id = [3]", "m, line 12: `tee.sgx.isv_prod_id` must be a list of"),
        ("isv_prod_id = 3", 'mr_signer = ["ab", "zz"]', "m, line 12: `tee.sgx.mr_signer` must be a list of"),
        ("isv_prod_id = 3", 'mr_signer = ["ab", ["cd"]]', "m, line 12: `tee.sgx.mr_signer` must be a list of"),
        ("isv_prod_id = 3", "debug = true", "m, line 12: `tee.sgx.debug` must be a list of lower-case"),
        ("isv_prod_id = 3", 'debug.skip = "why not"', "m, line 12: `tee.sgx.debug.skip` must be a list of"),
        ("isv_prod_id = 3", "track = []", "m, line 12: `tee.sgx.track` must be a list of"),
        ("isv_prod_id = 3", 'track = ["sgx.debug"]', "m, line 12: `tee.sgx.track` must be a list of"),
        ("isv_prod_id = 3", "a.b.c.d = 1", "m, line 12: `tee.sgx.a.b.c` must be a list of"),
        ("isv_prod_id = 3", "a = {}", "m, line 12: `tee.sgx.a` has no reference value"),
        ("sha256:", "md5:", "m, line 15: `models.risk` must be `sha256:` and 64"),
        (f'"{DIGEST}"', "1", "m, line 15: `models.risk` must be `sha256:`"),
        ("[models]", "[models", "m, line 14: not TOML"),
    ],
)
def test_an_error_names_the_line(old: str, new: str, problem: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidManifestError, match=re.escape(problem)):
        parse_manifest(GOOD.replace(old, new, 1).encode(), source="m")


def test_a_manifest_names_something() -> None:
    head = GOOD[: GOOD.index("[tee")]
    with pytest.raises(InvalidManifestError, match="names neither a TEE's reference values nor a model"):
        parse_manifest(head.encode(), source="m")
    assert parse_manifest(f'{head}[models]\na = "{DIGEST}"'.encode(), source="m").tees == {}
    assert parse_manifest(f'{head}[tee.nitro]\npcr0 = ["ab"]'.encode(), source="m").models == ()


@pytest.mark.parametrize(("data", "problem"), [(b"\xff", "not UTF-8"), (b"#" * ((1 << 20) + 1), "at most")])
def test_what_is_no_text_or_too_long_is_no_manifest(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidManifestError, match=problem):
        parse_manifest(data, source="m")


def test_the_smallest_number_and_the_longest_file_are_a_manifests() -> None:
    data = GOOD.replace("isv_prod_id = 3", "isv_prod_id = 0").encode().ljust(1 << 20, b"\n")
    assert parse_manifest(data, source="m").tees["sgx"] == {"isv_prod_id": 0}


def test_one_signature_by_a_pinned_key_suffices() -> None:
    manifest, signer = verify_manifest(GOOD.encode(), lines(*KEYS), public_keys=(PUBLIC[2], PUBLIC[1]), source="m")
    assert (manifest.name, signer) == ("blindai", PUBLIC[1])


def test_a_signature_by_another_key_or_over_other_bytes_is_none() -> None:
    changed = GOOD.replace("1.2.0", "1.2.1").encode()
    for data, signatures in (
        (GOOD.encode(), lines(KEYS[1])),
        (changed, lines(KEYS[0])),
        (changed + b"\n", lines(KEYS[0])),
    ):
        error = refusal(data, signatures, PUBLIC[0])
        assert str(error) == "m: no signature by a pinned key"
        assert "from the same release" in error.hint


def test_a_signature_moved_to_another_key_is_none() -> None:
    moved = lines(KEYS[1]).replace(lines(KEYS[1]).split(b" ")[1], lines(KEYS[0]).split(b" ")[1])
    assert "no signature" in str(refusal(GOOD.encode(), moved, PUBLIC[0]))


def test_no_changed_bit_of_manifest_or_signature_is_accepted() -> None:
    data, signatures = GOOD.encode(), lines(KEYS[0])
    for whole, other in ((data, False), (signatures, True)):
        for position in range(len(whole)):
            for bit in range(8):
                changed = bytearray(whole)
                changed[position] ^= 1 << bit
                pair = (data, bytes(changed)) if other else (bytes(changed), signatures)
                refusal(*pair, PUBLIC[0])


def test_it_is_signed_for_this_purpose_alone() -> None:
    bare = KEYS[0].sign(GOOD.encode())
    (good,) = parse_signatures(lines(KEYS[0]), source="m.sig")
    assert good.is_of(GOOD.encode())
    assert not type(good)(public_key=PUBLIC[0], signature=bare).is_of(GOOD.encode())
    assert not type(good)(public_key=b"\xff" * 32, signature=bare).is_of(GOOD.encode())


@pytest.mark.parametrize(
    ("signatures", "problem"),
    [
        (b"", "expected 1 to 16 whole lines, found 0"),
        (lines(KEYS[0]) * 17, "expected 1 to 16 whole lines, found 17"),
        (b"x" * 4097, "at most 4096 bytes"),
        (b"x" * 4096, "expected 1 to 16 whole lines, found 0"),
        (lines(KEYS[0]) + b"x", "expected 1 to 16 whole lines, found 1"),
        (b"\xff\n", "m.sig, line 1: expected `ed25519 KEY SIGNATURE`"),
        (lines(KEYS[0]) + b"\n", "m.sig, line 2: expected"),
        (lines(KEYS[0]).replace(b"ed25519", b"ed448"), "line 1: expected"),
        (lines(KEYS[0]).replace(b"ed25519 ", b"ed25519  "), "line 1: expected"),
        (lines(KEYS[0])[:-3], "expected 1 to 16 whole lines, found 0"),
        (lines(KEYS[0])[:-3] + b"\n", "line 1: expected"),
    ],
)
def test_a_signature_file_is_exact(signatures: bytes, problem: str) -> None:
    assert problem in str(refusal(GOOD.encode(), signatures, PUBLIC[0]))


def test_sixteen_keys_may_have_signed() -> None:
    assert len(parse_signatures(lines(KEYS[0]) * 16, source="m.sig")) == 16


@given(st.binary(max_size=60) | st.text(alphabet='[]{}=." \n1atevmodls').map(str.encode))
def test_only_an_invalid_manifest_comes_out_of_any_bytes(data: bytes) -> None:
    for parse in (parse_manifest, parse_signatures):
        with pytest.raises(InvalidManifestError, match=r"^m"):
            parse(data, source="m")


def test_the_example_of_the_specification_is_a_manifest() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "manifest.md").read_text("utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert parse_manifest(examples[0].encode(), source="manifest.md").models
