"""TDX policies: each check of a TD fails on what it is for, and on nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attestation.intel_cases import failures, findings, policy_of, refusal, verify
from fakes.intel import ADVISORY, FakeEvidence, module

from blindai.attestation.evidence import Outcome
from blindai.attestation.tee.tdx import ATTRIBUTE_BITS, CODES
from blindai.errors import InvalidPolicyError, UnauthenticEvidenceError

DOCUMENT = Path(__file__).parents[2] / "docs" / "spec" / "tee" / "tdx.md"
REGISTERS = {"mrtd": "mr_td", **{f"rtmr{index}": f"rt_mr{index}" for index in range(4)}}
OWN_WORDS = ("mr_config_id", "mr_owner", "mr_owner_config")
REFERENCE = f'mrtd = ["{b"t".hex() * 48}"]\n' + "".join(f'rtmr{index} = ["{f"0{index}" * 48}"]\n' for index in range(4))
STRICT = policy_of("tdx", REFERENCE)
TD_5 = FakeEvidence(version=5)


def attributes(bits: int) -> FakeEvidence:
    return FakeEvidence(body={"td_attributes": bits.to_bytes(8, "little")})


def xfam(bits: int) -> FakeEvidence:
    return FakeEvidence(body={"xfam": bits.to_bytes(8, "little")})


@pytest.mark.parametrize("evidence", [FakeEvidence(), TD_5], ids=["4", "5"])
def test_good_evidence_passes_every_check_of_strict(evidence: FakeEvidence) -> None:
    made = findings(evidence, STRICT)
    codes = {f"tdx.{code}" for code in made}
    assert codes == (CODES if evidence.version == 5 else CODES - {"tdx.tcb_status_current"})
    assert {finding.outcome for finding in made.values()} == {Outcome.PASSED, Outcome.SKIPPED}


@pytest.mark.parametrize(("name", "field"), [*REGISTERS.items(), *((name, name) for name in OWN_WORDS)])
def test_each_measurement_is_compared(name: str, field: str) -> None:
    assert failures(FakeEvidence(body={field: b"x" * 48}), STRICT) == {name}
    accepted = {line.split(" = ")[0]: line for line in REFERENCE.splitlines()}
    accepted[name] = f'{name} = ["{"00" * 48}", "{b"x".hex() * 48}"]'
    assert failures(FakeEvidence(body={field: b"x" * 48}), policy_of("tdx", "\n".join(accepted.values()))) == set()


def test_a_module_is_compared_only_if_the_policy_lists_some() -> None:
    other = FakeEvidence(body={"mr_seam": b"n" * 48})
    assert failures(other, STRICT) == set()
    assert failures(other, policy_of("tdx", f'{REFERENCE}mr_seam = ["{b"m".hex() * 48}"]')) == {"mr_seam"}


def test_a_service_td_must_be_expected() -> None:
    service = FakeEvidence(version=5, body={"mr_service_td": b"v" * 48})
    expecting = policy_of("tdx", f'{REFERENCE}mr_service_td = ["{b"v".hex() * 48}"]')
    assert failures(service, STRICT) == {"mr_service_td"}
    assert failures(service, expecting) == set()
    assert failures(FakeEvidence(), expecting) == {"mr_service_td"}  # version 4 does not say
    assert findings(FakeEvidence(), STRICT)["mr_service_td"].outcome is Outcome.PASSED
    skipping = policy_of("tdx", f'{REFERENCE}mr_service_td = {{ skip = "ours" }}')
    assert findings(FakeEvidence(), skipping)["mr_service_td"].outcome is Outcome.SKIPPED
    assert findings(service, skipping)["mr_service_td"].outcome is Outcome.SKIPPED


SEPT = 1 << 28


@pytest.mark.parametrize(
    ("bits", "codes"),
    [
        (SEPT | 1, {"debug"}),
        (0, {"sept_ve_disable"}),
        (SEPT | 1 << 29, {"migratable"}),
        (SEPT | 1 << 30, set()),
        (SEPT | 1 << 31, {"kl"}),
        (SEPT | 1 << 63, {"perfmon"}),
        *((SEPT | 1 << bit, {"under_debug"}) for bit in range(1, 8)),
        *((SEPT | 1 << bit, {"attributes_reserved"}) for bit in (*range(8, 28), *range(32, 63))),
    ],
)
def test_each_attribute_is_judged(bits: int, codes: set[str]) -> None:
    assert failures(attributes(bits), STRICT) == codes


@pytest.mark.parametrize("name", ATTRIBUTE_BITS)
def test_each_attribute_can_be_required_or_skipped(name: str) -> None:
    with_it, without = (
        attributes(bits) for bits in (SEPT | 1 << ATTRIBUTE_BITS[name], SEPT & ~(1 << ATTRIBUTE_BITS[name]))
    )
    assert name not in failures(with_it, policy_of("tdx", f"{REFERENCE}{name} = true"))
    assert name in failures(without, policy_of("tdx", f"{REFERENCE}{name} = true"))
    assert name in failures(with_it, policy_of("tdx", f"{REFERENCE}{name} = false"))
    made = findings(with_it, policy_of("tdx", f'{REFERENCE}{name} = {{ skip = "both" }}'))
    assert made[name].outcome is Outcome.SKIPPED


def test_impossible_features_are_refused() -> None:
    assert failures(xfam(0x6DBE7), STRICT) == set()
    for bits in (0xE6, 0xE5, 0, 0xE7 | 1 << 3, 0xE7 | 1 << 4, 0xE7 | 1 << 10, 0xE7 | 1 << 63):
        assert failures(xfam(bits), STRICT) == {"xfam_fixed"}


def test_features_are_compared_where_the_mask_looks() -> None:
    text = f'{REFERENCE}xfam = {{ value = "e700000000000000", mask = "ffff000000000000" }}'
    assert failures(xfam(0xE7), policy_of("tdx", text)) == set()
    assert failures(xfam(0xE7 | 1 << 17), policy_of("tdx", text)) == set()
    assert failures(xfam(0x67), policy_of("tdx", text)) == {"xfam"}


@pytest.mark.parametrize(
    "value",
    [
        '{ value = "00", mask = "00" }',
        '{ value = "0100000000000000", mask = "0000000000000000" }',
        "{ value = 1, mask = 1 }",
        "3",
        '{ mask = "00" }',
        '{ skip = "" }',
    ],
)
def test_other_masks_are_refused(value: str) -> None:
    with pytest.raises(InvalidPolicyError, match=r"policy.toml, line 7: `tee\.tdx\.xfam"):
        policy_of("tdx", f"{REFERENCE}xfam = {value}")


def test_both_the_launch_and_what_runs_now_must_be_accepted() -> None:
    old, new = bytes([4, 1, 3]) + bytes(13), bytes([7, 1, 3]) + bytes(13)
    evidence = FakeEvidence(version=5, body={"tee_tcb_svn": old, "tee_tcb_svn2": new})
    made = findings(evidence, STRICT)
    assert (made["tcb_status"].found, made["tcb_status"].outcome) == ("TDRelaunchAdvised", Outcome.FAILED)
    assert made["tcb_status_current"].outcome is Outcome.PASSED
    accepting = policy_of("tdx", f'{REFERENCE}tcb_statuses = ["UpToDate", "TDRelaunchAdvised"]')
    assert failures(evidence, accepting) == set()
    backwards = FakeEvidence(version=5, body={"tee_tcb_svn": new, "tee_tcb_svn2": old})
    assert failures(backwards, STRICT) == {"tcb_status_current"}
    unknown = FakeEvidence(version=5, body={"tee_tcb_svn2": bytes([7, 9, 3]) + bytes(13)})
    assert failures(unknown, STRICT) == {"tcb_status_current"}


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("field", ["mr_signer_seam", "seam_attributes"])
def test_only_intels_module_is_authentic(version: int, field: str) -> None:
    svn = bytes([7, version, 3]) + bytes(13)
    other = b"\1" + bytes(47 if field == "mr_signer_seam" else 7)
    refusal(FakeEvidence(body={"tee_tcb_svn": svn, field: other}).item(), "module_identity", UnauthenticEvidenceError)


def test_attributes_of_a_module_count_where_the_mask_looks() -> None:
    modules = {"tdxModuleIdentities": [{**module(1), "attributesMask": "FE" + "FF" * 7}]}
    evidence = FakeEvidence(body={"seam_attributes": b"\1" + bytes(7)}, tcb_info=modules)
    assert failures(evidence, STRICT) == set()


def test_without_collateral_nothing_is_said_of_what_runs_now() -> None:
    alone = FakeEvidence(version=5, endorsements=dict.fromkeys(dict(TD_5.item().endorsements)))
    made = findings(alone, STRICT)
    assert made["collateral"].outcome is Outcome.FAILED
    assert "tcb_status_current" not in made
    assert dict(verify(alone.item())[0].facts())["current TCB status"] == "not said"


def test_a_module_that_intel_does_not_know_has_no_level() -> None:
    unknown = FakeEvidence(body={"tee_tcb_svn": bytes([7, 9, 3]) + bytes(13)})
    made = findings(unknown, STRICT)
    assert made["tcb_level"].outcome is Outcome.FAILED
    assert made["tcb_level"].found == "platform UpToDate, QE UpToDate, TDX module without a level"


def test_an_advisory_of_the_module_must_be_accepted() -> None:
    levels = [
        {"tcb": {"isvsvn": 6}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate", "advisoryIDs": [ADVISORY]}
    ]
    evidence = FakeEvidence(tcb_info={"tdxModuleIdentities": [module(1, levels)]})
    assert failures(evidence, STRICT) == {"advisories"}


def test_claims_are_shown_in_intels_words() -> None:
    claims, _ = verify(TD_5.item())
    facts = dict(claims.facts())
    assert facts["hardware"] == "Intel TDX, quote version 5"
    assert (facts["MRTD"], facts["RTMR3"]) == (b"t".hex() * 48, "03" * 48)
    assert (facts["attributes"], facts["TCB status"]) == ("sept_ve_disable", "UpToDate")
    assert (facts["current TCB status"], facts["TCB date"]) == ("UpToDate", "2026-02-01T00:00:00Z")
    of_version_4 = dict(verify(FakeEvidence().item())[0].facts())
    assert of_version_4["SERVICETD"] == "not in a quote of version 4"
    assert of_version_4["current TCB status"] == "not said"
    debug, _ = verify(attributes(0).item())
    assert dict(debug.facts())["attributes"] == "none"
    none, _ = verify(FakeEvidence(body={"tee_tcb_svn": bytes([7, 9, 3]) + bytes(13)}).item())
    assert dict(none.facts())["TCB date"] == "none"


def test_a_tracked_check_refuses_nothing() -> None:
    tracking = policy_of("tdx", f'{REFERENCE}track = ["tdx.debug"]')
    assert tracking.track == {"tdx.debug"}


def test_every_code_is_documented() -> None:
    listed = set(re.findall(r"^\| `(tdx\.[a-z0-9_]+)` \| check \|", DOCUMENT.read_text("utf-8"), re.MULTILINE))
    assert listed == CODES


@pytest.mark.parametrize("code", ["tdx.collateral", "tdx.tcb_level"])
def test_collateral_and_revoked_levels_are_never_only_tracked(code: str) -> None:
    with pytest.raises(InvalidPolicyError, match="track"):
        policy_of("tdx", f'{REFERENCE}track = ["{code}"]')
