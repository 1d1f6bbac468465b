"""Quotes and collateral at their limits: the largest that is read, the first that is not, and what else is looked at.

Each test holds a comparison that no other test would miss (docs/audits/surviving_mutants.toml).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from attestation.intel_cases import TEES_OF_INTEL, good
from fakes.intel import FakeEvidence, level, qe_identity, sgx_report, svn_level, tcb_info

from blindai.attestation.intel.collateral import MAX_ADVISORIES, MAX_LEVELS, parse_qe_identity, parse_tcb_info
from blindai.attestation.intel.quote import MAX_QUOTE_BYTES, parse_sgx_report
from blindai.attestation.tee import sgx, tdx
from blindai.errors import MalformedEvidenceError

PARSE = {"sgx": sgx.parse, "tdx": tdx.parse}
# Where the size of the signature data stands: behind the header and the body.
SIGNATURE_SIZE = {"sgx": 48 + 384, "tdx": 48 + 584}

# --- quotes -----------------------------------------------------------------------------------------------------------


def test_each_field_of_an_enclaves_report_is_read_from_its_place() -> None:
    sizes = {"cpu_svn": 16, "misc_select": 4, "isv_ext_prod_id": 16, "attributes": 16, "mr_enclave": 32}
    sizes |= {"mr_signer": 32, "config_id": 64, "isv_prod_id": 2, "isv_svn": 2, "config_svn": 2}
    sizes |= {"isv_family_id": 16, "report_data": 64}
    values = {
        name: bytes((17 * at + place) % 251 for place in range(size)) for at, (name, size) in enumerate(sizes.items())
    }
    report = parse_sgx_report(sgx_report(**values), tee="sgx")
    for name, value in values.items():
        found = getattr(report, name)
        assert found == (int.from_bytes(value, "little") if isinstance(found, int) else value), name


def test_flags_are_the_first_half_of_the_attributes() -> None:
    report = parse_sgx_report(sgx_report(attributes=b"\xff" * 16), tee="sgx")
    assert report.flags == 0xFFFFFFFFFFFFFFFF


@TEES_OF_INTEL
def test_the_largest_quote_is_read(tee: str) -> None:
    quote = good(tee).quote().ljust(MAX_QUOTE_BYTES, b"\0")
    assert PARSE[tee](quote).body.report_data == b"r" * 64
    with pytest.raises(MalformedEvidenceError, match="65537 bytes, more than 65536"):
        PARSE[tee](quote + b"\0")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (1, "1 bytes where the version has 2"),
        (2, "0 bytes where the attestation key type has 2"),
        (7, "3 bytes where the TEE type has 4"),
        (27, "15 bytes where the QE vendor has 16"),
        (47, "19 bytes where the user data has 20"),
        (-1, r"\d+ bytes where the signature data has \d+"),
    ],
)
@TEES_OF_INTEL
def test_a_quote_that_ends_too_early_says_where(tee: str, size: int, words: str) -> None:
    with pytest.raises(MalformedEvidenceError, match=words):
        PARSE[tee](good(tee).quote()[:size])


def longer(quote: bytes, sizes_at: tuple[int, ...]) -> bytes:
    """The quote with a byte at its end, which the sizes that stand there count."""
    changed = bytearray(quote + b"\0")
    for at in sizes_at:
        changed[at : at + 4] = (int.from_bytes(quote[at : at + 4], "little") + 1).to_bytes(4, "little")
    return bytes(changed)


def test_nothing_stands_behind_the_certification_data() -> None:
    wrapper = SIGNATURE_SIZE["tdx"] + 4 + 64 + 64 + 2
    quotes = {tee: good(tee).quote() for tee in SIGNATURE_SIZE}
    for tee, sizes_at in (
        ("sgx", (SIGNATURE_SIZE["sgx"],)),
        ("tdx", (SIGNATURE_SIZE["tdx"],)),  # behind what wraps the QE's report
        ("tdx", (SIGNATURE_SIZE["tdx"], wrapper)),  # inside of it, behind the PCK chain
    ):
        with pytest.raises(MalformedEvidenceError, match="1 bytes after the certification data"):
            PARSE[tee](longer(quotes[tee], sizes_at))


@TEES_OF_INTEL
def test_only_zeros_are_taken_from_the_end_of_the_pck_chain(tee: str) -> None:
    quote = PARSE[tee](good(tee, certification=(5, b"-----x\0\0")).quote())
    assert quote.pck_chain == b"-----x"


@pytest.mark.parametrize("kind", range(8))
@TEES_OF_INTEL
def test_a_quote_may_name_its_pck_certificate_in_404_bytes(tee: str, kind: int) -> None:
    """Certification data of types 1 to 3; type 5 is the chain itself, and no other is read."""
    for size in (403, 404, 405):
        quote = good(tee, certification=(kind, bytes(size))).quote()
        if kind == 5 or (kind in {1, 2, 3} and size == 404):
            assert PARSE[tee](quote).pck_chain == (b"" if kind == 5 else None)
        else:
            with pytest.raises(MalformedEvidenceError, match=f"certification data of type {kind} and {size} bytes"):
                PARSE[tee](quote)


# --- collateral -------------------------------------------------------------------------------------------------------


def tcb(tee: str = "tdx", **changes: Any) -> Any:
    return parse_tcb_info(json.dumps(tcb_info(tee, **changes)).encode(), tee=tee)


def qe(**changes: Any) -> Any:
    return parse_qe_identity(json.dumps(qe_identity("sgx", **changes)).encode(), tee="sgx")


NUMBERS = {
    "a version": (tcb, lambda n: {"version": n}, 0xFF),
    "an evaluation number": (tcb, lambda n: {"tcbEvaluationDataNumber": n}, 0xFFFFFFFF),
    "a PCE's SVN": (tcb, lambda n: {"tcbLevels": [level(pce_svn=n)]}, 0xFFFF),
    "a component": (tcb, lambda n: {"tcbLevels": [level(sgx=(n,) * 16)]}, 0xFF),
    "a TDX component": (tcb, lambda n: {"tcbLevels": [level(tdx=(n,) * 16)]}, 0xFF),
    "a module's SVN": (
        tcb,
        lambda n: {"tdxModule": {**tcb_info("tdx")["tdxModule"], "tcbLevels": [svn_level(n)]}},
        0xFFFF,
    ),
    "a QE's SVN": (qe, lambda n: {"tcbLevels": [svn_level(n)]}, 0xFFFF),
    "a QE's product": (qe, lambda n: {"isvprodid": n}, 0xFFFF),
    "a QE identity's version": (qe, lambda n: {"version": n}, 0xFF),
}


@pytest.mark.parametrize(("read", "changed", "largest"), NUMBERS.values(), ids=NUMBERS.keys())
def test_a_number_is_as_large_as_its_field(read: Any, changed: Any, largest: int) -> None:
    for number in (0, largest):
        assert read(**changed(number))
    for number in (-1, largest + 1):
        with pytest.raises(MalformedEvidenceError, match="something else where a number"):
            read(**changed(number))


def test_documents_are_as_long_as_they_may_be() -> None:
    for read, document in ((parse_tcb_info, tcb_info("sgx")), (parse_qe_identity, qe_identity("sgx"))):
        longest = json.dumps(document).encode().ljust(256 * 1024)
        assert read(longest, tee="sgx").issue.evaluation_number == 20
        with pytest.raises(MalformedEvidenceError, match="262144"):
            read(longest + b" ", tee="sgx")


def test_lists_are_as_long_as_they_may_be() -> None:
    assert len(tcb(tcbLevels=[level()] * MAX_LEVELS).levels) == 256
    most = level(advisories=[f"INTEL-SA-{number}" for number in range(MAX_ADVISORIES)])
    assert len(tcb(tcbLevels=[most]).levels[0].verdict.advisories) == 1024
    more = level(advisories=["INTEL-SA-00001"] * (MAX_ADVISORIES + 1))
    for levels in ([level()] * (MAX_LEVELS + 1), [more]):
        with pytest.raises(MalformedEvidenceError, match="a list of at most"):
            tcb(tcbLevels=levels)


@pytest.mark.parametrize("fmspc", ["00 00 00 00 ", "00" * 5 + "\t\n", ["00"] * 12, 5, None, "00" * 7])
def test_digits_are_a_text_of_nothing_else(fmspc: Any) -> None:
    """Python's own `bytes.fromhex` passes over spaces, and so would read fewer bytes."""
    with pytest.raises(MalformedEvidenceError, match="something else where 12 hexadecimal digits stand"):
        tcb(fmspc=fmspc)


@pytest.mark.parametrize("status", ["Fine", "TDRelaunchAdvised", "uptodate", "", 1, ["UpToDate"]])
def test_a_status_is_one_of_intels(status: Any) -> None:
    with pytest.raises(MalformedEvidenceError, match="a TCB status that is not known"):
        tcb(tcbLevels=[{**level(), "tcbStatus": status}])


def test_levels_of_sgx_have_no_tdx_components() -> None:
    info = tcb("sgx", tcbLevels=[level()])
    assert info.levels[0].tdx_components == ()
    assert info.modules == ()
    assert len(tcb(tcbLevels=[level()]).levels[0].tdx_components) == 16


def test_a_td_of_version_5_may_have_a_body_of_1_0() -> None:
    quote = tdx.parse(FakeEvidence(version=5, body_type=2).quote())
    assert (quote.body.tee_tcb_svn2, len(quote.signed)) == (None, 48 + 6 + 584)  # type: ignore[union-attr]  # a TD's
