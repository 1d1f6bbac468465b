"""The attestation document returns what was put in, and nothing but exactly a document is read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import (
    MAX_DOCUMENT_BYTES,
    AttestationDocument,
    BatchProof,
    EvidenceItem,
    Finding,
    Level,
    Outcome,
    document_members,
    encode_document,
    explain,
    parse_document,
    parse_document_members,
)
from blindai.errors import MalformedEvidenceError

ITEM = EvidenceItem(tee="simulation", evidence=b"\xff\xfe", endorsements=(("device_certificate", b"c"), ("root", b"")))
DOCUMENT = AttestationDocument(
    keyset=b"{}",
    mode=Mode.FRESH,
    evidence=(ITEM,),
    batch=BatchProof(index=1, count=2, path=(bytes(32),)),
)

names = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
items = st.builds(
    EvidenceItem,
    tee=names,
    evidence=st.binary(max_size=300),
    endorsements=st.dictionaries(names, st.binary(max_size=99), max_size=4).map(
        lambda pairs: tuple(sorted(pairs.items()))
    ),
)
batches = st.builds(
    BatchProof,
    index=st.integers(0, 2**53 - 1),
    count=st.integers(0, 2**53 - 1),
    path=st.lists(st.binary(min_size=32, max_size=32), max_size=64).map(tuple),
)


def changed(**members: Any) -> bytes:
    """The document with some members replaced; None takes one away."""
    value = {**document_members(DOCUMENT), **members}
    return json.dumps({name: member for name, member in value.items() if member is not None}).encode()


@given(
    keyset=st.binary(max_size=300),
    evidence=st.lists(items, max_size=3).map(tuple),
    batch=st.none() | batches,
)
def test_document_returns_what_was_put_in(
    keyset: bytes, evidence: tuple[EvidenceItem, ...], batch: BatchProof | None
) -> None:
    document = AttestationDocument(keyset=keyset, mode=Mode.FRESH, evidence=evidence, batch=batch)
    assert parse_document(encode_document(document)) == document
    assert parse_document_members(document_members(document)) == document


def test_document_has_this_form() -> None:
    assert encode_document(DOCUMENT) == (
        b'{"batch":{"count":2,"index":1,"path":["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]},'
        b'"evidence":[{"endorsements":{"device_certificate":"Yw","root":""},"evidence":"__4","tee":"simulation"}],'
        b'"keyset":"e30","mode":"fresh"}'
    )


def test_the_example_of_the_specification_is_a_document() -> None:
    page = (Path(__file__).parents[2] / "docs" / "spec" / "evidence.md").read_text("utf-8")
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert example
    document = parse_document(example[1].encode())
    assert document.mode is Mode.FRESH
    assert document.evidence[0].tee == "simulation"


ITEM_MEMBERS = document_members(DOCUMENT)["evidence"][0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xef\xbb\xbf" + encode_document(DOCUMENT),
        encode_document(DOCUMENT) + b"x",
        encode_document(DOCUMENT).replace(b'"mode"', b'"mode":"fresh","mode"'),
        changed(keyset=None),
        changed(keyset="e30="),
        changed(keyset=3),
        changed(extra=1),
        changed(mode="epoch"),
        changed(mode=1),
        changed(mode=["fresh"]),
        changed(mode="cached"),  # and yet a batch
        changed(evidence={}),
        changed(evidence=[ITEM_MEMBERS] * 65),
        changed(evidence=[{**ITEM_MEMBERS, "tee": "Simulation"}]),
        changed(evidence=[{**ITEM_MEMBERS, "tee": "simulation\n"}]),
        changed(evidence=[{**ITEM_MEMBERS, "tee": 1}]),
        changed(evidence=[{**ITEM_MEMBERS, "tee": ["simulation"]}]),
        changed(evidence=[{**ITEM_MEMBERS, "endorsements": []}]),
        changed(evidence=[{**ITEM_MEMBERS, "endorsements": {"a b": ""}}]),
        changed(evidence=[{**ITEM_MEMBERS, "endorsements": {f"e{i}": "" for i in range(65)}}]),
        changed(evidence=[{**ITEM_MEMBERS, "more": ""}]),
        changed(batch={"index": 0, "count": 1}),
        changed(batch={"index": 0, "count": True, "path": []}),
        changed(batch={"index": -1, "count": 1, "path": []}),
        changed(batch={"index": 0, "count": 1, "path": ["AA"]}),
        changed(activation="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        b" " * (MAX_DOCUMENT_BYTES + 1),
    ],
)
def test_anything_but_exactly_a_document_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvidenceError) as refusal:
        parse_document(data)
    assert refusal.value.finding_code == "evidence.document"


def test_the_longest_document_is_read() -> None:
    longest = encode_document(DOCUMENT).ljust(1024 * 1024)
    assert parse_document(longest) == DOCUMENT
    with pytest.raises(MalformedEvidenceError):
        parse_document(longest + b" ")


def test_endorsements_stand_in_the_order_of_their_names() -> None:
    other = changed(evidence=[{**ITEM_MEMBERS, "endorsements": {"root": "", "device_certificate": "Yw"}}])
    assert other != changed()
    assert parse_document(other) == parse_document(changed()) == DOCUMENT


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,0aeimst', max_size=60).map(str.encode))
def test_arbitrary_bytes_are_malformed_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(MalformedEvidenceError):
        parse_document(data)


def test_an_endorsement_is_never_named_twice() -> None:
    item = EvidenceItem(tee="simulation", evidence=b"", endorsements=(("root", b"1"), ("root", b"2")))
    with pytest.raises(ValueError, match="named twice"):
        encode_document(AttestationDocument(keyset=b"", mode=Mode.CACHED, evidence=(item,)))


def test_levels_are_ordered_and_named() -> None:
    assert Level.SIMULATED < Level.PINNED_TLS < Level.CACHED < Level.FRESH
    assert [level.text for level in Level] == ["simulated", "pinned-tls", "cached", "fresh"]
    assert [level.value for level in Level] == [0, 1, 2, 3]


def test_explanation_shows_each_outcome_on_its_line() -> None:
    def finding(outcome: Outcome, reason: str = "") -> Finding:
        return Finding(code="t.x", outcome=outcome, expected="1", found="2", why="It matters.", reason=reason)

    lines = explain([finding(Outcome.PASSED), finding(Outcome.FAILED), finding(Outcome.SKIPPED, "known")])
    assert lines.splitlines() == [
        "✓ t.x: 2. It matters.",
        "✗ t.x: expected 1, found 2. It matters.",
        "– t.x: skipped (known), found 2. It matters.",
    ]


def test_a_finding_is_one_line_whatever_was_found() -> None:
    """Nothing that a server sends can begin another line, or colour it."""
    found = 'a\n✓ t.y: all is well\r\x1b[31m\u2028\0 \\ "é"'
    finding = Finding(code="t.x", outcome=Outcome.FAILED, expected="1", found=found, why="It matters.")
    shown = r'a\n✓ t.y: all is well\r\x1b[31m\u2028\x00 \ "é"'
    assert finding.line() == f"✗ t.x: expected 1, found {shown}. It matters."
