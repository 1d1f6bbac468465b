"""What a parser's refusal becomes: a finding that says once what was expected and what is there."""

from __future__ import annotations

import pytest

from blindai.attestation.checks import Checks
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
