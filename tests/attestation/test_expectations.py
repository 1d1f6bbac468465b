"""What a policy may say about one claim: read exactly, judged exactly, and shown in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blindai.attestation.evidence import Outcome
from blindai.attestation.expectations import (
    judge_accepted,
    judge_flag,
    judge_minimum,
    judge_names,
    one_of,
    read_accepted,
    read_flag,
    read_minimum,
    read_names,
    read_track,
)
from blindai.attestation.policy_file import Section, Skip, open_policy
from blindai.errors import InvalidPolicyError

if TYPE_CHECKING:
    from collections.abc import Callable

SKIP = Skip(reason="why not")
KNOWN = ("red", "green")


def section(value: str) -> Section:
    return open_policy(f"# a comment\nx = {value}", source="p")


def accepted(one: Section) -> tuple[bytes, ...] | Skip:
    return read_accepted(one, "x", 1, 2)


def known(one: Section) -> tuple[str, ...] | Skip:
    return read_names(one, "x", KNOWN)


def any_name(one: Section) -> tuple[str, ...] | Skip:
    return read_names(one, "x")


def flag(one: Section) -> bool | Skip:
    return read_flag(one, "x")


def minimum(one: Section) -> int | Skip:
    return read_minimum(one, "x")


@pytest.mark.parametrize("read", [accepted, known, any_name, flag, minimum])
def test_every_field_can_be_left_out_with_a_reason(read: Callable[[Section], Any]) -> None:
    assert read(section('{ skip = "why not" }')) == SKIP
    for wrong in ('{ skip = "" }', "{}", '{ skip = "a", more = 1 }'):
        with pytest.raises(InvalidPolicyError, match=r"^p, line 2: "):
            read(section(wrong))


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (accepted, '["00", "abcd"]', (b"\0", b"\xab\xcd")),
        (known, '["green"]', ("green",)),
        (known, "[]", ()),
        (any_name, '["blue"]', ("blue",)),
        (flag, "true", True),
        (flag, "false", False),
        (minimum, "0", 0),
        (minimum, "7", 7),
    ],
)
def test_a_field_is_read(read: Callable[[Section], Any], text: str, value: object) -> None:
    found = read(section(text))
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("read", "text", "problem"),
    [
        (accepted, "[]", "must be a list of at least one text of 2 or 4 lower-case hexadecimal digits"),
        (accepted, '"00"', "must be a list of at least one"),
        (accepted, '["0"]', "must be a list of text of 2 or 4"),
        (accepted, '["AB"]', "must be a list of text of 2 or 4"),
        (accepted, '["ababab"]', "must be a list of text of 2 or 4"),
        (accepted, "[1]", "must be a list of text of 2 or 4"),
        (known, '["blue"]', "names 'blue'; known are red, green"),
        (known, '"red"', "must be a list of texts"),
        (any_name, "[1]", "must be a list of texts"),
        (any_name, '[""]', "must be a list of texts"),
        (flag, "1", "must be true or false"),
        (minimum, "-1", "must be a whole number from 0"),
        (minimum, "true", "must be a whole number from 0"),
        (minimum, "1.0", "must be a whole number from 0"),
    ],
)
def test_anything_else_is_an_error_that_names_the_line(read: Callable[[Section], Any], text: str, problem: str) -> None:
    with pytest.raises(InvalidPolicyError) as refusal:
        read(section(text))
    assert str(refusal.value).startswith(f"p, line 2: `x` {problem}")


def test_track_lists_codes_and_is_never_skipped() -> None:
    def read(text: str) -> frozenset[str]:
        return read_track(open_policy(f"track = {text}", source="p"), KNOWN)

    assert (read("[]"), read('["red"]')) == (frozenset(), frozenset({"red"}))
    with pytest.raises(InvalidPolicyError, match="an empty list enforces every check"):
        read('{ skip = "why" }')
    with pytest.raises(InvalidPolicyError, match="names 'blue'"):
        read('["blue"]')


WORDS = {"code": "a.b", "why": "It matters."}


def test_a_skipped_check_shows_its_reason_and_what_was_found() -> None:
    findings = (
        judge_accepted(SKIP, found=b"\xab", **WORDS),
        judge_flag(SKIP, found=True, **WORDS),
        judge_minimum(SKIP, found=7, **WORDS),
        judge_names(SKIP, found=("red", "blue"), **WORDS),
        judge_names(SKIP, found=(), **WORDS),
    )
    assert [finding.found for finding in findings] == ["ab", "true", "7", "red, blue", "none"]
    assert {(finding.outcome, finding.reason, finding.code) for finding in findings} == {
        (Outcome.SKIPPED, "why not", "a.b")
    }


def test_claims_are_judged() -> None:
    judged = {
        judge_accepted((b"\1", b"\2"), found=b"\2", hint="h", **WORDS): ("passed", "one of 01, 02", "02"),
        judge_accepted((b"\1",), found=b"\2", hint="h", **WORDS): ("failed", "01", "02"),
        judge_flag(required=False, found=False, hint="h", **WORDS): ("passed", "false", "false"),
        judge_flag(required=True, found=False, hint="h", **WORDS): ("failed", "true", "false"),
        judge_minimum(7, found=7, hint="h", **WORDS): ("passed", "7 or more", "7"),
        judge_minimum(7, found=6, hint="h", **WORDS): ("failed", "7 or more", "6"),
        judge_names(KNOWN, found=("red",), hint="h", **WORDS): ("passed", "none but red, green", "red"),
        judge_names(KNOWN, found=("red", "blue"), hint="h", **WORDS): ("failed", "none but red, green", "red, blue"),
        judge_names((), found=(), hint="h", **WORDS): ("passed", "none", "none"),
        judge_names((), found=("red",), hint="h", **WORDS): ("failed", "none", "red"),
    }
    for finding, (outcome, expected, found) in judged.items():
        assert (finding.outcome.value, finding.expected, finding.found) == (outcome, expected, found)
        assert finding.hint == ("h" if outcome == "failed" else "")


def test_one_of_reads_well() -> None:
    assert [one_of(["a"]), one_of(["a", "b"])] == ["a", "one of a, b"]
