"""What a parser's refusal becomes: a finding that says once what was expected and what is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blindai.attestation.checks import Checks, failed, judge, leave_out, only_track
from blindai.attestation.evidence import Outcome
from blindai.errors import MalformedEvidenceError


@pytest.mark.parametrize(
    ("words", "expected", "found"),
    [
        ("expected a quote of 5 bytes, found 4 bytes", "a quote: a quote of 5 bytes", "4 bytes"),
        ("expected a name, found a, found b", "a quote: a name", "a, found b"),
        ("the quote is too long", "a quote", "the quote is too long"),
        ("expected a quote of 5 bytes", "a quote", "expected a quote of 5 bytes"),
        ("expected a name, found ", "a quote: a name", "expected a name, found "),
    ],
)
def test_a_refusal_of_a_parser_is_a_finding(words: str, expected: str, found: str) -> None:
    checks = Checks()
    with (
        pytest.raises(MalformedEvidenceError) as refusal,
        checks.parsing(code="t.whole", expected="a quote", why="It matters."),
    ):
        raise MalformedEvidenceError(words, finding_code="t.part", tee="t")
    (finding,) = checks.findings
    assert refusal.value.findings == checks.findings
    assert (finding.code, finding.outcome, finding.why) == ("t.part", Outcome.FAILED, "It matters.")
    assert (finding.expected, finding.found) == (expected, found)


def test_what_could_be_parsed_is_a_finding_too() -> None:
    checks = Checks()
    with checks.parsing(code="t.whole", expected="a quote", why="It matters."):
        pass
    (finding,) = checks.findings
    assert (finding.code, finding.outcome, finding.expected, finding.found) == (
        "t.whole",
        Outcome.PASSED,
        "a quote",
        "a quote",
    )


def test_only_what_failed_and_is_named_is_tracked() -> None:
    """Everything else stays what it was, in its place."""
    made = [
        judge(holds=holds, code=code, expected="1", found="2", why="It matters.", hint="do it")
        for code in ("t.named", "t.other")
        for holds in (True, False)
    ]
    made.append(leave_out(code="t.named", reason="known", found="2", why="It matters."))
    tracked = list(only_track(made, {"t.named"}))
    assert [one.outcome for one in tracked] == [
        Outcome.PASSED,
        Outcome.TRACKED,
        Outcome.PASSED,
        Outcome.FAILED,
        Outcome.SKIPPED,
    ]
    assert [replace(one, outcome=old.outcome) for one, old in zip(tracked, made, strict=True)] == made
    assert [one.hint for one in made] == ["", "do it", "", "do it", ""]
    assert failed(tracked) == (made[3],)
