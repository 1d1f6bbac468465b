"""Policy files of the seed generation still say what they said, in today's words."""

from __future__ import annotations

from dataclasses import fields

import pytest
from attestation.samples import needs_evidence

from blindai.attestation.checks import Checks, failed
from blindai.attestation.evidence import Level
from blindai.attestation.intel.masked import Masked
from blindai.attestation.policy import parse_policy
from blindai.attestation.policy_file import Skip
from blindai.attestation.policy_legacy import FIELDS
from blindai.attestation.tee import TEES
from blindai.attestation.tee.sgx import SgxPolicy
from blindai.errors import InvalidPolicyError

ENCLAVE = "4000659c8f1c3094f9eefa7fb9ccc5bdb21b6f2893cdb5081f179e737d0c7247"
# The values of the file that the seed's server printed when it was built for production.
SEED = f"""# Enclave policy file for production
mr_enclave = "{ENCLAVE}"
allow_debug = false
attributes_flags_hex = "0x4"
attributes_mask_flags_hex = "0xfffffffffffffffd"
attributes_xfrm_hex = "0x3"
attributes_mask_xfrm_hex = "0xffffffffffffff1b"
misc_select_hex = "0x0"
misc_mask_hex = "0xffffffff"
"""


OF_THE_FILE = {f"sgx.{name}" for name in ("mr_enclave", "debug", "attributes_flags", "attributes_xfrm", "misc_select")}


def sgx(text: str) -> SgxPolicy:
    ((tee,),) = parse_policy(text, source="p").any_of
    assert isinstance(tee, SgxPolicy)
    return tee


def test_the_eight_fields_are_an_sgx_policy() -> None:
    tee = sgx(SEED)
    assert tee.mr_enclave == (bytes.fromhex(ENCLAVE),)
    assert tee.debug is False
    assert tee.attributes_flags == Masked(
        value=bytes.fromhex("0500000000000000"), mask=bytes.fromhex("fdffffffffffffff")
    )
    assert tee.attributes_xfrm == Masked(
        value=bytes.fromhex("0300000000000000"), mask=bytes.fromhex("1bffffffffffffff")
    )
    assert tee.misc_select == Masked(value=bytes(4), mask=b"\xff" * 4)


def test_what_its_client_demanded_of_every_platform_is_still_demanded() -> None:
    tee = sgx(SEED)
    assert tee.tcb_statuses == ("UpToDate", "SWHardeningNeeded")
    assert (tee.collateral_grace_s, tee.revocation_grace_s, tee.track) == (0, 0, frozenset())


def test_what_it_leaves_open_is_skipped_with_a_reason() -> None:
    policy = parse_policy(SEED, source="p")
    said = {"mr_enclave", "debug", "attributes_flags", "attributes_xfrm", "misc_select"}
    said |= {"tcb_statuses", "collateral_grace_s", "revocation_grace_s", "track", "tee"}
    left = [getattr(sgx(SEED), field.name) for field in fields(SgxPolicy) if field.name not in said]
    assert len(left) >= 10
    for value in (*left, policy.operator, policy.runtime, policy.release):
        assert value == Skip(reason="a policy of the seed generation says nothing of it")
    assert (policy.minimum_level, policy.insecure_simulation) == (Level.FRESH, False)


def test_debug_is_skipped_where_it_was_allowed() -> None:
    assert sgx(SEED.replace("false", "true")).debug == Skip(reason="the policy says `allow_debug = true`")


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "mr_enclave"])
def test_a_field_that_is_missing_is_an_error(field: str) -> None:
    text = "\n".join(line for line in SEED.splitlines() if not line.startswith(field))
    with pytest.raises(InvalidPolicyError, match=f"does not set `{field}`"):
        parse_policy(text, source="p")


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        (f'"{ENCLAVE}"', '"00"', 2, "`mr_enclave` must be 64"),
        (f'"{ENCLAVE}"', "1", 2, "`mr_enclave` must be 64"),
        ("allow_debug = false", "allow_debug = 0", 3, "`allow_debug` must be true or false"),
        ('"0x4"', '"4"', 4, "`attributes_flags_hex` must be `0x` and at most 16"),
        ('"0x4"', "4", 4, "`attributes_flags_hex` must be `0x` and at most 16"),
        ('"0x4"', '"0x6"', 4, "`attributes_flags_hex` has bits that `attributes_mask_flags_hex` leaves out"),
        ('"0xfffffffffffffffd"', '"0xfffffffffffffffc"', 4, "`attributes_flags_hex` has bits that"),
        ('"0x0"', '"0x100000000"', 8, "`misc_select_hex` must be `0x` and at most 8"),
        ('"0x0"', '"0x0"\ntee = 1', 9, "`tee` is not known here"),
    ],
)
def test_an_error_names_the_line(old: str, new: str, line: int, problem: str) -> None:
    assert old in SEED
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(SEED.replace(old, new, 1), source="p")
    assert str(refusal.value).startswith(f"p, line {line}: {problem}")


def test_a_file_with_a_version_is_not_of_the_seed_generation() -> None:
    with pytest.raises(InvalidPolicyError, match="`mr_enclave` is not known here"):
        parse_policy("version = 1\n" + SEED, source="p")


@needs_evidence
def test_it_judges_a_real_quote() -> None:
    from attestation.test_sgx_samples import one_genuine

    item, now = one_genuine()
    claims = TEES["sgx"].verify(item, now, Checks())
    for enclave, debug, refused in (
        (claims.report.mr_enclave.hex(), "true", set()),
        (claims.report.mr_enclave.hex(), "false", {"sgx.debug"} if claims.report.flags & 2 else set()),
        (ENCLAVE, "true", {"sgx.mr_enclave"}),
    ):
        text = SEED.replace(ENCLAVE, enclave).replace("allow_debug = false", f"allow_debug = {debug}")
        found = {finding.code for finding in failed(TEES["sgx"].check(claims, sgx(text)))}
        assert found & OF_THE_FILE == refused  # what else fails is the platform's state, which no file speaks of
