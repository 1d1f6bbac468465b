"""`blindai explain`, and the table behind it, which is that of docs/spec."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli.processes import SIMULATED, blindai, blindai_ok
from findings_reference import PACKAGED, PAGE, ROOT, all_rows, packaged, reference, rows

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = ROOT / "docs/guides/auditor/proof.json"
AGAIN = "run `python tests/findings_reference.py`"


def test_the_packaged_table_is_that_of_the_pages() -> None:
    assert PACKAGED.read_text("utf-8") == packaged(), AGAIN


def test_the_reference_page_is_that_of_the_pages() -> None:
    assert PAGE.read_text("utf-8") == reference(), AGAIN


def test_a_code_is_specified_once() -> None:
    codes = [row["code"] for row in all_rows()]
    assert sorted(set(codes)) == codes


def test_every_code_says_when_it_fails_where_that_is_from_and_what_to_do() -> None:
    assert [row["code"] for row in all_rows() if not (row["fails_when"] and row["source"] and row["what_to_do"])] == []


def test_reader_takes_tables_of_codes_and_no_others(tmp_path: Path) -> None:
    lines = (
        "| a | b |",
        "|---|---|",
        "| `x.y` | 1 |",
        "",
        "| code | step | fails when | source | what to do |",
        "|---|---|---|---|---|",
        "| `a.b` | check | [x](y.md) \\| z | s | w |",
        "",
        "| `c.d` | 1 | 2 | 3 | 4 |",
    )
    (tmp_path / "page.md").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("findings_reference.ROOT", tmp_path)
        (row,) = rows(tmp_path / "page.md")
    assert (row["code"], row["fails_when"], row["page"]) == ("a.b", "x | z", "page.md")


def test_explains_a_code_with_its_source_and_what_to_do() -> None:
    out = blindai_ok("explain", "binding.report_data").out
    assert out.splitlines()[0] == "binding.report_data"
    assert "fails when  the evidence is about other keys" in out
    assert "source      binding.md §2" in out
    assert "what to do  somebody may be showing" in out


def test_a_member_of_the_runtime_policy_shares_a_row() -> None:
    assert blindai_ok("explain", "runtime.limits.max_models").out.startswith("runtime.<member>")


def test_a_tee_lists_its_codes() -> None:
    out = blindai_ok("explain", "simulation").out
    assert "simulation.signature" in out
    assert "binding" not in out
    listed = json.loads(blindai_ok("explain", "simulation", "--json").out)
    assert {row["code"].partition(".")[0] for row in listed} == {"simulation"}


def test_a_slip_is_met_with_what_was_meant() -> None:
    ended = blindai("explain", "binding.raport_data")
    assert (ended.code, "did you mean binding.report_data" in ended.err.replace("\n", " ")) == (2, True)
    assert "codes begin with" in blindai("explain", "zzz").err


def test_explains_what_failed_in_a_verbs_output(tmp_path: Path) -> None:
    printed = blindai("verify-evidence", SAMPLE, "--json").out
    (tmp_path / "out.json").write_text(printed)
    out = blindai_ok("explain", tmp_path / "out.json").out
    assert out.startswith("failed: simulation.not_accepted\n  expected    no simulated evidence")
    assert "checks passed, 1 explained above" not in out.splitlines()[0]
    explained = json.loads(blindai_ok("explain", tmp_path / "out.json", "--json").out)
    assert explained[0]["explanation"]["page"] == "docs/spec/appraisal.md"


def test_explains_the_findings_of_evidence() -> None:
    out = blindai_ok("explain", SAMPLE, SIMULATED).out
    assert "skipped: simulation.measurement" in out
    assert "left out    insecure_simulation" in out


def test_evidence_that_is_refused_is_not_explained_as_if_all_had_passed(tmp_path: Path) -> None:
    proof = json.loads(SAMPLE.read_bytes())
    proof["attestation"]["keyset"] = "e30"
    (tmp_path / "proof.json").write_text(json.dumps(proof))
    assert "failed: keyset.malformed" in blindai_ok("explain", tmp_path / "proof.json", SIMULATED).out


def test_an_error_in_a_verbs_output_is_explained_though_no_finding_tells_it(tmp_path: Path) -> None:
    passed = {"code": "simulation.signature", "outcome": "passed", "expected": "a", "found": "a"}
    error = {"error": "no answer", "code": "endorsements_unavailable", "hint": ""}
    samples = [{"findings": [passed], "error": None}, {"findings": [], "error": error}]
    (tmp_path / "out.json").write_text(json.dumps({"samples": samples}))
    out = blindai_ok("explain", tmp_path / "out.json").out
    assert "failed: endorsements_unavailable" in out
    assert "no answer" in out


def test_a_code_of_another_version_is_said_to_be_unknown(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text('[{"code": "new.code", "outcome": "failed", "expected": "a", "found": "b"}]')
    assert "this version does not know the code" in blindai_ok("explain", tmp_path / "out.json").out
