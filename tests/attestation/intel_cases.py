"""What the tests of evidence by a fake Intel share: to verify it, and to be refused with a code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fakes.intel import FakeEvidence
from fakes.intel_pki import NOW_S, pinned

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Outcome
from blindai.attestation.policy_file import open_policy
from blindai.attestation.tee import TEES, sgx, tdx
from blindai.errors import RejectedEvidenceError
from blindai.policies import preset_table

if TYPE_CHECKING:
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.intel.policy import IntelClaims, IntelPolicy

KINDS = pytest.mark.parametrize(
    "evidence",
    [FakeEvidence(tee="sgx", version=3), FakeEvidence(), FakeEvidence(version=5), FakeEvidence(version=5, body_type=2)],
    ids=["sgx", "tdx-4", "tdx-5", "tdx-5-td-1.0"],
)
TEES_OF_INTEL = pytest.mark.parametrize("tee", ["sgx", "tdx"])


def verify(item: EvidenceItem, now: float = NOW_S) -> tuple[IntelClaims, tuple[Finding, ...]]:
    checks = Checks()
    module = {"sgx": sgx, "tdx": tdx}[item.tee]
    claims: IntelClaims = module.verify(item, now, checks, roots=pinned())
    return claims, checks.findings


def good(tee: str, **changes: Any) -> FakeEvidence:
    return FakeEvidence(tee=tee, version=3 if tee == "sgx" else 4, **changes)


def refusal(item: EvidenceItem, code: str, error: type[RejectedEvidenceError], now: float = NOW_S) -> None:
    with pytest.raises(RejectedEvidenceError) as refused:
        verify(item, now)
    assert (refused.value.finding_code, type(refused.value)) == (f"{item.tee}.{code}", error), str(refused.value)
    assert refused.value.tee == item.tee
    *before, last = refused.value.findings
    assert last.outcome is Outcome.FAILED
    assert last.code == f"{item.tee}.{code}"
    assert all(finding.outcome is Outcome.PASSED for finding in before)


def policy_of(tee: str, text: str, *, preset: str = "strict") -> IntelPolicy:
    """A TEE's table of a policy file: these lines, and the preset's for every other field."""
    section = open_policy(f"[tee.{tee}]\n{text}\n", source="policy.toml").section("tee").section(tee)
    defaults = preset_table(preset, tee)
    assert defaults is not None
    policy: IntelPolicy = TEES[tee].parse_policy(section.with_defaults(defaults))
    return policy


def findings(evidence: FakeEvidence, policy: IntelPolicy, now: float = NOW_S) -> dict[str, Finding]:
    """The findings of the policy's checks, by the second half of their code."""
    claims, _ = verify(evidence.item(), now)
    made = tuple(TEES[claims.tee].check(claims, policy))
    by_code = {finding.code.removeprefix(f"{claims.tee}."): finding for finding in made}
    assert len(by_code) == len(made)
    return by_code


def failures(evidence: FakeEvidence, policy: IntelPolicy, now: float = NOW_S) -> set[str]:
    """The codes of the checks that failed."""
    made = findings(evidence, policy, now)
    assert all(finding.why for finding in made.values())
    return {code for code, finding in made.items() if finding.outcome is Outcome.FAILED}
