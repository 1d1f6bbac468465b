"""TPM evidence read from files, and the page that explains it: what it says of codes and fields is what there is."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.tpm_vendor import EK_PURPOSE, NOW, FakeTpm, FakeVendor, rsa_key, sized16

from blindai.attestation.checks import Checks
from blindai.attestation.policy_file import open_policy
from blindai.attestation.tee.tpm import check, parse, parse_policy, verify
from blindai.errors import MalformedEvidenceError
from blindai.evidence_files.tpm import read_folder, read_quotes
from blindai.policies import preset_table

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "tee" / "tpm.md").read_text("utf-8")
VENDOR = FakeVendor()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What tpm2-tools write of a good TPM, with the AK's certificate and its issuers in several forms."""
    evidence = FakeTpm().evidence()
    leaf = VENDOR.certify(FakeTpm().key)
    written: Mapping[str, bytes] = {
        "quote.msg": evidence.quote,
        "quote.sig": evidence.signature,
        "ak.tpmt_public": evidence.ak_public,
        "pcrs.bin": evidence.pcr_values,
        "eventlog.bin": evidence.event_log,
        "ak_cert.der": leaf.public_bytes(Encoding.DER),
        "issuer.pem": VENDOR.intermediate.public_bytes(Encoding.PEM),
        "broken.pem": b"-----BEGIN CERTIFICATE-----\n",
        "notes.crl": b"none",
    }
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "collateral").mkdir()
    (tmp_path / "collateral" / "root.crt").write_bytes(VENDOR.root.public_bytes(Encoding.DER))
    (tmp_path / "collateral" / "root.crl").write_bytes(VENDOR.crl())
    (tmp_path / "collateral" / "other.crl").write_bytes(FakeVendor().crl(issuer="other"))
    return tmp_path


def test_a_folder_gives_the_quote_with_its_chain(folder: Path) -> None:
    (item,) = read_folder(folder, collateral=folder / "collateral")
    assert [name for name, _ in item.endorsements] == ["ak_certificate", "ak_intermediate_1", "ak_root", "ak_crl_1"]
    assert verify(item, NOW.timestamp(), Checks(), roots=VENDOR.pinned).hierarchy == "endorsement"
    (without,) = read_folder(folder)
    assert [name for name, _ in without.endorsements] == ["ak_certificate", "ak_intermediate_1"]


def test_what_tells_quotes_apart_is_equal_in_the_names(folder: Path) -> None:
    for name in ("quote.msg", "quote.sig", "pcrs.bin"):
        stem, _, suffix = name.partition(".")
        (folder / f"{stem}_sha384.{suffix}").write_bytes(b"other")
    found = read_quotes(folder)
    assert set(found) == {"", "_sha384"}
    assert parse(found["_sha384"].evidence).quote == b"other"
    assert parse(found["_sha384"].evidence).ak_public == FakeTpm().ak_public
    assert read_folder(folder) == (found[""],)


def test_a_parent_is_found_among_the_endorsement_keys(folder: Path) -> None:
    ek = FakeTpm(key=rsa_key(1))
    parent = ek.ak_name[:2] + bytes(32)
    tpm = FakeTpm(parent=parent)
    (folder / "quote.msg").write_bytes(tpm.quote())
    assert parse(read_folder(folder)[0].evidence).ak_parent == b""
    below_endorsement = ek.quote()[8:42]  # an EK's qualified name is that of a primary key, as its own quote says
    (folder / "quote.msg").write_bytes(FakeTpm(parent=below_endorsement).quote())
    (folder / "ek.pub").write_bytes(sized16(ek.ak_public))
    assert parse(read_folder(folder)[0].evidence).ak_parent == below_endorsement


def test_an_endorsement_keys_certificate_is_read_too(folder: Path) -> None:
    leaf = VENDOR.certify(rsa_key(1), signs=False, purposes=(EK_PURPOSE,))
    (folder / "ekcert.der").write_bytes(leaf.public_bytes(Encoding.DER))
    (item,) = read_folder(folder, collateral=folder / "collateral")
    assert {"ek_certificate", "ek_intermediate_1", "ek_root", "ek_crl_1"} <= {name for name, _ in item.endorsements}


