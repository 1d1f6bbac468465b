"""Intel evidence in files: the members of a collateral file become endorsements, or the file is refused by its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from attestation.intel_cases import TEES_OF_INTEL, good, verify
from fakes.intel import ccel

from blindai.attestation.evidence import EvidenceItem
from blindai.errors import MalformedEvidenceError
from blindai.evidence_files import sgx, tdx
from blindai.evidence_files.intel_collateral_file import read_collateral

if TYPE_CHECKING:
    from pathlib import Path

READERS = {"sgx": sgx.read_folder, "tdx": tdx.read_folder}


def members_of(item: EvidenceItem) -> dict[str, Any]:
    """As dcap-qvl writes them."""
    hexadecimal = ("_crl", "_signature")
    return {name: data.hex() if name.endswith(hexadecimal) else data.decode() for name, data in item.endorsements}


@TEES_OF_INTEL
def test_a_folder_is_read_as_evidence(tee: str, tmp_path: Path) -> None:
    item = good(tee).item()
    (tmp_path / "quote.bin").write_bytes(item.evidence)
    assert READERS[tee](tmp_path) == (EvidenceItem(tee=tee, evidence=item.evidence, endorsements=()),)
    members = {**members_of(item), "pck_certificate_chain": None}
    (tmp_path / "collateral-1.json").write_text(json.dumps(members))
    (read,) = READERS[tee](tmp_path)
    assert read == item
    assert verify(read)
    (tmp_path / "collateral-2.json").write_text("{}")
    assert READERS[tee](tmp_path)[0].endorsements == ()
    assert READERS[tee](tmp_path, collateral=tmp_path / "collateral-1.json") == (item,)


def test_an_event_log_in_the_folder_comes_with_it(tmp_path: Path) -> None:
    (tmp_path / "quote.bin").write_bytes(good("tdx").quote())
    (tmp_path / "ccel_data.dat").write_bytes(ccel())
    (read,) = tdx.read_folder(tmp_path)
    assert read.endorsements == (("ccel", ccel()),)


def test_the_pck_chain_has_another_name_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"pck_certificate_chain": "text"}')
    assert read_collateral(tmp_path / "c.json", tee="sgx") == (("pck_chain", b"text"),)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"surplus": "x"}', '{"tcb_info": 1}', '{"pck_crl": "zz"}', '{"tcb_info": "", "tcb_info": ""}'],
)
def test_other_files_are_refused_by_their_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(MalformedEvidenceError, match=r"c\.json"):
        read_collateral(path, tee="tdx")
