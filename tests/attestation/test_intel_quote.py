"""Quotes, PCK extensions and collateral are read exactly: every byte has one meaning, or the whole is malformed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from attestation.intel_cases import TEES_OF_INTEL, good, refusal
from fakes.intel import FakeEvidence, level, qe_identity, sgx_report, sized, tcb_info, td_report
from fakes.intel_pki import COMPONENTS, FMSPC, der, integer, member, pck_certificate, sgx_extension, sgx_members
from hypothesis import given
from hypothesis import strategies as st

from blindai.attestation.intel.collateral import parse_qe_identity, parse_tcb_info
from blindai.attestation.intel.pck import read_pck
from blindai.attestation.intel.quote import MAX_QUOTE_BYTES, TdReport, parse_sgx_report
from blindai.attestation.tee import sgx, tdx
from blindai.errors import MalformedEvidenceError

# --- quotes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [b"", b"\0", bytes(3065)])
@TEES_OF_INTEL
def test_zeros_may_stand_behind_a_quote(tee: str, padding: bytes) -> None:
    module = {"sgx": sgx, "tdx": tdx}[tee]
    quote = good(tee, padding=padding).quote()
    assert module.parse(quote).body.report_data == b"r" * 64


QUOTES: list[tuple[str, dict[str, Any]]] = [
    ("something other than zeros", {"padding": bytes(40) + b"\1"}),
    ("more than 65536", {"padding": bytes(MAX_QUOTE_BYTES)}),
    ("version 9 instead of", {"header": {"version": b"\x09\0"}}),
    ("attestation key type 3", {"header": {"key_type": b"\3\0"}}),
    ("TEE type 0x7", {"header": {"tee_type": b"\7\0\0\0"}}),
    ("instead of Intel's", {"header": {"vendor": bytes(16)}}),
    ("reserved field that is not zero", {"qe": {"reserved1": b"\1" + bytes(11)}}),
    ("reserved field that is not zero", {"qe": {"reserved2": b"\1" + bytes(31)}}),
    ("reserved field that is not zero", {"qe": {"reserved3": b"\1" + bytes(31)}}),
    ("reserved field that is not zero", {"qe": {"reserved4": b"\1" + bytes(41)}}),
    ("certification data of type 4", {"certification": (4, bytes(404))}),
    ("certification data of type 3 and 403", {"certification": (3, bytes(403))}),
    ("certification data of type 6", {"certification": (6, bytes(404))}),
]


@pytest.mark.parametrize(("words", "changes"), QUOTES)
@TEES_OF_INTEL
def test_other_quotes_are_malformed(tee: str, words: str, changes: dict[str, Any]) -> None:
    refusal(good(tee, **changes).item(), "quote_format", MalformedEvidenceError)
    with pytest.raises(MalformedEvidenceError, match=words):
        {"sgx": sgx, "tdx": tdx}[tee].parse(good(tee, **changes).quote())


TDX_QUOTES: list[tuple[str, FakeEvidence]] = [
    ("reserved field that is not zero", FakeEvidence(header={"svns": b"\1\0\0\0"})),
    ("body type 4 instead of", FakeEvidence(version=5, body_type=4)),
    ("body type 1 instead of", FakeEvidence(version=5, body_type=1)),
    ("584 bytes of body instead of 648", FakeEvidence(version=5, raw_body=b"\3\0" + sized(4, td_report(4)))),
    ("648 bytes of body instead of 584", FakeEvidence(version=5, raw_body=b"\2\0" + sized(4, td_report(5)))),
    ("certification data of type 5 instead of 6", FakeEvidence(wrapper=5)),
    ("version 3 instead of 4 or 5", FakeEvidence(version=3)),
]


@pytest.mark.parametrize(("words", "evidence"), TDX_QUOTES)
def test_other_tdx_quotes_are_malformed(words: str, evidence: FakeEvidence) -> None:
    with pytest.raises(MalformedEvidenceError, match=words):
        tdx.parse(evidence.quote())


def test_a_quote_of_sgx_may_name_the_svns_of_its_enclaves() -> None:
    assert sgx.parse(good("sgx", header={"svns": b"\x0a\0\x0f\0"}).quote()).version == 3


@TEES_OF_INTEL
def test_no_shorter_quote_can_be_read(tee: str) -> None:
    module, quote = {"sgx": sgx, "tdx": tdx}[tee], good(tee).quote()
    for size in range(len(quote)):
        with pytest.raises(MalformedEvidenceError):
            module.parse(quote[:size])


@TEES_OF_INTEL
def test_no_byte_can_be_put_between(tee: str) -> None:
    """Each declared size says exactly what follows, so another byte anywhere shifts something that is checked."""
    module, quote = {"sgx": sgx, "tdx": tdx}[tee], good(tee).quote()
    parsed = module.parse(quote)
    for at in range(len(quote)):
        try:
            other = module.parse(quote[:at] + b"\xaa" + quote[at:])
        except MalformedEvidenceError:
            continue
        assert other != parsed


@given(data=st.binary(min_size=648, max_size=648))
def test_reading_a_td_report_keeps_every_byte(data: bytes) -> None:
    body = tdx.parse(FakeEvidence(version=5, raw_body=b"\3\0" + sized(4, data)).quote()).body
    assert isinstance(body, TdReport)
    assert b"".join(getattr(body, field.name) for field in dataclasses.fields(body)) == data


@pytest.mark.parametrize("size", [0, 383, 385])
def test_an_enclaves_report_has_one_size(size: int) -> None:
    with pytest.raises(MalformedEvidenceError):
        parse_sgx_report((sgx_report() + b"\0")[:size], tee="sgx")


# --- the PCK's extension ----------------------------------------------------------------------------------------------


def test_the_extension_names_the_platform() -> None:
    pck = read_pck(pck_certificate(), tee="sgx")
    assert (pck.fmspc, pck.ppid, pck.pce_id, pck.pce_svn) == (FMSPC, b"P" * 16, b"\0\0", 11)
    assert (pck.components, pck.cpu_svn, pck.sgx_type) == (COMPONENTS, bytes(COMPONENTS), 1)
    assert (pck.dynamic_platform, pck.cached_keys, pck.smt_enabled) == (True, True, True)
    assert pck.platform_instance_id == b"I" * 16


def test_numbers_and_flags_are_read_to_their_ends() -> None:
    members = sgx_members(components=(255, *range(15)), pce_svn=65535, flags=(False, True, False))
    pck = read_pck(pck_certificate(sgx_extension(members)), tee="sgx")
    assert (pck.components, pck.pce_svn) == ((255, *range(15)), 65535)
    assert (pck.dynamic_platform, pck.cached_keys, pck.smt_enabled) == (False, True, False)


GOOD = sgx_members()
TCB = [member((2, number), integer(1)) for number in range(1, 18)] + [member((2, 18), der(4, bytes(16)))]


def with_tcb(at: int, value: bytes) -> bytes:
    members = [*TCB[:at], value, *TCB[at + 1 :]]
    return sgx_extension({**GOOD, 2: member((2,), der(0x30, b"".join(members)))})


EXTENSIONS = {
    "nothing": b"",
    "one byte": b"\x30",
    "no sequence": der(0x31, b"".join(GOOD.values())),
    "something behind it": sgx_extension(GOOD) + b"\0",
    "shorter than it says": sgx_extension(GOOD)[:-1],
    "a long length in four bytes": b"\x30\x84\0\0\0\1\0",
    "an indefinite length": b"\x30\x80\0\0",
    "a length of one byte in two": b"\x30\x82\0\x05" + bytes(5),
    "a short length in one byte more": b"\x30\x81\5" + bytes(5),
    "a member missing": sgx_extension({number: value for number, value in GOOD.items() if number != 4}),
    "a member twice": sgx_extension({**GOOD, 9: GOOD[4]}),
    "an unknown member": sgx_extension({**GOOD, 9: member((9,), der(4, b""))}),
    "a member elsewhere": sgx_extension({**GOOD, 4: der(0x30, der(6, b"\x2a\x03\4") + der(4, FMSPC))}),
    "an empty name": sgx_extension({**GOOD, 4: der(0x30, der(6, b"") + der(4, FMSPC))}),
    "no name": sgx_extension({**GOOD, 4: der(0x30, der(4, b"\x2a\x03\4") + der(4, FMSPC))}),
    "no pair": sgx_extension({**GOOD, 4: der(0x31, GOOD[4][2:])}),
    "a member of three": sgx_extension({**GOOD, 4: der(0x30, GOOD[4][2:] + der(4, b""))}),
    "a PPID of 15 bytes": sgx_extension({**GOOD, 1: member((1,), der(4, bytes(15)))}),
    "a PPID that is a text": sgx_extension({**GOOD, 1: member((1,), der(12, bytes(16)))}),
    "an empty type": sgx_extension({**GOOD, 5: member((5,), der(10, b""))}),
    "a type below zero": sgx_extension({**GOOD, 5: member((5,), der(10, b"\xff"))}),
    "a type with a zero before it": sgx_extension({**GOOD, 5: member((5,), der(10, b"\0\1"))}),
    "a type of four bytes": sgx_extension({**GOOD, 5: member((5,), der(10, b"\1\0\0\0"))}),
    "a component too many": sgx_extension(
        {**GOOD, 2: member((2,), der(0x30, b"".join([*TCB, member((2, 19), integer(1))])))}
    ),
    "a component too few": sgx_extension({**GOOD, 2: member((2,), der(0x30, b"".join(TCB[1:])))}),
    "a component too large": with_tcb(0, member((2, 1), integer(256))),
    "a component that is a text": with_tcb(0, member((2, 1), der(12, b"1"))),
    "a PCESVN too large": with_tcb(16, member((2, 17), integer(65536))),
    "a CPUSVN of 15 bytes": with_tcb(17, member((2, 18), der(4, bytes(15)))),
    "a CPUSVN that is a number": with_tcb(17, member((2, 18), der(2, b"\1" * 16))),
    "an unknown flag": sgx_extension({**GOOD, 7: member((7,), der(0x30, member((7, 4), der(1, b"\xff"))))}),
    "a flag that is no flag": sgx_extension({**GOOD, 7: member((7,), der(0x30, member((7, 1), der(2, b"\xff"))))}),
    "a flag of another value": sgx_extension({**GOOD, 7: member((7,), der(0x30, member((7, 1), der(1, b"\1"))))}),
}


@pytest.mark.parametrize("extension", EXTENSIONS.values(), ids=EXTENSIONS.keys())
def test_another_extension_is_malformed(extension: bytes) -> None:
    with pytest.raises(MalformedEvidenceError) as refused:
        read_pck(pck_certificate(extension), tee="tdx")
    assert refused.value.finding_code == "tdx.pck_extension"


@given(extension=st.binary(max_size=60) | st.binary(max_size=300).map(lambda data: sgx_extension({1: data})))
def test_arbitrary_extensions_are_malformed_and_nothing_worse(extension: bytes) -> None:
    with pytest.raises(MalformedEvidenceError):
        read_pck(pck_certificate(extension), tee="sgx")


# --- collateral -------------------------------------------------------------------------------------------------------


def first_level(**changes: Any) -> dict[str, Any]:
    return {"tcbLevels": [{**level(), **changes}]}


TCB_INFOS: dict[str, dict[str, Any]] = {
    "a version that is a text": {"version": "3"},
    "a version that is true": {"version": True},
    "a negative version": {"version": -1},
    "an unprintable kind": {"id": "TDX\n"},
    "a kind that is a list": {"id": ["TDX"]},
    "a date of another form": {"issueDate": "2026-06-15"},
    "a date that is no day": {"issueDate": "2026-02-30T00:00:00Z"},
    "a date that is a number": {"nextUpdate": 5},
    "an FMSPC of five bytes": {"fmspc": "00" * 5},
    "an FMSPC that is no number": {"fmspc": "zz" * 6},
    "an FMSPC that is a list": {"fmspc": []},
    "another type of levels": {"tcbType": 1},
    "levels that are an object": {"tcbLevels": {}},
    "too many levels": {"tcbLevels": [level()] * 257},
    "a level that is a text": {"tcbLevels": ["UpToDate"]},
    "a level without TDX components": {"tcbLevels": [level(tdx=None)]},
    "15 components": {"tcbLevels": [level(sgx=(1,) * 15)]},
    "a component too large": {"tcbLevels": [level(sgx=(256,) * 16)]},
    "an unknown status": first_level(tcbStatus="Fine"),
    "a status of a verifier's own": first_level(tcbStatus="TDRelaunchAdvised"),
    "a status that is a list": first_level(tcbStatus=[]),
    "advisories that are a text": first_level(advisoryIDs="INTEL-SA-00001"),
    "an unprintable advisory": first_level(advisoryIDs=["\t"]),
    "a module without a signer": {"tdxModule": {"attributes": "00" * 8, "attributesMask": "00" * 8}},
    "a module that is a list": {"tdxModule": []},
}


@pytest.mark.parametrize("changes", TCB_INFOS.values(), ids=TCB_INFOS.keys())
def test_other_tcb_info_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvidenceError) as refused:
        parse_tcb_info(json.dumps(tcb_info("tdx", **changes)).encode(), tee="tdx")
    assert refused.value.finding_code == "tdx.collateral_format"


@pytest.mark.parametrize("name", sorted(set(tcb_info("tdx")) - {"tdxModuleIdentities"}))
def test_tcb_info_says_everything(name: str) -> None:
    info = tcb_info("tdx")
    del info[name]
    with pytest.raises(MalformedEvidenceError, match=f"none of '{name}'"):
        parse_tcb_info(json.dumps(info).encode(), tee="tdx")


@pytest.mark.parametrize("name", sorted(qe_identity("sgx")))
def test_a_qe_identity_says_everything(name: str) -> None:
    identity = qe_identity("sgx")
    del identity[name]
    with pytest.raises(MalformedEvidenceError, match=f"none of '{name}'"):
        parse_qe_identity(json.dumps(identity).encode(), tee="sgx")


def test_what_intel_adds_is_passed_over() -> None:
    info = tcb_info("tdx", news=[1, 2])
    assert parse_tcb_info(json.dumps(info).encode(), tee="tdx") == parse_tcb_info(
        json.dumps(tcb_info("tdx")).encode(), tee="tdx"
    )


@given(
    data=st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_arbitrary_collateral_is_malformed_and_nothing_worse(data: bytes) -> None:
    for read in (parse_tcb_info, parse_qe_identity):
        with pytest.raises(MalformedEvidenceError):
            read(data, tee="sgx")