def test_issuers_that_name_each_other_come_to_an_end(folder: Path) -> None:
    for subject, issuer in (("intermediate", "loop"), ("loop", "intermediate")):
        one = VENDOR.certify(VENDOR.key, subject, issuer=issuer)
        (folder / f"{subject}.der").write_bytes(one.public_bytes(Encoding.DER))
    (folder / "issuer.pem").unlink()
    names = [name for name, _ in read_folder(folder)[0].endorsements]
    assert names == ["ak_certificate", *(f"ak_intermediate_{number}" for number in (1, 2, 3, 4))]


@pytest.mark.parametrize("form", [list, dict])
def test_pcr_values_may_be_json(folder: Path, form: type[list[str] | dict[str, str]]) -> None:
    values = FakeTpm().pcr_values
    texts = [values[at : at + 32].hex() for at in range(0, len(values), 32)]
    (folder / "pcrs.bin").unlink()
    by_index = {str(index): texts[index] for index in reversed(range(24))}
    (folder / "pcrs.json").write_text(json.dumps(texts if form is list else by_index))
    assert parse(read_folder(folder)[0].evidence).pcr_values == values


@pytest.mark.parametrize("text", ["{", "1", "[1]", '["xx"]', '{"a": "00"}', '{"a": 1, "a": 2}'])
def test_pcr_values_in_another_form_are_refused(folder: Path, text: str) -> None:
    (folder / "pcrs.bin").unlink()
    (folder / "pcrs.json").write_text(text)
    with pytest.raises(MalformedEvidenceError):
        read_folder(folder)


def test_a_folder_without_a_quote_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no quote\*\.msg"):
        read_folder(tmp_path)


def test_what_is_missing_is_left_to_the_verifier(tmp_path: Path) -> None:
    (tmp_path / "quote_x.msg").write_bytes(b"quote")
    (tmp_path / "ak_cert.der").write_bytes(b"none")
    (item,) = read_folder(tmp_path)
    assert parse(item.evidence).pcr_values == b""
    assert item.endorsements == (("ak_certificate", b"none"),)


def rows(step: str) -> list[str]:
    return [cells[0].strip("`") for cells in code_table() if cells[1] == step]


def code_table() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `tpm.")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def example() -> str:
    blocks: list[str] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    return next(block for block in blocks if "[tee.tpm]" in block)


def test_the_page_explains_every_check_of_the_policy_in_order() -> None:
    assert all(len(cells) == 5 for cells in code_table())
    assert len({cells[0] for cells in code_table()}) == len(code_table())
    vendor = FakeVendor()
    shown = FakeTpm(endorsements=vendor.chain(vendor.certify(rsa_key(1), signs=False), "ek"))
    claims = verify(shown.item(), NOW.timestamp(), Checks())
    table = tomllib.loads(example())["tee"]["tpm"]
    lines = "\n".join(line for line in example().splitlines() if not line.startswith("["))
    section = open_policy(lines, source="page").with_defaults(preset_table("strict", "tpm") or {})
    assert set(table) <= set(section.members)
    asking = dataclasses.replace(parse_policy(section), ak_certified=("activation",))
    made = list(dict.fromkeys(finding.code for finding in check(claims, asking)))
    assert sorted(rows("check")) == sorted(made)


def test_the_page_explains_every_step_of_verification() -> None:
    """Each code of the page is refused in test_tpm.py, and each step of a good verification is on the page."""
    told = {code.removeprefix("tpm.") for code in rows("verify")}
    tests = (Path(__file__).parent / "test_tpm.py").read_text("utf-8")
    assert {code for code in told if f'"{code}"' not in tests} == set()
    checks = Checks()
    tpm = FakeTpm()
    chains = {kind: VENDOR.certify(tpm.key, signs=kind == "ak") for kind in ("ak", "ek")}
    tpm.endorsements = {name: der for kind, leaf in chains.items() for name, der in VENDOR.chain(leaf, kind).items()}
    verify(tpm.item(), NOW.timestamp(), checks, roots=VENDOR.pinned)
    assert {finding.code.removeprefix("tpm.") for finding in checks.findings} <= told
