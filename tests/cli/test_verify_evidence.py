"""`blindai verify-evidence` on simulated evidence, the one kind that tests of the command line can make."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cli.processes import SIMULATED, blindai

from blindai.attester.simulation import SimulationAttester

if TYPE_CHECKING:
    from pathlib import Path

BOUND = bytes(range(64))
ITEM = SimulationAttester(lambda size: b"d" * size, bytes(32)).attest(BOUND)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """The proof that docs/guides/auditor.md shows."""
    from test_docs import ROOT

    copy = tmp_path / "proof.json"
    copy.write_bytes((ROOT / "docs/guides/auditor/proof.json").read_bytes())
    return copy


def members(out: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(out)
    return read


def changed(path: Path, **change: object) -> Path:
    """The proof with another member in its attestation document."""
    proof = json.loads(path.read_bytes())
    proof["attestation"].update(change)
    path.write_text(json.dumps(proof))
    return path


def test_shows_every_check_and_claim_and_what_it_is_about(sample: Path) -> None:
    ended = blindai("verify-evidence", sample, SIMULATED)
    assert ended.code == 0
    assert "✓ simulation.signature: " in ended.out
    assert "simulation measurement: ca1f0a4d" in ended.out
    assert "✓ trusted under this policy: simulation" in ended.out
    assert "about   the keyset in the same file, of service 'blindai-srv'" in ended.out
    assert "SIMULATION, NOT SECURE" in ended.err
    assert "NOT BOUND" not in ended.err


def test_reads_a_bare_attestation_document_too(sample: Path) -> None:
    sample.write_text(json.dumps(json.loads(sample.read_bytes())["attestation"]))
    assert blindai("verify-evidence", sample, SIMULATED).code == 0


def test_json_holds_the_same(sample: Path) -> None:
    ended = blindai("verify-evidence", sample, SIMULATED, "--json", "--at", "2026-11-26")
    found = members(ended.out)
    assert (found["trusted"], found["exit_code"], found["simulated"], found["assumed_time"]) == (
        True,
        0,
        True,
        "2026-11-26",
    )
    assert found["claims"][0]["measurement"].startswith("ca1f0a4d")
    assert "binding.report_data" in [finding["code"] for finding in found["findings"]]
    assert found["error"] is None


def test_without_a_policy_it_is_looked_at_and_refused(sample: Path) -> None:
    ended = blindai("verify-evidence", sample, "--json")
    found = members(ended.out)
    assert (ended.code, found["error"]["finding"]) == (5, "simulation.not_accepted")
    outcomes = {finding["code"]: finding["outcome"] for finding in found["findings"]}
    assert outcomes["simulation.signature"] == "passed"
    assert found["claims"]


def test_other_keys_are_noticed(sample: Path) -> None:
    keyset = json.loads(sample.read_bytes())["attestation"]["keyset"]
    ended = blindai("verify-evidence", changed(sample, keyset=keyset.replace("Y", "Z", 1)), SIMULATED, "--json")
    assert ended.code in {4, 6}  # another keyset, or none at all
    assert members(ended.out)["trusted"] is False


def test_other_keys_are_noticed_under_a_policy_that_accepts_nothing_too(sample: Path) -> None:
    ended = blindai("verify-evidence", sample, "--report-data", "00" * 64)
    assert ended.code == 4
    assert "✗ binding.report_data: expected 0000" in ended.out


def test_another_nonce_is_noticed_and_the_own_one_found(sample: Path) -> None:
    from test_docs import ROOT

    opening = json.loads((ROOT / "docs/guides/auditor/proof.opening.json").read_bytes())
    from blindai.wire import base64url_decode

    own = base64url_decode(opening["nonce"]).hex()
    assert blindai("verify-evidence", sample, SIMULATED, "--nonce", own).code == 4  # a published one has no path
    changed(sample, batch=opening["batch"])
    ended = blindai("verify-evidence", sample, SIMULATED, "--nonce", own)
    assert (ended.code, "about   your nonce and the keyset" in ended.out) == (0, True)
    assert blindai("verify-evidence", sample, SIMULATED, "--nonce", "00" * 32).code == 4


def test_raw_evidence_without_its_endorsements_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "evidence.bin").write_bytes(ITEM.evidence)
    ended = blindai("verify-evidence", tmp_path / "evidence.bin", SIMULATED)
    assert (ended.code, "✗ simulation.endorsements" in ended.out) == (6, True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"nothing of the kind", "found 19 bytes that begin as none of these"),
        (b"{}", "malformed"),
        (b'{"a":1.5}', "not strict JSON"),
        (b"HCLA" + bytes(100), "give the folder"),
    ],
)
def test_a_file_that_is_no_evidence_says_what_would_be(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(data)
    ended = blindai("verify-evidence", tmp_path / "file", SIMULATED)
    assert (ended.code, words in ended.err) == (6, True)


@pytest.mark.parametrize(
    "options",
    [
        ["--nonce", "xyz"],
        ["--report-data", "0"],
        ["--pccs", "https://pccs"],
        ["--cache", "."],
        ["--save-endorsements", "x"],
        ["--fetch", "--kds", "ftp://kds"],
        ["--at", "noon"],
        ["--policy", "strict", SIMULATED],
    ],
)
def test_options_that_do_nothing_or_mean_nothing_are_refused(sample: Path, options: list[str]) -> None:
    assert blindai("verify-evidence", sample, *options).code == 2


def test_a_bundle_that_is_none_means_endorsements_cannot_be_had(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "no.endorsements.json").write_text("{}")
    ended = blindai("verify-evidence", sample, SIMULATED, "--endorsements", tmp_path / "no.endorsements.json")
    assert (ended.code, "is not a bundle" in ended.err) == (3, True)


def machine_folder(folder: Path, **changes: Any) -> Path:
    """A fake AMD's machine as files; its root is not pinned, so it can get no further than that."""
    from fakes.amd import FakeMachine

    item = FakeMachine(**changes).item()
    folder.mkdir(parents=True)
    (folder / "report.bin").write_bytes(item.evidence)
    for name, data in item.endorsements:
        (folder / f"{'vcek' if name == 'vek' else name}.der").write_bytes(data)
    return folder


