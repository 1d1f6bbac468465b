"""The decision: each of the six steps refuses what it is for, and every result shows all that was checked."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from blindai.attestation.appraise import appraise
from blindai.attestation.binding import Binding, Mode
from blindai.attestation.evidence import EvidenceItem, Level, Outcome
from blindai.attestation.policy import Policy, insecure_simulation_policy, strict_policy
from blindai.attestation.policy_file import Skip
from blindai.attestation.tee import simulation
from blindai.attester.simulation import SimulationAttester
from blindai.errors import (
    MalformedEvidenceError,
    PolicyViolationError,
    RejectedEvidenceError,
    StaleEvidenceError,
    UnauthenticEvidenceError,
)

ROOT = Path(__file__).parents[2]
MEASUREMENT = b"m" * 32
BINDING = Binding(mode=Mode.FRESH, keyset_id=b"k" * 32, challenge=b"c" * 32)
ATTESTER = SimulationAttester(os.urandom, MEASUREMENT)
ITEM = ATTESTER.attest(BINDING.bound())
OTHER = EvidenceItem(tee="sev_snp", evidence=b"", endorsements=())
POLICY = Policy(
    source="test",
    insecure_simulation=True,
    minimum_level=Level.FRESH,
    operator=(bytes(32),),
    runtime=Skip(reason="not tested here"),
    any_of=((simulation.SimulationPolicy(measurement=(MEASUREMENT,)),),),
)


def refusal_of(
    evidence: list[EvidenceItem],
    policy: Policy = POLICY,
    binding: Binding = BINDING,
    error: type[RejectedEvidenceError] = PolicyViolationError,
) -> RejectedEvidenceError:
    with pytest.raises(RejectedEvidenceError) as refusal:
        appraise(evidence, policy, binding=binding, now=0.0)
    assert type(refusal.value) is error
    last = refusal.value.findings[-1]
    assert (last.code, last.outcome) == (refusal.value.finding_code, Outcome.FAILED)
    return refusal.value


def test_good_evidence_is_accepted_with_every_check_named() -> None:
    result = appraise([ITEM], POLICY, binding=BINDING, now=0.0)
    assert [(finding.code, finding.outcome) for finding in result.findings] == [
        ("simulation.not_accepted", Outcome.SKIPPED),
        ("policy.no_reference_values", Outcome.PASSED),
        ("policy.tees", Outcome.PASSED),
        ("simulation.format", Outcome.PASSED),
        ("simulation.endorsements", Outcome.PASSED),
        ("simulation.root", Outcome.PASSED),
        ("simulation.device_certificate", Outcome.PASSED),
        ("simulation.signature", Outcome.PASSED),
        ("binding.mode", Outcome.PASSED),
        ("binding.report_data", Outcome.PASSED),
        ("machine.one", Outcome.PASSED),
        ("machine.devices_bound", Outcome.PASSED),
        ("simulation.measurement", Outcome.PASSED),
        ("runtime.require", Outcome.SKIPPED),
        ("release.minimum", Outcome.SKIPPED),
        ("level.minimum", Outcome.SKIPPED),
    ]
    assert result.tees == ("simulation",)
    assert result.claims[0].bound == BINDING.bound()


def test_a_simulated_result_says_that_it_is() -> None:
    result = appraise([ITEM], insecure_simulation_policy(), binding=BINDING, now=0.0)
    assert result.simulated
    assert "protects nothing" in result.explain().splitlines()[0]


def test_every_skipped_check_shows_its_reason() -> None:
    result = appraise([ITEM], insecure_simulation_policy(), binding=BINDING, now=0.0)
    skipped = [finding for finding in result.findings if finding.outcome is Outcome.SKIPPED]
    assert len(skipped) == 6
    assert all("insecure_simulation" in finding.reason for finding in skipped)
    assert all(f"skipped ({finding.reason})" in result.explain() for finding in skipped)


def test_cached_evidence_is_bound_without_a_challenge() -> None:
    cached = Binding(mode=Mode.CACHED, keyset_id=b"k" * 32, challenge=b"")
    assert appraise([ATTESTER.attest(cached.bound())], POLICY, binding=cached, now=0.0).tees == ("simulation",)


# Step 1


def test_strict_refuses_simulation_and_tells_how_to_allow_it_on_purpose() -> None:
    error = refusal_of([ITEM], strict_policy())
    assert error.finding_code == "simulation.not_accepted"
    assert "protects nothing" in error.hint
    assert "--insecure-simulation" in error.hint


@pytest.mark.parametrize("evidence", [[], [OTHER]])
def test_strict_refuses_all_else_and_tells_how_to_get_reference_values(evidence: list[EvidenceItem]) -> None:
    error = refusal_of(evidence, strict_policy())
    assert error.finding_code == "policy.no_reference_values"
    assert "--policy FILE" in error.hint


@pytest.mark.parametrize("evidence", [[], [OTHER], [ITEM, OTHER], [ITEM, ITEM]])
def test_missing_extra_and_doubled_tees_are_refused(evidence: list[EvidenceItem]) -> None:
    assert refusal_of(evidence).finding_code == "policy.tees"


# Step 2


def test_malformed_evidence_is_refused() -> None:
    error = refusal_of([dataclasses.replace(ITEM, evidence=ITEM.evidence + b"\0")], error=MalformedEvidenceError)
    assert (error.finding_code, error.tee) == ("simulation.format", "simulation")
    assert [finding.code for finding in error.findings[:-1]] == [
        "simulation.not_accepted",
        "policy.no_reference_values",
        "policy.tees",
    ]


def test_unauthentic_evidence_is_refused() -> None:
    changed = dataclasses.replace(ITEM, evidence=ITEM.evidence[:-1] + bytes([ITEM.evidence[-1] ^ 1]))
    assert refusal_of([changed], error=UnauthenticEvidenceError).finding_code == "simulation.signature"


def test_authenticity_is_decided_before_binding_and_policy() -> None:
    changed = dataclasses.replace(ITEM, evidence=ITEM.evidence[:66] + bytes(96) + ITEM.evidence[162:])
    assert refusal_of([changed], error=UnauthenticEvidenceError).finding_code == "simulation.signature"


# Step 3


@pytest.mark.parametrize(
    "binding",
    [
        dataclasses.replace(BINDING, keyset_id=b"K" * 32),
        dataclasses.replace(BINDING, challenge=b"C" * 32),
        dataclasses.replace(BINDING, device_digest=b"d" * 32),
        Binding(mode=Mode.CACHED, keyset_id=b"k" * 32, challenge=b""),
    ],
)
def test_evidence_about_anything_else_is_stale(binding: Binding) -> None:
    error = refusal_of([ITEM], binding=binding, error=StaleEvidenceError)
    assert (error.finding_code, error.tee) == ("binding.report_data", "simulation")


@pytest.mark.parametrize(
    "binding",
    [dataclasses.replace(BINDING, mode=Mode.CACHED), dataclasses.replace(BINDING, challenge=b"")],
)
def test_a_mode_that_its_challenge_does_not_fit_is_stale(binding: Binding) -> None:
    assert refusal_of([ITEM], binding=binding, error=StaleEvidenceError).finding_code == "binding.mode"


# Step 4


def test_devices_that_no_evidence_speaks_for_are_refused() -> None:
    binding = dataclasses.replace(BINDING, device_digest=b"d" * 32)
    error = refusal_of([ATTESTER.attest(binding.bound())], binding=binding, error=StaleEvidenceError)
    assert error.finding_code == "machine.devices_bound"


def test_two_machines_are_refused() -> None:
    policy = dataclasses.replace(POLICY, any_of=(POLICY.any_of[0] * 2,))
    error = refusal_of([ITEM, ITEM], policy, error=StaleEvidenceError)
    assert error.finding_code == "machine.one"
    assert "found 2 machines" in str(error)


# Step 5


def test_software_that_the_policy_does_not_name_is_refused_with_all_findings() -> None:
    other = SimulationAttester(os.urandom, b"M" * 32).attest(BINDING.bound())
    error = refusal_of([other])
    assert (error.finding_code, error.tee) == ("simulation.measurement", "simulation")
    assert (b"M" * 32).hex() in str(error)
    assert [finding.outcome for finding in error.findings].count(Outcome.FAILED) == 1
    assert len(error.findings) == 13


# The specification


def test_steps_are_those_of_the_specification() -> None:
    source = (ROOT / "src/blindai/attestation/appraise.py").read_text("utf-8")
    page = (ROOT / "docs/spec/appraisal.md").read_text("utf-8")
    in_source = re.findall(r"^    # (\d\. .*)$", source, re.MULTILINE)
    in_page = re.findall(r"^(\d\.) \*\*(.*?)\*\*", page, re.MULTILINE)
    assert [" ".join(step) for step in in_page] == in_source
    assert len(in_source) == 6
