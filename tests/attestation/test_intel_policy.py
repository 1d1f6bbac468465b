"""What SGX and TDX policies share: each check of the platform fails on what it is for, and its field accepts it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from attestation.intel_cases import TEES_OF_INTEL, failures, findings, good, policy_of, verify
from fakes.intel import ADVISORY, level, svn_level
from fakes.intel_pki import (
    CA_NAME,
    NOW,
    NOW_S,
    PLATFORM_CA,
    ROOT,
    ROOT_NAME,
    crl,
    pck_certificate,
    sgx_extension,
    sgx_members,
)

from blindai.attestation.evidence import Outcome
from blindai.attestation.x509_chain import utc_text
from blindai.errors import InvalidPolicyError

if TYPE_CHECKING:
    from blindai.attestation.intel.policy import IntelPolicy

REFERENCE = {
    "sgx": f'mr_enclave = ["{b"e".hex() * 32}"]\nmr_signer = ["{b"s".hex() * 32}"]\nisv_prod_id = [1]\nisv_svn = 2\n',
    "tdx": f'mrtd = ["{b"t".hex() * 48}"]\n' + "".join(f'rtmr{index} = ["{f"0{index}" * 48}"]\n' for index in range(4)),
}
DAY_S = 86400


def policy(tee: str, text: str = "") -> IntelPolicy:
    return policy_of(tee, REFERENCE[tee] + text)


@TEES_OF_INTEL
def test_good_evidence_meets_strict(tee: str) -> None:
    assert failures(good(tee), policy(tee)) == set()


@TEES_OF_INTEL
def test_collateral_must_be_there(tee: str) -> None:
    nothing = dict.fromkeys(dict(good(tee).item().endorsements))
    assert failures(good(tee, endorsements=nothing), policy(tee)) == {"collateral", "revocation_lists"}
    skipped = 'tcb_statuses = { skip = "x" }\ncollateral_grace_s = { skip = "x" }\nrevocation_grace_s = { skip = "x" }'
    made = findings(good(tee, endorsements=nothing), policy(tee, skipped))
    assert made["collateral"].outcome is Outcome.FAILED
    assert made["revocation_lists"].outcome is Outcome.SKIPPED


@TEES_OF_INTEL
@pytest.mark.parametrize(
    ("days", "codes"),
    [
        (-2, {"collateral_time", "revocation_time"}),
        (28, set()),
        (29.5, {"collateral_time"}),
        (31, {"collateral_time", "revocation_time"}),
    ],
)
def test_collateral_and_lists_end(tee: str, days: float, codes: set[str]) -> None:
    now = NOW_S + days * DAY_S
    assert failures(good(tee), policy(tee), now) == codes


@TEES_OF_INTEL
def test_a_grace_accepts_them_for_longer_and_never_earlier(tee: str) -> None:
    grace = f"collateral_grace_s = {2 * DAY_S}\nrevocation_grace_s = {DAY_S}"
    end = NOW_S + 29 * DAY_S
    assert failures(good(tee), policy(tee, grace), end + 2 * DAY_S) == set()
    assert failures(good(tee), policy(tee, grace), end + 2 * DAY_S + 1) == {"collateral_time", "revocation_time"}
    assert failures(good(tee), policy(tee, grace), NOW_S - 2 * DAY_S) == {"collateral_time", "revocation_time"}
    skipped = 'collateral_grace_s = { skip = "old" }\nrevocation_grace_s = { skip = "old" }'
    made = findings(good(tee), policy(tee, skipped), NOW_S + 100 * DAY_S)
    assert {made[code].outcome for code in ("collateral_time", "revocation_time")} == {Outcome.SKIPPED}
    assert made["collateral_time"].reason == "old"


@TEES_OF_INTEL
def test_the_narrowest_period_counts(tee: str) -> None:
    """Of two documents the younger begin and the older end, whichever of them has it; both ends are within it."""
    begin, end = NOW_S - 3600, NOW_S + 3600
    narrow = {"issueDate": utc_text(begin), "nextUpdate": utc_text(end)}
    accepted = policy(tee, 'revocation_grace_s = { skip = "other" }')
    for evidence in (good(tee, tcb_info=narrow), good(tee, qe_identity=narrow)):
        assert failures(evidence, accepted, begin) == failures(evidence, accepted, end) == set()
        assert failures(evidence, accepted, begin - 1) == failures(evidence, accepted, end + 1) == {"collateral_time"}
    hour = timedelta(hours=1)
    for name, made in (
        ("root_ca_crl", crl(ROOT_NAME, ROOT, begin=NOW - hour, end=NOW + hour)),
        ("pck_crl", crl(CA_NAME, PLATFORM_CA, begin=NOW - hour, end=NOW + hour)),
    ):
        evidence = good(tee, endorsements={name: made})
        assert failures(evidence, policy(tee), begin) == failures(evidence, policy(tee), end) == set()
        assert (
            failures(evidence, policy(tee), begin - 1)
            == failures(evidence, policy(tee), end + 1)
            == {"revocation_time"}
        )


@TEES_OF_INTEL
def test_what_is_known_of_the_platform_is_told(tee: str) -> None:
    nothing = good(tee, endorsements=dict.fromkeys(dict(good(tee).item().endorsements)))
    for evidence, number, lists in (
        (good(tee), "20", "both"),
        (nothing, "unknown without collateral", "at least one missing"),
    ):
        claims, _ = verify(evidence.item())
        assert dict(claims.facts())["TCB evaluation data number"] == number
        assert findings(evidence, policy(tee))["revocation_lists"].found == lists
    module = ", TDX module UpToDate" if tee == "tdx" else ""
    assert findings(good(tee), policy(tee))["tcb_level"].found == f"platform UpToDate, QE UpToDate{module}"
    grace = findings(good(tee), policy(tee, "collateral_grace_s = 9"))
    assert grace["collateral_time"].expected.endswith("Z, or past its end by 9 s at most")
    assert grace["revocation_time"].expected.endswith("Z")


@TEES_OF_INTEL
def test_a_missing_list_is_refused(tee: str) -> None:
    assert failures(good(tee, endorsements={"root_ca_crl": None}), policy(tee)) == {"revocation_lists"}
    no_pck_list = dict.fromkeys(("pck_crl", "pck_crl_issuer_chain"))
    assert failures(good(tee, endorsements=no_pck_list), policy(tee)) == {"revocation_lists"}


@TEES_OF_INTEL
def test_the_smaller_evaluation_number_counts(tee: str) -> None:
    assert failures(good(tee), policy(tee, "minimum_evaluation_number = 20")) == set()
    assert failures(good(tee), policy(tee, "minimum_evaluation_number = 21")) == {"evaluation_number"}
    newer = {"tcbEvaluationDataNumber": 21}
    for changes in ({"tcb_info": newer}, {"qe_identity": newer}):
        assert failures(good(tee, **changes), policy(tee, "minimum_evaluation_number = 21")) == {"evaluation_number"}
    assert (
        failures(good(tee, tcb_info=newer, qe_identity=newer), policy(tee, "minimum_evaluation_number = 21")) == set()
    )


@TEES_OF_INTEL
def test_a_platform_without_a_level_is_never_accepted(tee: str) -> None:
    too_new = {"tcbLevels": [level(pce_svn=12)]}
    assert failures(good(tee, tcb_info=too_new), policy(tee)) == {"tcb_level", "tcb_status"}
    skipped = 'tcb_statuses = { skip = "any" }'
    made = findings(good(tee, tcb_info=too_new), policy(tee, skipped))
    assert made["tcb_level"].outcome is Outcome.FAILED
    assert "platform without a level" in made["tcb_level"].found
    assert (made["tcb_status"].outcome, made["tcb_status"].found) == (Outcome.SKIPPED, "without a level")


@TEES_OF_INTEL
def test_a_revoked_level_is_never_accepted(tee: str) -> None:
    revoked = {"tcbLevels": [level("Revoked")]}
    assert failures(good(tee, tcb_info=revoked), policy(tee, 'tcb_statuses = { skip = "any" }')) == {"tcb_level"}
    with pytest.raises(InvalidPolicyError, match=r"line \d+: .*names 'Revoked'"):
        policy(tee, 'tcb_statuses = ["Revoked"]')


@TEES_OF_INTEL
def test_states_and_advisories_are_accepted_by_name(tee: str) -> None:
    hardening = good(tee, tcb_info={"tcbLevels": [level("SWHardeningNeeded", advisories=[ADVISORY, "INTEL-SA-00001"])]})
    assert failures(hardening, policy(tee)) == {"tcb_status", "advisories"}
    listed = f'tcb_statuses = ["UpToDate", "SWHardeningNeeded"]\naccepted_advisories = ["{ADVISORY}"]'
    assert failures(hardening, policy(tee, listed)) == {"advisories"}
    listed = f'tcb_statuses = ["SWHardeningNeeded"]\naccepted_advisories = ["{ADVISORY}", "INTEL-SA-00001"]'
    assert failures(hardening, policy(tee, listed)) == set()
    assert failures(good(tee), policy(tee, listed)) == {"tcb_status"}


@TEES_OF_INTEL
def test_an_old_qe_makes_the_platform_old(tee: str) -> None:
    old = good(tee, qe_identity={"tcbLevels": [svn_level(6, "OutOfDate", [ADVISORY])]})
    made = findings(old, policy(tee))
    assert made["tcb_status"].found == "OutOfDate"
    assert made["advisories"].found == ADVISORY
    assert "QE OutOfDate" in made["tcb_level"].found


@TEES_OF_INTEL
def test_platforms_are_accepted_by_their_ppid(tee: str) -> None:
    listed, other = (f'platforms = ["{value.hex()}"]' for value in (b"P" * 16, b"Q" * 16))
    assert failures(good(tee), policy(tee, listed)) == set()
    assert failures(good(tee), policy(tee, other)) == {"platform"}
    assert findings(good(tee), policy(tee))["platform"].outcome is Outcome.SKIPPED


@TEES_OF_INTEL
@pytest.mark.parametrize("name", ["dynamic_platform", "cached_keys", "smt_enabled"])
def test_what_a_platform_does_not_say_is_neither_true_nor_false(tee: str, name: str) -> None:
    silent = good(tee, pck=pck_certificate(sgx_extension(sgx_members(flags=()))))
    for required in ("true", "false"):
        assert failures(silent, policy(tee, f"{name} = {required}")) == {name}
    assert failures(good(tee), policy(tee, f"{name} = true")) == set()
    assert failures(good(tee), policy(tee, f"{name} = false")) == {name}


@TEES_OF_INTEL
@pytest.mark.parametrize(
    "line",
    [
        'tcb_statuses = ["Fine"]',
        "tcb_statuses = 3",
        "accepted_advisories = [1]",
        "minimum_evaluation_number = -1",
        "minimum_evaluation_number = true",
        "collateral_grace_s = 1.5",
        'revocation_grace_s = "1"',
        'platforms = ["00"]',
        "platforms = []",
        "dynamic_platform = 1",
        "surplus = 1",
        'track = ["nothing"]',
        'track = { skip = "x" }',
        "debug = 0",
    ],
)
def test_other_fields_are_refused_with_their_line(tee: str, line: str) -> None:
    with pytest.raises(InvalidPolicyError, match=r"policy.toml, line \d+: `tee\."):
        policy(tee, line)


@TEES_OF_INTEL
def test_every_preset_is_a_policy_beside_reference_values(tee: str) -> None:
    presets = {"sgx": ["strict", "cloud-azure"], "tdx": ["strict", "cloud-azure", "cloud-gcp"]}[tee]
    for preset in presets:
        assert failures(good(tee), policy_of(tee, REFERENCE[tee], preset=preset)) == set()
