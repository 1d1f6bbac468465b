"""Evidence without a server is judged as a server's is, and what nobody asked about is said to be about nobody."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes import amd, tpm_boot, tpm_vendor

from blindai.attestation.checks import Checks, judge
from blindai.attestation.evidence import EvidenceItem, Outcome
from blindai.attestation.policy import insecure_simulation_policy, parse_policy, strict_policy
from blindai.attestation.tee import TEES, sev_snp, tpm
from blindai.attester.simulation import SimulationAttester
from blindai.cli.evidence_judgement import About, Judgement, judge_sample
from blindai.cli.evidence_verb import _report_one, show
from blindai.cli.screen import print_error, print_refusal, print_table
from blindai.errors import MalformedEvidenceError, PolicyViolationError, StaleEvidenceError, WrongOperatorError
from blindai.evidence_files import Sample, read_sample
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from blindai.attestation.policy import Policy
    from blindai.errors import BlindAIError

BOUND = bytes(range(64))
ITEM = SimulationAttester(lambda size: b"d" * size, bytes(32)).attest(BOUND)
NOW = 1_780_000_000.0


def judged(*items: EvidenceItem, policy: Any = None, **about: Any) -> Judgement:
    sample = Sample(name="one", items=items or (ITEM,))
    return judge_sample(sample, policy or insecure_simulation_policy(), about=About(**about), now=NOW)


def outcome(judgement: Judgement, code: str) -> list[Outcome]:
    return [finding.outcome for finding in judgement.findings if finding.code == code]


def test_bare_evidence_is_about_nobody() -> None:
    judgement = judged()
    assert (judgement.error, judgement.unbound, judgement.bound_to) == (None, True, "")
    assert outcome(judgement, "binding.report_data") == [Outcome.SKIPPED]


def test_report_data_that_is_there_is_found() -> None:
    judgement = judged(report_data=BOUND)
    assert (judgement.error, judgement.unbound) == (None, False)
    assert judgement.bound_to == "the report data that you gave"
    assert outcome(judgement, "binding.report_data") == [Outcome.PASSED]


@pytest.mark.parametrize("other", [b"", BOUND[:-1], BOUND + b"\0", bytes(64)])
def test_other_report_data_is_refused(other: bytes) -> None:
    judgement = judged(report_data=other)
    assert isinstance(judgement.error, StaleEvidenceError)
    assert outcome(judgement, "binding.report_data") == [Outcome.FAILED]
    assert judgement.claims


def test_bare_evidence_answers_no_nonce() -> None:
    judgement = judged(nonce=bytes(32))
    assert isinstance(judgement.error, StaleEvidenceError)
    assert "--report-data" in judgement.error.hint


def test_a_tee_of_another_release_is_told() -> None:
    judgement = judged(dataclasses.replace(ITEM, tee="sev_es"))
    assert isinstance(judgement.error, MalformedEvidenceError)
    assert "cannot verify sev_es" in str(judgement.error)


def test_no_policy_still_shows_what_strict_says_of_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    item = amd.FakeMachine(product="Milan").item()
    verify = functools.partial(sev_snp.verify, roots=amd.pinned(item))
    monkeypatch.setitem(TEES, "sev_snp", dataclasses.replace(TEES["sev_snp"], verify=verify))  # the vendor's root alone
    sample = Sample(name="milan", items=(item,))
    now = amd.NOW.timestamp()
    strict = judge_sample(sample, strict_policy(), about=About(), now=now)
    cloud = judge_sample(sample, strict_policy(), about=About(), now=now, preset="cloud-azure")
    for judgement, milan in ((strict, Outcome.FAILED), (cloud, Outcome.TRACKED)):
        assert isinstance(judgement.error, PolicyViolationError)
        assert judgement.error.finding_code == "policy.no_reference_values"
        assert outcome(judgement, "sev_snp.milan_seed") == [milan]
        assert outcome(judgement, "sev_snp.measurement") == [Outcome.SKIPPED]
        assert outcome(judgement, "sev_snp.signature") == [Outcome.PASSED]


SIMULATED = """
version = 1
insecure_simulation = true
level = {{ minimum = "fresh" }}
operator = {operator}
release = {release}
runtime = {runtime}
tee.simulation.measurement = {{ skip = "any" }}
"""
SKIP = '{ skip = "not asked" }'


def asks(operator: str = SKIP, release: str = SKIP, runtime: str = SKIP) -> Policy:
    return parse_policy(SIMULATED.format(operator=operator, release=release, runtime=runtime), source="policy.toml")


@pytest.mark.parametrize(
    ("policy", "error", "code"),
    [
        (
            asks(operator=f'{{ public_keys = ["{base64url_encode(bytes(32))}"] }}'),
            WrongOperatorError,
            "operator.admission",
        ),
        (asks(release='{ minimum = "99.0.0" }'), PolicyViolationError, "release.minimum"),
        (asks(runtime="{ require = { telemetry = true } }"), PolicyViolationError, "runtime.telemetry"),
    ],
)
def test_a_documents_keyset_must_be_what_the_policy_asks_for(
    policy: Policy, error: type[BlindAIError], code: str
) -> None:
    proof = Path(__file__).parents[2] / "docs/guides/auditor/proof.json"
    sample = read_sample(proof, now=NOW)
    assert judge_sample(sample, asks(), about=About(), now=NOW).error is None
    refused = judge_sample(sample, policy, about=About(), now=NOW)
    assert isinstance(refused.error, error)
    assert refused.claims
    assert outcome(refused, code) == [Outcome.FAILED]


def test_a_refusal_that_no_check_made_is_among_the_findings_too() -> None:
    sample = read_sample(Path(__file__).parents[2] / "docs/guides/auditor/proof.json", now=NOW)
    assert sample.document is not None
    broken = dataclasses.replace(sample, document=dataclasses.replace(sample.document, keyset=b"{}"))
    refused = judge_sample(broken, asks(), about=About(), now=NOW)
    assert outcome(refused, "keyset.malformed") == [Outcome.FAILED]
    assert outcome(judged(nonce=bytes(32)), "binding.nonce") == [Outcome.FAILED]


def test_what_evidence_says_never_looks_like_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = "✓ trusted under this policy: tpm"
    boot = tpm_boot.grub(tpm_boot.firmware(), command_line=f"/vmlinuz a\n{verdict}\n")
    claims = tpm.verify(tpm_vendor.FakeTpm(boot=boot).item(), tpm_vendor.NOW.timestamp(), Checks())
    found = judge(holds=False, code="tpm.command_line", expected="another", found=f"a\r\n{verdict}\n", why="b")
    error = PolicyViolationError(f"a\n{verdict}\n", finding_code="tpm.kernel")
    show(Judgement(name="a\n", tees=("tpm",), claims=(claims,), findings=(found,), error=error), None)
    print_refusal(error)
    print_error(error)
    print_table(("name",), [(f"a\n{verdict}\n",)])
    printed = capsys.readouterr()
    assert verdict not in [line.strip() for line in (printed.out + printed.err).splitlines()]
    assert len(found.line().splitlines()) == 1


def test_json_has_every_fact_though_several_have_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    boot = tpm_boot.grub(tpm_boot.grub(tpm_boot.firmware(), command_line="/vmlinuz evil"))
    claims = tpm.verify(tpm_vendor.FakeTpm(boot=boot).item(), tpm_vendor.NOW.timestamp(), Checks())
    _report_one(Judgement(name="a", tees=("tpm",), claims=(claims,)), at=None, as_json=True)
    (told,) = json.loads(capsys.readouterr().out)["claims"]
    assert told["command line"] == ["/vmlinuz evil", tpm_boot.COMMAND_LINE]


def test_what_a_policy_asks_of_a_server_and_bare_evidence_cannot_show_is_told() -> None:
    policy = asks(
        operator=f'{{ public_keys = ["{base64url_encode(bytes(32))}"] }}',
        release='{ minimum = "99.0.0" }',
        runtime="{ require = { telemetry = true } }",
    )
    judgement = judged(policy=policy)
    assert judgement.unbound
    for code in ("operator.admission", "release.minimum", "runtime.require"):
        assert outcome(judgement, code) == [Outcome.SKIPPED]
