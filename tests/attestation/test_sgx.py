"""SGX policies: each check of an enclave fails on what it is for, and on nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attestation.intel_cases import failures, findings, policy_of, verify
from fakes.intel import FakeEvidence

from blindai.attestation.evidence import Outcome
from blindai.attestation.tee.sgx import CODES, FLAG_BITS
from blindai.errors import InvalidPolicyError

DOCUMENT = Path(__file__).parents[2] / "docs" / "spec" / "tee" / "sgx.md"
ENCLAVE, SIGNER = b"e".hex() * 32, b"s".hex() * 32
SKIP = '{ skip = "not here" }'


def policy_text(**changes: str) -> str:
    lines = {"mr_enclave": f'["{ENCLAVE}"]', "mr_signer": f'["{SIGNER}"]', "isv_prod_id": "[0, 1]", "isv_svn": "2"}
    return "\n".join(f"{name} = {value}" for name, value in (lines | changes).items())


STRICT = policy_of("sgx", policy_text())


def enclave(**body: bytes) -> FakeEvidence:
    return FakeEvidence(tee="sgx", version=3, body=body)


def flags(bits: int, xfrm: int = 3) -> FakeEvidence:
    return enclave(attributes=bits.to_bytes(8, "little") + xfrm.to_bytes(8, "little"))


def test_good_evidence_passes_every_check_of_strict() -> None:
    made = findings(enclave(), STRICT)
    assert {f"sgx.{code}" for code in made} == CODES
    assert {finding.outcome for finding in made.values()} == {Outcome.PASSED, Outcome.SKIPPED}


@pytest.mark.parametrize(
    ("field", "value", "codes"),
    [
        ("mr_enclave", b"x" * 32, {"mr_enclave"}),
        ("mr_signer", b"x" * 32, {"mr_signer"}),
        ("isv_prod_id", b"\2\0", {"isv_prod_id"}),
        ("isv_prod_id", b"\1\1", {"isv_prod_id"}),
        ("isv_prod_id", b"\0\0", set()),
        ("isv_svn", b"\1\0", {"isv_svn"}),
        ("isv_svn", b"\0\1", set()),
        ("config_id", b"\1" + bytes(63), {"config_id"}),
        ("config_svn", b"\1\0", set()),
        ("misc_select", b"\1\0\0\0", set()),
        ("misc_select", b"\2\0\0\0", {"misc_select"}),
        ("isv_family_id", b"f" * 16, set()),
        ("isv_ext_prod_id", b"f" * 16, set()),
    ],
)
def test_each_field_of_the_report_is_compared(field: str, value: bytes, codes: set[str]) -> None:
    assert failures(enclave(**{field: value}), STRICT) == codes


@pytest.mark.parametrize(
    ("bits", "codes"),
    [
        (0x05, set()),
        (0x07, {"debug"}),
        (0x01, {"mode64", "attributes_flags"}),
        (0x04, {"mode64", "attributes_flags"}),
        (0x15, {"attributes_flags"}),
        (0x25, {"attributes_flags"}),
        (0x45, set()),
        (0x85, set()),
        (0x405, set()),
        (0x0D, {"attributes_flags"}),
        (0x05 | 1 << 63, {"attributes_flags"}),
    ],
)
def test_each_flag_is_judged(bits: int, codes: set[str]) -> None:
    assert failures(flags(bits), STRICT) == codes


def test_features_are_compared_where_the_mask_looks() -> None:
    assert failures(flags(5, 0x602E7), STRICT) == set()
    assert failures(flags(5, 2), STRICT) == {"attributes_xfrm"}
    narrow = policy_text(attributes_xfrm='{ value = "0300000000000000", mask = "ffffffffffffffff" }')
    assert failures(flags(5, 7), policy_of("sgx", narrow)) == {"attributes_xfrm"}


def test_an_enclave_may_be_named_by_its_measurement_or_by_its_signer() -> None:
    by_signer = policy_of("sgx", policy_text(mr_enclave=SKIP))
    assert failures(enclave(mr_enclave=b"x" * 32), by_signer) == set()
    by_measurement = policy_of("sgx", policy_text(mr_signer=SKIP, isv_prod_id=SKIP, isv_svn=SKIP))
    other = enclave(mr_signer=b"x" * 32, isv_prod_id=b"\7\0", isv_svn=b"\0\0")
    assert failures(other, by_measurement) == set()
    assert findings(other, by_measurement)["isv_prod_id"].outcome is Outcome.SKIPPED
    assert failures(enclave(mr_enclave=b"x" * 32), by_measurement) == {"mr_enclave"}


def test_debug_is_accepted_only_on_purpose() -> None:
    assert failures(flags(7), policy_of("sgx", policy_text(debug='{ skip = "a test enclave" }'))) == set()
    assert failures(flags(5), policy_of("sgx", policy_text(debug="true"))) == {"debug"}


def test_the_policy_of_the_seed_generation_can_be_said() -> None:
    """Its eight fields: mr_enclave, allow_debug, and value and mask of attributes, xfrm and misc."""
    text = policy_text(
        debug='{ skip = "allow_debug = true" }',
        mr_signer=SKIP,
        isv_prod_id=SKIP,
        isv_svn=SKIP,
        attributes_flags='{ value = "0500000000000000", mask = "fdffffffffffffff" }',
        attributes_xfrm='{ value = "0300000000000000", mask = "fbffffffffffffff" }',
        misc_select='{ value = "00000000", mask = "ffffffff" }',
    )
    assert failures(flags(7, 7), policy_of("sgx", text)) == set()
    assert failures(enclave(misc_select=b"\1\0\0\0"), policy_of("sgx", text)) == {"misc_select"}
    assert failures(flags(0x85), policy_of("sgx", text)) == {"attributes_flags"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("isv_prod_id", SKIP),
        ("isv_prod_id", "[]"),
        ("isv_prod_id", "1"),
        ("isv_prod_id", "[65536]"),
        ("isv_prod_id", "[-1]"),
        ("isv_prod_id", "[1, -1]"),
        ("isv_prod_id", '[1, "2"]'),
        ("isv_prod_id", "[1, 65536]"),
        ("isv_prod_id", "[true]"),
        ("isv_svn", "-1"),
        ("mr_enclave", '["00"]'),
        ("mr_enclave", "[]"),
        ("misc_select", '{ value = "0000", mask = "0000" }'),
        ("attributes_flags", '{ value = "0200000000000000", mask = "0100000000000000" }'),
        ("attributes_xfrm", '"03"'),
    ],
)
def test_other_fields_are_refused_with_their_line(name: str, value: str) -> None:
    with pytest.raises(InvalidPolicyError, match=rf"policy.toml, line \d+: `tee\.sgx\.{name}"):
        policy_of("sgx", policy_text(**{name: value}))


def test_claims_are_shown_in_intels_words() -> None:
    facts = dict(verify(enclave().item())[0].facts())
    assert (facts["MRENCLAVE"], facts["ISVSVN"], facts["flags"]) == (ENCLAVE, "2", "INIT, MODE64BIT")
    assert (facts["XFRM"], facts["MISCSELECT"], facts["FMSPC"]) == ("0300000000000000", "00000000", "90c06f000000")
    assert dict(verify(flags(0).item())[0].facts())["flags"] == "none"


def test_each_flag_has_its_bit() -> None:
    """Intel SDM volume 3D, "SECS.ATTRIBUTES"."""
    assert FLAG_BITS == {
        "INIT": 0,
        "DEBUG": 1,
        "MODE64BIT": 2,
        "PROVISIONKEY": 4,
        "EINITTOKEN_KEY": 5,
        "CET": 6,
        "KSS": 7,
        "AEX_NOTIFY": 10,
    }


def test_a_product_is_any_number_of_16_bits() -> None:
    assert policy_of("sgx", policy_text(isv_prod_id="[0, 65535]")).isv_prod_id == (0, 65535)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "size"), [("mr_enclave", 32), ("mr_signer", 32), ("config_id", 64)])
def test_a_reference_value_is_as_long_as_its_field(name: str, size: int) -> None:
    assert getattr(policy_of("sgx", policy_text(**{name: f'["{"ab" * size}"]'})), name) == (b"\xab" * size,)
    for other in (size - 1, size + 1):
        with pytest.raises(InvalidPolicyError, match=f"must be a list of text of {2 * size} "):
            policy_of("sgx", policy_text(**{name: f'["{"ab" * other}"]'}))


def test_every_code_is_documented() -> None:
    listed = set(re.findall(r"^\| `(sgx\.[a-z0-9_]+)` \| check \|", DOCUMENT.read_text("utf-8"), re.MULTILINE))
    assert listed == CODES