def test_a_folder_of_samples_makes_a_table(tmp_path: Path) -> None:
    machine_folder(tmp_path / "all" / "one")
    machine_folder(tmp_path / "all" / "more" / "two", product="Milan")
    (tmp_path / "all" / "notes").mkdir()
    ended = blindai("verify-evidence", tmp_path / "all")
    assert ended.code == 6
    assert [line.split()[:3] for line in ended.out.splitlines()[1:3]] == [
        ["more/two", "sev_snp", "6"],
        ["one", "sev_snp", "6"],
    ]
    assert "sev_snp.chain_root" in ended.out
    assert "2 samples, 0 trusted under this policy" in ended.out
    found = members(blindai("verify-evidence", tmp_path / "all", "--json").out)
    assert [sample["exit_code"] for sample in found["samples"]] == [6, 6]


def test_folders_that_were_not_judged_are_named_and_rows_end_with_their_words(tmp_path: Path) -> None:
    machine_folder(tmp_path / "all" / "one")
    (tmp_path / "all" / "one" / "notes").mkdir()
    machine_folder(tmp_path / "all" / "two")
    (tmp_path / "all" / "logs" / "old").mkdir(parents=True)
    (tmp_path / "all" / "logs" / "old" / "eventlog.bin").write_bytes(b"none")
    ended = blindai("verify-evidence", tmp_path / "all")
    assert ended.err.endswith("that this version knows: logs/old\n")
    assert all(line == line.rstrip() for line in ended.out.splitlines())


def test_a_parser_says_once_what_it_expected(tmp_path: Path) -> None:
    folder = machine_folder(tmp_path / "one")
    report = bytearray((folder / "report.bin").read_bytes())
    report[8:16] = bytes(8)
    (folder / "report.bin").write_bytes(report)
    line = next(line for line in blindai("verify-evidence", folder).out.splitlines() if line.startswith("✗"))
    assert line.count("expected ") == 1
    assert line.count(", found ") == 1


def test_an_error_without_a_hint_of_its_own_has_the_one_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    ended = blindai("verify-evidence", tmp_path / "bad.json", "--json")
    assert members(ended.out)["error"]["hint"].startswith("ask the server again")
    assert "hint: ask the server again" in blindai("policy", "init", tmp_path / "bad.json").err


def test_one_folder_is_shown_whole(tmp_path: Path) -> None:
    ended = blindai("verify-evidence", machine_folder(tmp_path / "one"))
    assert ended.code == 6
    assert "✗ sev_snp.chain_root: expected AMD ARK-Milan or AMD ARK-Genoa" in ended.out
    assert "\nto do: sev_snp.chain_root" in ended.out


def test_a_folder_without_evidence_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    ended = blindai("verify-evidence", tmp_path)
    assert (ended.code, "a folder with none of the files" in ended.err) == (6, True)
    assert "hint: give the bytes as the vendor's tool wrote them" in ended.err


def test_endorsements_that_cannot_be_had_are_exit_status_3(tmp_path: Path) -> None:
    report = machine_folder(tmp_path / "one") / "report.bin"
    ended = blindai("verify-evidence", report, "--fetch", "--kds", "http://127.0.0.1:9")
    assert (ended.code, "http://127.0.0.1:9/vcek/v1/Genoa/" in ended.err) == (3, True)


@pytest.mark.network
def test_what_was_fetched_becomes_a_bundle_that_answers_alone(tmp_path: Path) -> None:
    from endorsements.test_complete_amd import serve
    from fakes.amd import FakeMachine
    from fakes.vendor_services import vendor_services

    cache, bundle = tmp_path / "cache", tmp_path / "b.json"
    at = ("--at", "2026-06-01")  # the fake vendor's list has ended since, and would not be kept
    (tmp_path / "report.bin").write_bytes(FakeMachine().report())
    with vendor_services() as far:
        serve(far, FakeMachine())
        options = ("--fetch", "--kds", far.url, "--cache", cache, "--save-endorsements", bundle, *at)
        fetched = blindai("verify-evidence", tmp_path / "report.bin", *options)
        assert len(far.asked) == 3
        blindai("verify-evidence", tmp_path / "report.bin", *options)
        assert len(far.asked) == 3  # the cache had them
    alone = blindai("verify-evidence", tmp_path / "report.bin", "--endorsements", bundle, *at)
    assert fetched.out == alone.out
    assert "✓ sev_snp.endorsements: crl, intermediate, root, vek" in alone.out
