"""What a file or folder holds is told by its bytes, whatever it is called; the judgement is somebody else's."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from fakes import amd, aws, intel, nvidia

from blindai.attestation.evidence import EvidenceItem
from blindai.attester.simulation import SimulationAttester
from blindai.errors import MalformedEvidenceError
from blindai.evidence_files import MAX_FILE_BYTES, read_sample, sample_folders

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_780_000_000.0
RAW = {
    "sev_snp": amd.FakeMachine().report(),
    "tdx": intel.FakeEvidence().quote(),
    "sgx": intel.FakeEvidence(tee="sgx", version=3).quote(),
    "nitro": aws.Enclave().document(),
    "simulation": SimulationAttester(lambda size: b"d" * size, bytes(32)).attest(bytes(64)).evidence,
}


@pytest.mark.parametrize("tee", RAW)
def test_a_file_is_what_its_bytes_are(tmp_path: Path, tee: str) -> None:
    (tmp_path / "anything.txt").write_bytes(RAW[tee])
    sample = read_sample(tmp_path / "anything.txt", now=NOW)
    assert sample.items == (EvidenceItem(tee=tee, evidence=RAW[tee], endorsements=()),)
    assert (sample.name, sample.document) == ("anything.txt", None)


def test_versions_of_a_form_are_told_apart(tmp_path: Path) -> None:
    for name, data, tee in (
        ("v5", intel.FakeEvidence(version=5).quote(), "tdx"),
        ("tagged", aws.Enclave().document(tagged=True), "nitro"),
        ("v2", b"\2" + RAW["sev_snp"][1:], "sev_snp"),
    ):
        (tmp_path / name).write_bytes(data)
        assert [item.tee for item in read_sample(tmp_path / name, now=NOW).items] == [tee]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        RAW["sev_snp"][:-1],
        b"\6" + RAW["sev_snp"][1:],
        RAW["tdx"][:48],
        b"\6" + RAW["tdx"][1:],
        RAW["tdx"][:4] + b"\x82" + RAW["tdx"][5:],
        b"\xffTCG" + bytes(100),
        b"\x11\xe0" + bytes(100),
        bytes(MAX_FILE_BYTES + 1),
    ],
)
def test_what_is_none_of_them_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(MalformedEvidenceError, match="file: expected a SEV-SNP report"):
        read_sample(tmp_path / "file", now=NOW)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def collateral(item: EvidenceItem, issued: str) -> bytes:
    """Intel's collateral as a file, issued then; the signature does not matter here."""
    named = {
        name: data.hex() if name.endswith(("_crl", "_signature")) else data.decode() for name, data in item.endorsements
    }
    info = json.loads(named["tcb_info"]) | {"issueDate": issued}
    return json.dumps({**named, "tcb_info": json.dumps(info)}).encode()


def test_a_folder_is_what_its_files_are(tmp_path: Path) -> None:
    shown = nvidia.Shown()
    pem = dict(shown.item().endorsements)["device_chain"]
    folders = {
        "sev_snp": {"report.bin": RAW["sev_snp"]},
        "tdx": {"quote.bin": RAW["tdx"]},
        "sgx": {"quote.bin": RAW["sgx"]},
        "nitro": {"attestation_document.cose": RAW["nitro"]},
        "nvidia_gpu": {"attestation_report.bin": shown.report, "device_chain.pem": pem},
    }
    for tee, files in folders.items():
        sample = read_sample(write(tmp_path / f"a-{tee}", files), now=NOW)
        assert [item.tee for item in sample.items] == [tee]
    write(tmp_path / "no-evidence", {"notes.txt": b""})
    assert [path.name for path in sample_folders(tmp_path)] == sorted(f"a-{tee}" for tee in folders)
    assert list(sample_folders(tmp_path / "a-tdx")) == [tmp_path / "a-tdx"]
    with pytest.raises(MalformedEvidenceError, match="a folder with none of the files"):
        read_sample(tmp_path / "no-evidence", now=NOW)


def test_a_link_is_not_followed_around_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "one", {"report.bin": RAW["sev_snp"]})
    (tmp_path / "round").symlink_to(tmp_path)
    assert [path.name for path in sample_folders(tmp_path)] == ["one"]


@pytest.mark.parametrize(
    ("issued", "taken"),
    [
        (("2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z"), 1),  # the newest of 2026-04-01
        (("2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z", "2026-07-01T00:00:00Z"), 0),  # none yet: the first to come
        (("2026-13-01T00:00:00Z", "2026-03-01T00:00:00Z", "no time at all"), 1),
    ],
)
def test_of_several_collaterals_the_newest_of_the_time_is_taken(
    tmp_path: Path, issued: tuple[str, ...], taken: int
) -> None:
    item = intel.FakeEvidence().item()
    files = {f"collateral-{number}.json": collateral(item, when) for number, when in enumerate(issued)}
    folder = write(tmp_path / "tdx", {"quote.bin": RAW["tdx"], **files})
    (read,) = read_sample(folder, now=1_775_001_600.0).items  # 2026-04-01
    assert json.loads(dict(read.endorsements)["tcb_info"])["issueDate"] == issued[taken]


def test_collateral_that_is_named_goes_first(tmp_path: Path) -> None:
    item = intel.FakeEvidence().item()
    (tmp_path / "own.json").write_bytes(collateral(item, "2020-01-01T00:00:00Z"))
    newer = {"collateral-1.json": collateral(item, "2026-01-01T00:00:00Z")}
    folder = write(tmp_path / "tdx", {"quote.bin": RAW["tdx"], **newer})
    (read,) = read_sample(folder, now=NOW, collateral=tmp_path / "own.json").items
    assert b"2020-01-01" in dict(read.endorsements)["tcb_info"]


def test_a_proof_gives_its_document(tmp_path: Path) -> None:
    from test_docs import ROOT

    proof = (ROOT / "docs/guides/auditor/proof.json").read_bytes()
    (tmp_path / "proof").write_bytes(b" " + proof)
    sample = read_sample(tmp_path / "proof", now=NOW)
    assert sample.document is not None
    assert sample.items == sample.document.evidence
    (tmp_path / "bare").write_text(json.dumps(json.loads(proof)["attestation"]))
    assert read_sample(tmp_path / "bare", now=NOW).document == dataclasses.replace(sample.document)
