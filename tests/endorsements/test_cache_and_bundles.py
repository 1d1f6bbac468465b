"""Documents are kept on disk until their next update, and in bundles for ever."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from fakes import papers

from blindai.endorsements.bundle import FirstOf, Recorder, encode_bundle, open_bundles, parse_bundle
from blindai.endorsements.cache import Cache
from blindai.endorsements.documents import Document, Kind, Resource, Service, read_document
from blindai.endorsements.memory import MAX_AGE_S, MAX_KEPT_DOCUMENTS, Memory
from blindai.endorsements.services import MissingDocumentError
from blindai.errors import EndorsementsUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

NOW = float(papers.BEGIN)
CRL = Resource(service=Service.AMD_KDS, path="/vcek/v1/Milan/crl", kind=Kind.CRL)
OTHER = Resource(service=Service.AMD_KDS, path="/vcek/v1/Genoa/crl", kind=Kind.CRL)
OCSP = Resource(service=Service.NVIDIA_OCSP, path="/", kind=Kind.OCSP, post=b"\1\2")


@dataclass(slots=True)
class Vendor:
    """A source that answers from a table and counts; what is in `down` cannot be reached."""

    bodies: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    asked: int = 0
    down: bool = False

    def get(self, resource: Resource, *, now: float) -> Document:
        self.asked += 1
        if self.down:
            raise EndorsementsUnavailableError("no answer")
        if (resource.path, resource.post) not in self.bodies:
            raise MissingDocumentError("no such document")
        return read_document(resource, self.bodies[resource.path, resource.post], now=now)


@pytest.fixture
def vendor() -> Vendor:
    return Vendor({(CRL.path, b""): papers.crl(), (OCSP.path, OCSP.post): papers.ocsp_response()})


def test_is_asked_once_until_the_next_update(tmp_path: Path, vendor: Vendor) -> None:
    cache = Cache(folder=tmp_path / "cache", behind=vendor)
    assert [cache.get(CRL, now=NOW + after).body for after in (0, 1, papers.DAY_S - 1)] == [papers.crl()] * 3
    assert vendor.asked == 1
    vendor.bodies[CRL.path, b""] = papers.crl(next_update=NOW + 3 * papers.DAY_S)
    assert cache.get(CRL, now=NOW + papers.DAY_S).expires_at == NOW + 3 * papers.DAY_S
    assert vendor.asked == 2


def test_nothing_is_given_past_its_end(tmp_path: Path, vendor: Vendor) -> None:
    cache = Cache(folder=tmp_path, behind=vendor)
    cache.get(CRL, now=NOW)
    vendor.down = True
    assert cache.get(CRL, now=NOW + papers.DAY_S - 1).body == papers.crl()
    with pytest.raises(EndorsementsUnavailableError):
        cache.get(CRL, now=NOW + papers.DAY_S)


def test_a_grace_bridges_an_outage_and_nothing_else(tmp_path: Path, vendor: Vendor) -> None:
    Cache(folder=tmp_path, behind=vendor).get(CRL, now=NOW)
    patient = Cache(folder=tmp_path, behind=vendor, grace_s=100)
    vendor.down = True
    assert patient.get(CRL, now=NOW + papers.DAY_S + 99).body == papers.crl()
    with pytest.raises(EndorsementsUnavailableError):
        patient.get(CRL, now=NOW + papers.DAY_S + 100)
    vendor.down, vendor.bodies = False, {}
    with pytest.raises(MissingDocumentError):  # the vendor took it back
        patient.get(CRL, now=NOW + papers.DAY_S)


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path, vendor: Vendor) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert Cache(folder=tmp_path / "file", behind=vendor).get(CRL, now=NOW).body == papers.crl()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_are_their_owners_alone_and_nothing_is_left_beside(tmp_path: Path, vendor: Vendor) -> None:
    Cache(folder=tmp_path / "new" / "cache", behind=vendor).get(CRL, now=NOW)
    paths = list((tmp_path / "new").rglob("*"))
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "new" / "cache", *paths)} == {0}
    assert not [path for path in paths if path.name.startswith(".")]
    assert len([path for path in paths if path.is_file()]) == 3  # the list, no issuers, and where they stand


@pytest.mark.parametrize("folder", ["objects", "index"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 5000])
def test_what_is_damaged_counts_as_not_there(tmp_path: Path, vendor: Vendor, folder: str, damage: bytes) -> None:
    cache = Cache(folder=tmp_path, behind=vendor)
    cache.get(CRL, now=NOW)
    for path in (tmp_path / folder).iterdir():
        path.write_bytes(damage)
    assert cache.get(CRL, now=NOW).body == papers.crl()
    assert vendor.asked == 2
    assert cache.get(CRL, now=NOW).body == papers.crl()
    assert vendor.asked == 2


def test_an_entry_cannot_lead_out_of_the_folder(tmp_path: Path, vendor: Vendor) -> None:
    cache = Cache(folder=tmp_path / "cache", behind=vendor)
    cache.get(CRL, now=NOW)
    (entry,) = (tmp_path / "cache" / "index").iterdir()
    members = json.loads(entry.read_bytes())
    for name in ("../../secret", "x" * 64, 7, None):
        entry.write_text(json.dumps({**members, "body": name}))
        assert cache.get(CRL, now=NOW).body == papers.crl()
    entry.write_text(json.dumps({**members, "path": OTHER.path}))
    cache.get(CRL, now=NOW)
    assert vendor.asked == 6


def test_two_questions_at_one_address_are_two(tmp_path: Path, vendor: Vendor) -> None:
    cache = Cache(folder=tmp_path, behind=vendor)
    cache.get(OCSP, now=NOW)
    other = Resource(service=OCSP.service, path=OCSP.path, kind=Kind.OCSP, post=b"\1\2\3")
    with pytest.raises(MissingDocumentError):
        cache.get(other, now=NOW)


def recorded(vendor: Vendor, *resources: Resource) -> bytes:
    recorder = Recorder(behind=vendor)
    for resource in resources:
        recorder.get(resource, now=NOW)
    return encode_bundle(recorder.answers)


def test_a_bundle_is_the_same_whatever_the_order_and_gives_back_what_went_in(vendor: Vendor) -> None:
    data = recorded(vendor, CRL, OCSP)
    assert data == recorded(vendor, OCSP, CRL)
    bundle = parse_bundle(data, name="one")
    long_after = NOW + 1000 * papers.DAY_S
    assert bundle.get(CRL, now=long_after).body == papers.crl()
    assert bundle.get(OCSP, now=long_after).body == papers.ocsp_response()
    assert encode_bundle(bundle.answers) == data
    with pytest.raises(MissingDocumentError, match=r"one has no amd_kds/vcek/v1/Genoa/crl") as caught:
        bundle.get(OTHER, now=NOW)
    assert "--save-endorsements" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"documents": 7},
        {"documents": [{}]},
        {"documents": [{"service": "kds", "path": "/", "body": "", "issuers": ""}]},
        {"documents": [{"service": "amd_kds", "path": 7, "body": "", "issuers": ""}]},
        {"documents": [{"service": "amd_kds", "path": "/", "body": "=", "issuers": ""}]},
        {"documents": [{"service": "amd_kds", "path": "/", "body": "", "issuers": ""}] * 2},
        {"documents": [{"service": "amd_kds", "path": "/", "body": "", "issuers": ""}] * 257},
        {"more": 1},
    ],
)
def test_only_exactly_a_bundle_is_one(change: dict[str, object]) -> None:
    with pytest.raises(EndorsementsUnavailableError, match="x is not a bundle"):
        parse_bundle(json.dumps({"version": 1, "documents": [], **change}).encode(), name="x")


def test_a_bundle_of_nonsense_is_noticed_when_it_is_used() -> None:
    answers = {(CRL.service.value, CRL.path, b""): (b"nonsense", b"")}
    with pytest.raises(EndorsementsUnavailableError, match="x: /vcek/v1/Milan/crl: expected a certificate revocation"):
        parse_bundle(encode_bundle(answers), name="x").get(CRL, now=NOW)


def test_a_folder_of_bundles_is_searched(tmp_path: Path, vendor: Vendor) -> None:
    (tmp_path / "a.endorsements.json").write_bytes(recorded(vendor, OCSP))
    (tmp_path / "b.endorsements.json").write_bytes(recorded(vendor, CRL))
    (tmp_path / "notes.txt").write_text("not a bundle")
    source = open_bundles(tmp_path)
    assert source.get(CRL, now=NOW).body == papers.crl()
    with pytest.raises(MissingDocumentError):
        source.get(OTHER, now=NOW)
    assert open_bundles(tmp_path / "b.endorsements.json").get(CRL, now=NOW).body == papers.crl()


def test_a_folder_without_bundles_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EndorsementsUnavailableError) as caught:
        open_bundles(tmp_path)
    assert "--save-endorsements" in caught.value.hint
    with pytest.raises(MissingDocumentError):
        FirstOf(sources=()).get(CRL, now=NOW)


@dataclass(slots=True)
class Counting:
    """A source whose every answer ends at the same time."""

    ends: float
    asked: list[str] = field(default_factory=list)

    def get(self, resource: Resource, *, now: float) -> Document:  # noqa: ARG002  # a source's signature
        self.asked.append(resource.path)
        return Document(body=resource.path.encode(), expires_at=self.ends)


def one_of_many(number: int) -> Resource:
    return Resource(service=Service.AMD_KDS, path=f"/{number}", kind=Kind.CRL)


@pytest.mark.parametrize(("ends", "kept_s"), [(100.0, 100.0), (10 * MAX_AGE_S, MAX_AGE_S)])
def test_memory_keeps_a_document_for_a_day_and_never_past_its_end(ends: float, kept_s: float) -> None:
    behind = Counting(ends=ends)
    memory = Memory(behind=behind)
    for now in (0.0, kept_s - 1):
        assert memory.get(one_of_many(1), now=now).body == b"/1"
    assert behind.asked == ["/1"]
    memory.get(one_of_many(1), now=kept_s)
    assert behind.asked == ["/1", "/1"]


def test_memory_has_a_bound() -> None:
    behind = Counting(ends=100.0)
    memory = Memory(behind=behind)
    for number in range(MAX_KEPT_DOCUMENTS + 1):
        memory.get(one_of_many(number), now=0.0)
    memory.get(one_of_many(MAX_KEPT_DOCUMENTS), now=0.0)
    assert len(behind.asked) == MAX_KEPT_DOCUMENTS + 1
    memory.get(one_of_many(0), now=0.0)  # forgotten with all the others
    assert len(behind.asked) == MAX_KEPT_DOCUMENTS + 2
