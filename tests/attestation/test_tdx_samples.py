"""Real TDX quotes: every run of every sample comes out as its `meta.json` says, and as dcap-qvl says."""

from __future__ import annotations

import hashlib
import statistics
from typing import TYPE_CHECKING

import pytest
from attestation.intel_samples import (
    agrees,
    expected_failures,
    median_ms,
    oracle,
    outcome,
    parsed_pck,
    quote_of,
    runs_of,
    strict_failures,
    strict_policy,
)
from attestation.samples import COLLATERAL, meta_of, needs_evidence, sample_folders, unix_seconds

from blindai.attestation.checks import Checks
from blindai.attestation.roots import INTEL_SGX_ROOT
from blindai.attestation.tee.tdx import ATTRIBUTE_BITS, REGISTERS, TdxClaims, parse, verify
from blindai.errors import MalformedEvidenceError
from blindai.evidence_files.tdx import read_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from attestation.intel_samples import Run

    from blindai.attestation.evidence import EvidenceItem

pytestmark = needs_evidence

# What a sample's `policy_rejections` and `flags` call our checks.
PHRASES = {"debug": "debug", "sept_ve_disable not set": "sept_ve_disable", "mr_servicetd_nonzero": "mr_service_td"}

# Where dcap-qvl 0.7.0 says nothing of the platform, because a policy of its own refuses the TD: sample, and its words.
# Our finding for each is in `PHRASES`; all runs of the sample are meant.
REFUSED_BY_DCAP_QVL = {
    "alibaba-v5-servicetd": "Invalid MR service TD",
    "openenclave-v4-no-septve": "SEPT_VE_DISABLE is not enabled",
    "trustee-v4-debug": "Debug mode is enabled",
}
REFUSED_IN_AZURE = {"trustee-spr-no-septve": "SEPT_VE_DISABLE is not enabled"}


def one_genuine() -> tuple[EvidenceItem, float]:
    """Evidence that verifies, with everything that can come with a quote, and its time."""
    run = next(
        run
        for run in runs_of("tdx", tee="tdx")
        if run.meta["parsed"]["version"] == 5
        and not run.meta["policy_rejections"]
        and run.expect["tcb_status"] == "UpToDate"
    )
    return run.item, run.now


def verified(run: Run) -> TdxClaims:
    claims = run.verify()
    assert isinstance(claims, TdxClaims)
    return claims


def reference_values(claims: TdxClaims) -> dict[str, list[str]]:
    fields = dict.fromkeys(REGISTERS, "")
    fields |= {"mrtd": "mr_td", **{f"rtmr{index}": f"rt_mr{index}" for index in range(4)}}
    return {name: [getattr(claims.report, field).hex()] for name, field in fields.items()}


def test_the_pinned_root_is_the_certificate_that_came_with_the_evidence() -> None:
    der = (COLLATERAL / "intel" / "Intel_SGX_Root_CA.der").read_bytes()
    assert hashlib.sha256(der).digest() == INTEL_SGX_ROOT.sha256


def test_every_run_comes_out_as_published(tell: Callable[[str], None]) -> None:
    runs = list(runs_of("tdx", tee="tdx"))
    wrong = [(run.name, run.collateral.name) for run in runs if outcome(run.verify()) != run.expect]
    assert wrong == []
    assert len(runs) > 0
    tell(f"{len(sample_folders('tdx'))} TDX samples, {len(runs)} runs equal to their meta.json")


def test_quotes_beside_a_vtpm_come_out_as_published(tell: Callable[[str], None]) -> None:
    runs = list(runs_of("azure-tdx-vtpm", tee="tdx", file="td_quote.bin"))
    for run in runs:
        ours = outcome(run.verify())
        assert {name: ours[name] for name in ("tcb_status", "advisory_ids")} == {
            name: run.expect[name] for name in ("tcb_status", "advisory_ids")
        }
    assert len(runs) > 0
    tell(f"{len(sample_folders('azure-tdx-vtpm'))} TDX quotes of Azure vTPM samples, {len(runs)} runs equal")


