"""The demo is a check of its own: it says what it found, and would say so if it found anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from cli.processes import blindai

from blindai.cli.operator_view import Secrets, hex_view

if TYPE_CHECKING:
    from pathlib import Path

VERDICTS = (
    "the enclave's answers are the model's own",
    "the proof and its opening verify",
    "one digit changed is refused: ",
    "nothing of the patients or the model is where the operator can look",
    "the same search finds them where they are in clear",
    "the server answers 400 to clear bytes",
)


@pytest.mark.network
def test_the_demo_passes_and_says_what_it_shows(tmp_path: Path) -> None:
    ended = blindai("demo", variables={"TMPDIR": str(tmp_path)})
    assert ended.code == 0, ended.out + ended.err
    assert [verdict for verdict in VERDICTS if f"  ✓ {verdict}" not in ended.out] == []
    assert "✗" not in ended.out
    assert re.search(r"\nall checks passed in \d+\.\d s\n\Z", ended.out)
    assert "SIMULATION, NOT SECURE" in ended.err
    assert len(set(re.findall(r"\((?:scikit-learn|through the relay)\) +(0\.\d{4}) *$", ended.out, re.MULTILINE))) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    secret = bytes(range(1, 101))
    looked_for = Secrets.of([secret, b"short"])
    assert looked_for.found_in(b"noise" + secret + b"noise") == len(looked_for.pieces) - 1
    assert looked_for.found_in(b"noise" + secret[16:32]) == 1  # a sixteenth of it is enough
    assert looked_for.found_in(secret[:15] + b"noise" + secret[17:31]) == 0
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"..short..")
    assert looked_for.found_under(tmp_path) == 1
    (tmp_path / "a-short-name").mkdir()
    assert looked_for.found_under(tmp_path) == 2


def test_a_run_of_one_byte_is_not_searched_for() -> None:
    assert Secrets.of([bytes(64)]).pieces == ()


def test_hex_view() -> None:
    assert hex_view(b"BSQ1\x00\xff", start=0, rows=4) == f"  00000000  {'42 53 51 31 00 ff':<47}  BSQ1··"
