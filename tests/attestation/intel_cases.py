"""What the tests of evidence by a fake Intel share: to verify it, and to be refused with a code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fakes.intel import FakeEvidence
from fakes.intel_pki import NOW_S, pinned

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Outcome
from blindai.attestation.tee import sgx, tdx
from blindai.errors import RejectedEvidenceError

if TYPE_CHECKING:
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.intel_policy import IntelClaims

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
