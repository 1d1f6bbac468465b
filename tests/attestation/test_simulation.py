"""Simulated evidence: what the attester makes verifies, every changed bit does not, and it is loud about what it is."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Finding, Outcome
from blindai.attestation.policy_file import Skip
from blindai.attestation.roots import SIMULATION_ROOT
from blindai.attestation.tee.simulation import (
    DEVICE_LABEL,
    EVIDENCE_LABEL,
    SimulationClaims,
    SimulationPolicy,
    check,
    parse,
    verify,
)
from blindai.attester.simulation import SimulationAttester, measure_software, simulation_root
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError, UnauthenticEvidenceError

if TYPE_CHECKING:
    from pathlib import Path

MEASUREMENT = bytes(range(32))
BOUND = bytes(range(100, 164))
DEVICE_SEED = b"d" * 32
ITEM = SimulationAttester(lambda size: DEVICE_SEED[:size], MEASUREMENT).attest(BOUND)
DEVICE = Ed25519PrivateKey.from_private_bytes(DEVICE_SEED)


def flip(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ (1 << bit)).to_bytes(len(data), "big")


def with_endorsement(name: str, data: bytes) -> EvidenceItem:
    return dataclasses.replace(ITEM, endorsements=tuple({**dict(ITEM.endorsements), name: data}.items()))


def findings_of(item: EvidenceItem) -> tuple[Finding, ...]:
    checks = Checks()
    verify(item, 0.0, checks)
    return checks.findings


def test_evidence_has_this_form() -> None:
    signed = b"BLINDAI SIMULATION - NOT SECURE\n\0\1" + DEVICE.public_key().public_bytes_raw() + MEASUREMENT + BOUND
    assert ITEM.evidence == signed + DEVICE.sign(b"blindai/1 simulation-evidence\0" + signed)
    assert len(ITEM.evidence) == 226
    assert EVIDENCE_LABEL == b"blindai/1 simulation-evidence\0"


def test_endorsements_are_the_root_and_its_word_for_the_device() -> None:
    root = simulation_root()
    message = b"blindai/1 simulation-device\0" + DEVICE.public_key().public_bytes_raw()
    assert dict(ITEM.endorsements) == {
        "device_certificate": root.sign(message),
        "root": root.public_key().public_bytes_raw(),
    }
    assert DEVICE_LABEL == b"blindai/1 simulation-device\0"


def test_anybody_can_derive_the_root_that_is_pinned() -> None:
    sentence = b"This seed is published on purpose: the BlindAI simulation root protects nothing."
    root = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(sentence).digest()).public_key().public_bytes_raw()
    assert hashlib.sha256(root).digest() == SIMULATION_ROOT.sha256


def test_claims_are_what_the_attester_said() -> None:
    claims = verify(ITEM, 0.0, Checks())
    assert claims == SimulationClaims(
        bound=BOUND, device_key=DEVICE.public_key().public_bytes_raw(), measurement=MEASUREMENT
    )
    assert ("hardware", "none: SIMULATION PROTECTS NOTHING") in claims.facts()
    assert ("measurement", MEASUREMENT.hex()) in claims.facts()


def test_every_check_of_good_evidence_is_named() -> None:
    assert [(finding.code, finding.outcome) for finding in findings_of(ITEM)] == [
        ("simulation.format", Outcome.PASSED),
        ("simulation.endorsements", Outcome.PASSED),
        ("simulation.root", Outcome.PASSED),
        ("simulation.device_certificate", Outcome.PASSED),
        ("simulation.signature", Outcome.PASSED),
    ]


def test_no_changed_bit_of_the_evidence_is_accepted() -> None:
    for bit in range(8 * len(ITEM.evidence)):
        with pytest.raises((MalformedEvidenceError, UnauthenticEvidenceError)):
            findings_of(dataclasses.replace(ITEM, evidence=flip(ITEM.evidence, bit)))


@pytest.mark.parametrize("name", ["device_certificate", "root"])
def test_no_changed_bit_of_an_endorsement_is_accepted(name: str) -> None:
    data = dict(ITEM.endorsements)[name]
    for bit in range(8 * len(data)):
        with pytest.raises(UnauthenticEvidenceError) as refusal:
            findings_of(with_endorsement(name, flip(data, bit)))
        assert refusal.value.finding_code == f"simulation.{name}"


def test_a_refusal_shows_what_was_checked_before_it() -> None:
    with pytest.raises(UnauthenticEvidenceError) as refusal:
        findings_of(dataclasses.replace(ITEM, evidence=ITEM.evidence[:-1] + b"\0"))
    assert refusal.value.finding_code == "simulation.signature"
    assert refusal.value.tee == "simulation"
    outcomes = [finding.outcome for finding in refusal.value.findings]
    assert outcomes == [Outcome.PASSED] * 4 + [Outcome.FAILED]


def test_a_root_of_ones_own_is_not_the_pinned_one() -> None:
    own = Ed25519PrivateKey.from_private_bytes(bytes(32))
    certificate = own.sign(DEVICE_LABEL + DEVICE.public_key().public_bytes_raw())
    endorsements = (("device_certificate", certificate), ("root", own.public_key().public_bytes_raw()))
    with pytest.raises(UnauthenticEvidenceError) as refusal:
        findings_of(dataclasses.replace(ITEM, endorsements=endorsements))
    assert refusal.value.finding_code == "simulation.root"


def test_a_device_certificate_is_for_one_device() -> None:
    other = SimulationAttester(lambda size: b"e" * size, MEASUREMENT).attest(BOUND)
    with pytest.raises(UnauthenticEvidenceError) as refusal:
        findings_of(dataclasses.replace(ITEM, endorsements=other.endorsements))
    assert refusal.value.finding_code == "simulation.device_certificate"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        ITEM.evidence[:-1],
        ITEM.evidence + b"\0",
        b"B" * 226,
        b"b" + ITEM.evidence[1:],
        ITEM.evidence[:33] + b"\2" + ITEM.evidence[34:],
    ],
)
def test_other_sizes_magics_and_versions_are_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedEvidenceError) as refusal:
        findings_of(dataclasses.replace(ITEM, evidence=raw))
    assert refusal.value.finding_code == "simulation.format"
    assert [finding.outcome for finding in refusal.value.findings] == [Outcome.FAILED]


@pytest.mark.parametrize(
    "endorsements",
    [(), ITEM.endorsements[:1], (*ITEM.endorsements, ("extra", b"")), (*ITEM.endorsements, ITEM.endorsements[0])],
)
def test_missing_and_surplus_endorsements_are_malformed(endorsements: tuple[tuple[str, bytes], ...]) -> None:
    with pytest.raises(MalformedEvidenceError) as refusal:
        findings_of(dataclasses.replace(ITEM, endorsements=endorsements))
    assert refusal.value.finding_code == "simulation.endorsements"


def test_endorsements_may_stand_in_any_order() -> None:
    backwards = dataclasses.replace(ITEM, endorsements=ITEM.endorsements[::-1])
    assert findings_of(backwards)[1].outcome is Outcome.PASSED


@given(
    evidence=st.binary(max_size=300)
    | st.binary(min_size=192, max_size=192).map(lambda tail: ITEM.evidence[:34] + tail),
    root=st.binary(max_size=40),
    certificate=st.binary(max_size=70),
)
def test_arbitrary_bytes_are_rejected_and_nothing_worse(evidence: bytes, root: bytes, certificate: bytes) -> None:
    item = EvidenceItem(
        tee="simulation", evidence=evidence, endorsements=(("device_certificate", certificate), ("root", root))
    )
    with pytest.raises(RejectedEvidenceError):
        findings_of(item)


@given(tail=st.binary(min_size=192, max_size=192))
def test_parsing_keeps_every_byte(tail: bytes) -> None:
    parsed = parse(ITEM.evidence[:34] + tail)
    assert parsed.device_key + parsed.measurement + parsed.report_data + parsed.signature == tail
    assert parsed.signed + parsed.signature == ITEM.evidence[:34] + tail


def test_measurement_is_compared_with_each_reference_value() -> None:
    claims = verify(ITEM, 0.0, Checks())
    for measurement, outcome in (
        ((bytes(32), MEASUREMENT), Outcome.PASSED),
        ((bytes(32),), Outcome.FAILED),
        (Skip(reason="known"), Outcome.SKIPPED),
    ):
        (finding,) = check(claims, SimulationPolicy(measurement=measurement))
        assert (finding.code, finding.outcome) == ("simulation.measurement", outcome)
        assert finding.found == MEASUREMENT.hex()
        assert finding.reason == ("known" if outcome is Outcome.SKIPPED else "")


def test_software_measurement_is_the_formula(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.py").write_bytes(b"1")
    (tmp_path / "a.py").write_bytes(b"22")
    (tmp_path / "notes.txt").write_bytes(b"not software")
    # "." sorts before "/", so a.py is first.
    by_hand = b"blindai/1 simulation-measurement\0\0\0\0\4a.py\0\0\0\x0222\0\0\0\6a/x.py\0\0\0\x011"
    assert measure_software(tmp_path) == hashlib.sha256(by_hand).digest()


def test_software_measurement_names_bytes_and_paths(tmp_path: Path) -> None:
    seen = set()
    for name, data in (("a.py", b"1"), ("a.py", b"2"), ("b.py", b"2")):
        for old in tmp_path.glob("*.py"):
            old.unlink()
        (tmp_path / name).write_bytes(data)
        seen.add(measure_software(tmp_path))
    assert len(seen) == 3


def test_the_installed_software_is_what_is_measured() -> None:
    assert len(measure_software()) == 32
    assert measure_software() not in {hashlib.sha256(b"blindai/1 simulation-measurement\0").digest(), bytes(32)}


def test_attester_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match="a measurement has 32 bytes"):
        SimulationAttester(bytes, b"short")
    with pytest.raises(ValueError, match="the binding has 64 bytes"):
        SimulationAttester(bytes, MEASUREMENT).attest(BOUND[1:])