def test_every_field_is_what_independent_parsing_says() -> None:
    compared = 0
    for run in runs_of("tdx", tee="tdx"):
        claims, parsed = run.verify(), run.meta["parsed"]
        assert isinstance(claims, TdxClaims)
        for name, value in parsed["body"].items():
            assert getattr(claims.report, name).hex() == value, (run.name, name)
            compared += 1
        pck = {name: value for name, value in parsed["pck"].items() if name in parsed_pck(claims)}
        assert parsed_pck(claims) == pck
        qe = parse(run.item.evidence).qe_report
        assert (qe.mr_signer.hex(), qe.isv_prod_id, qe.isv_svn, qe.attributes.hex()) == tuple(
            parsed["qe_report"][name] for name in ("mr_signer", "isv_prod_id", "isv_svn", "attributes")
        )
        for name in ATTRIBUTE_BITS:
            assert claims.attribute(name) is run.meta["flags"][name], (run.name, name)
    assert compared > 0


def test_strict_refuses_what_the_samples_say_it_must() -> None:
    findings = 0
    for run in runs_of("tdx", tee="tdx"):
        claims = verified(run)
        expected = expected_failures(run, PHRASES)
        assert strict_failures(claims, reference_values(claims)) == expected, (run.name, run.collateral.name)
        findings += len(expected)
    assert findings > 0


def test_dcap_qvl_agrees_except_where_its_own_policy_refuses(tell: Callable[[str], None]) -> None:
    """The oracle is a test's only, and says the same of Azure's quotes."""
    runs = [*runs_of("tdx", tee="tdx"), *runs_of("azure-tdx-vtpm", tee="tdx", file="td_quote.bin")]
    known = REFUSED_BY_DCAP_QVL | REFUSED_IN_AZURE
    refused, agreed = {}, 0
    for run in runs:
        said = oracle(run)
        if run.name in known and said == {"error": known[run.name]}:
            refused[run.name] = said["error"]
        else:
            assert agrees(run, said), (run.name, run.collateral.name, said)
            agreed += 1
    assert refused == known
    assert agreed > 0
    tell(f"dcap-qvl agrees in {agreed} TDX runs of {len(runs)}")
    for name, words in sorted(refused.items()):
        tell(f"dcap-qvl refuses {name} by a policy of its own: {words}")


def test_only_zeros_may_stand_behind_a_quote() -> None:
    published_with_more = [folder for folder in sample_folders("tdx") if quote_of(folder, "quote.bin")[1]]
    assert published_with_more
    for folder in published_with_more:
        with pytest.raises(MalformedEvidenceError) as refusal:
            verify(read_folder(folder)[0], 0.0, Checks())
        assert refusal.value.finding_code == "tdx.quote_format"


def test_a_folder_with_one_file_of_collateral_needs_no_choice() -> None:
    for folder in sample_folders("tdx"):
        files = sorted(folder.glob("collateral*.json"))
        (item,) = read_folder(folder)
        (chosen,) = read_folder(folder, collateral=files[0])
        assert len(chosen.endorsements) == len(dict(chosen.endorsements)) > 0
        log = tuple(pair for pair in chosen.endorsements if pair[0] == "ccel")
        assert item.endorsements == (chosen.endorsements if len(files) == 1 else log)
        assert len(meta_of(folder)["runs"]) == len(files)


def test_how_long_a_verification_takes(tell: Callable[[str], None]) -> None:
    runs = [run for run in runs_of("tdx", tee="tdx") if run.expect["tcb_status"]]
    policy = strict_policy("tdx", reference_values(verified(runs[0])))
    times = [median_ms(run, policy, times=5) for run in runs]
    tell(f"TDX: {statistics.median(times):.1f} ms of processor time, the median of {len(runs)} runs")
    assert times


def test_published_event_logs_replay_to_their_quotes(tell: Callable[[str], None]) -> None:
    """A sample with `ccel` says that its log gives RTMR0 to RTMR2; read with the folder's own layout."""
    replayed = 0
    for folder in sample_folders("tdx"):
        if "ccel" in (meta := meta_of(folder)):
            (item,) = read_folder(folder, collateral=folder / meta["runs"][0]["collateral"])
            checks = Checks()
            claims = verify(item, unix_seconds(meta["runs"][0]["verify_at"]), checks)
            assert {event.register for event in claims.events or ()} == {0, 1, 2}
            assert checks.findings[-1].code == "tdx.ccel"
            replayed += 1
    assert replayed > 0
    tell(f"{replayed} event log replays to its quote")
