"""Releases are ordered as people mean it, and what has no place in the order is never accepted."""

from __future__ import annotations

import itertools

import pytest

from blindai.attestation.evidence import Outcome
from blindai.attestation.policy_file import Skip
from blindai.attestation.policy_release import judge_release, parse_release

ORDER = [
    "0.9.9",
    "1.0.0a1",
    "1.0.0a2",
    "1.0.0b1",
    "1.0.0rc1",
    "1.0.0rc10",
    "1.0.0",
    "1.0.1a0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
]


def test_releases_have_an_order() -> None:
    for older, newer in itertools.combinations(ORDER, 2):
        assert parse_release(older) < parse_release(newer)
        assert judge_release(parse_release(newer), older).outcome is Outcome.FAILED
        assert judge_release(parse_release(older), newer).outcome is Outcome.PASSED
    for same in ORDER:
        assert parse_release(same).text == same
        assert judge_release(parse_release(same), same).outcome is Outcome.PASSED


def test_a_release_is_three_numbers_and_a_stage() -> None:
    release = parse_release("1.20.3rc10")
    assert (release.numbers, release.stage, release.text) == ((1, 20, 3), ("rc", 10), "1.20.3rc10")
    assert (parse_release("1.2.3").stage, parse_release("1.2.3a0").stage) == (("z", 0), ("a", 0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.2.3-4",
        "1.2.3.dev1",
        "1.2.3+x",
        "v1.2.3",
        " 1.2.3",
        "1.2.3\n",
        "1.2.³",
        "1.2.1000000000",
        1,
    ],
)
def test_what_has_no_place_in_the_order_is_no_release(text: object) -> None:
    with pytest.raises(ValueError, match="expected a version"):
        parse_release(text)
    assert judge_release(parse_release("0.0.0"), str(text)).outcome is Outcome.FAILED


def test_a_skipped_minimum_shows_its_reason() -> None:
    finding = judge_release(Skip(reason="why"), "1.0.0")
    assert (finding.outcome, finding.reason, finding.found) == (Outcome.SKIPPED, "why", "1.0.0")
