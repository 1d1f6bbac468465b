"""Makes findings, and keeps them in order, so that a refusal can show what was checked before it.

Leaves out: what is checked (appraise.py, tee/).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from blindai.attestation.evidence import Finding, Outcome
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from blindai.errors import RejectedEvidenceError

# What whoever judges can do about documents that a vendor publishes; a part of hints.
FETCH_THEM = "fetch them yourself with `--fetch`, or give them as files: `blindai verify-evidence --collateral FOLDER`"


def judge(*, holds: bool, code: str, expected: str, found: str, why: str, hint: str = "") -> Finding:
    """A check's finding: passed if it holds, else failed; the hint is for those who see it fail."""
    outcome = Outcome.PASSED if holds else Outcome.FAILED
    return Finding(code=code, outcome=outcome, expected=expected, found=found, why=why, hint="" if holds else hint)


def leave_out(*, code: str, reason: str, found: str, why: str) -> Finding:
    """The finding of a check that the policy does not want, with the policy's reason."""
    return Finding(code=code, outcome=Outcome.SKIPPED, expected="anything", found=found, why=why, reason=reason)


def only_track(findings: Iterable[Finding], codes: Collection[str]) -> Iterator[Finding]:
    """The findings; a failed one whose code is among `codes` refuses nothing."""
    for finding in findings:
        if finding.outcome is Outcome.FAILED and finding.code in codes:
            yield replace(finding, outcome=Outcome.TRACKED)
        else:
            yield finding


def failed(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that failed."""
    return tuple(finding for finding in findings if finding.outcome is Outcome.FAILED)


class Checks:
    """The findings of one appraisal so far."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything recorded, in order."""
        return tuple(self._findings)

    def record(self, findings: Iterable[Finding]) -> None:
        """Keep findings whatever they are; whether one failed is asked later."""
        self._findings.extend(findings)

    def require(self, finding: Finding, error: type[RejectedEvidenceError], *, tee: str = "") -> None:
        """Keep a finding, and stop here if it failed.

        Raises:
            RejectedEvidenceError: of the given class, with every finding so far.
        """
        self._findings.append(finding)
        if finding.outcome is Outcome.FAILED:
            raise self.rejection(finding, error, tee=tee)

    def rejection(
        self, finding: Finding, error: type[RejectedEvidenceError], *, tee: str = ""
    ) -> RejectedEvidenceError:
        """The error that a failed finding means, with every finding so far."""
        return error(
            f"{finding.code}: expected {finding.expected}, found {finding.found}",
            finding_code=finding.code,
            tee=tee,
            findings=self.findings,
            hint=finding.hint,
        )

    @contextmanager
    def parsing(self, *, code: str, expected: str, why: str) -> Iterator[None]:
        """Keep how the parsing inside the block went; a refusal has its own code, and every finding so far."""
        try:
            yield
        except MalformedEvidenceError as error:
            self.refuse_parsing(error, expected=expected, why=why)
            raise
        self.record([judge(holds=True, code=code, expected=expected, found=expected, why=why)])

    def refuse_parsing(self, error: MalformedEvidenceError, *, expected: str, why: str) -> None:
        """Keep the finding of a parser's refusal, and give the refusal every finding so far."""
        inner, split, found = str(error).removeprefix("expected ").partition(", found ")
        if split:  # said once: what was expected as a whole, of which this part, and what stands there
            expected = f"{expected}: {inner}"
        found = found or str(error)
        self.record([judge(holds=False, code=error.finding_code, expected=expected, found=found, why=why)])
        error.findings = self.findings
