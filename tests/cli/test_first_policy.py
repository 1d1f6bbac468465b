"""A first policy parses, and accepts the software that it was written from: for every TEE with real evidence."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attestation.samples import needs_evidence
from fakes.tpm_vendor import NOW as TPM_NOW
from fakes.tpm_vendor import FakeTpm, FakeVendor, rsa_key

from blindai.attestation.checks import Checks, failed
from blindai.attestation.evidence import Claims
from blindai.attestation.policy_file import Skip
from blindai.attestation.policy_tees import PRESETS, fields_of
from blindai.attestation.policy_view import tee_fields
from blindai.attestation.tee import TEES
from blindai.attestation.tee.simulation import SimulationClaims
from blindai.attestation.tee.tpm import TpmClaims
from blindai.attestation.tee.tpm import verify as verify_tpm
from blindai.cli.first_policy import Seen, first_policy
from blindai.errors import InvalidPolicyError
from blindai.policies import preset_table, read_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.evidence import EvidenceItem
    from blindai.attestation.policy import Policy

WITH_SAMPLES = [tee for tee in TEES if (Path(__file__).parents[1] / "attestation" / f"test_{tee}_samples.py").is_file()]


def seen(*claims: Claims, **changes: Any) -> Seen:
    base = Seen(source="here\n[tee]", now=0.0, claims=claims, keyset=None, level="fresh")
    return replace(base, **changes)


def read(text: str) -> Policy:
    return read_policy(text, source="first.toml", folder=Path())


@needs_evidence
@pytest.mark.parametrize("tee", WITH_SAMPLES)
def test_real_evidence_makes_a_policy_that_accepts_its_software(tee: str, tell: Callable[[str], None]) -> None:
    one_genuine: Callable[[], tuple[EvidenceItem, float]] = importlib.import_module(
        f"attestation.test_{tee}_samples"
    ).one_genuine
    item, now = one_genuine()
    claims = TEES[tee].verify(item, now, Checks())
    preset = next(name for name in PRESETS if preset_table(name, tee) is not None)
    ((policy,),) = read(first_policy(seen(claims, now=now), preset)).any_of
    from_preset = preset_table(preset, tee) or {}
    own = [name for name in fields_of(tee) if name not in from_preset]
    refused = {finding.code for finding in failed(TEES[tee].check(claims, policy))}
    assert not refused & {f"{tee}.{name}" for name in own}
    values = [value for place, value in tee_fields(policy).items() if place.split(".")[2] in own]
    tell(f"{tee}: {len(own)} reference values, {sum(isinstance(value, Skip) for value in values)} of them skipped")


VENDOR = FakeVendor()


def tpm_claims(tpm: FakeTpm) -> TpmClaims:
    return verify_tpm(tpm.item(), TPM_NOW.timestamp(), Checks(), roots=VENDOR.pinned)


def test_a_tpm_that_no_vendor_certifies_is_accepted_by_its_keys_name_alone() -> None:
    claims, other = tpm_claims(FakeTpm()), tpm_claims(FakeTpm(key=rsa_key(1)))
    text = first_policy(seen(claims), "strict")
    ((policy,),) = read(text).any_of
    assert 'ak_certified = ["ak_name"]  #' in text
    assert f'ak_names = ["{claims.ak_name.hex()}"]  #' in text
    assert not failed(TEES["tpm"].check(claims, policy))
    refused = {finding.code for finding in failed(TEES["tpm"].check(other, policy))}
    assert refused == {"tpm.ak_certified", "tpm.ak_name"}
    ((both,),) = read(first_policy(seen(claims, other), "strict")).any_of
    assert not failed(TEES["tpm"].check(other, both))


def test_a_tpm_that_a_vendor_certifies_shows_how_to_name_its_key() -> None:
    tpm = FakeTpm()
    tpm.endorsements = VENDOR.chain(VENDOR.certify(tpm.key))
    text = first_policy(seen(tpm_claims(tpm)), "strict")
    assert f'# ak_names = ["{tpm.ak_name.hex()}"]  # to accept' in text
    assert "ak_certified" not in text
    assert read(text).any_of


def test_a_simulation_needs_no_preset_and_says_what_it_is() -> None:
    text = first_policy(seen(SimulationClaims(bound=b"", device_key=b"", measurement=b"\xab" * 32)), "strict")
    assert "PROTECTS NOTHING" in text
    assert "\n[tee]" not in text  # a name cannot leave its comment
    policy = read(text)
    assert policy.insecure_simulation
    assert all(isinstance(value, Skip) for value in (policy.release, policy.operator, policy.runtime))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknowing(Claims):
    """Evidence of a TEE that says nothing."""

    tee: str = "sgx"
    bound: bytes = field(default=b"", repr=False)

    def facts(self) -> tuple[tuple[str, str], ...]:
        return ()


def test_evidence_that_names_no_software_makes_no_policy() -> None:
    with pytest.raises(InvalidPolicyError, match="evidence of sgx was shown that says none of mr_enclave"):
        first_policy(seen(Unknowing()), "strict")


def test_a_preset_that_cannot_meet_the_evidence_makes_no_policy() -> None:
    with pytest.raises(InvalidPolicyError, match="the preset cloud-aws cannot meet sgx") as refusal:
        first_policy(seen(Unknowing()), "cloud-aws")
    assert "--preset" in refusal.value.hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    mr_enclave: bytes = b"\xaa" * 32
    isv_svn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Partly(Unknowing):
    """Evidence that says some of what its table asks for."""

    report: Report = field(default_factory=Report)


def test_what_the_evidence_does_not_say_is_a_skip_in_plain_sight() -> None:
    text = first_policy(seen(Partly(), Partly(report=Report(mr_enclave=b"\xbb" * 32, isv_svn=3))), "strict")
    assert 'mr_signer = { skip = "the evidence said nothing of it" }  # put a value here once you know one' in text
    assert f'mr_enclave = ["{"aa" * 32}", "{"bb" * 32}"]' in text
    assert "isv_svn = 0  #" in text
    assert read(text).any_of
