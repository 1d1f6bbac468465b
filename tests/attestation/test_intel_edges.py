"""Intel's evidence at its edges: what only just is a length, a number or a chain, and what only just is none."""

from __future__ import annotations

import dataclasses

import pytest
from attestation.intel_cases import TEES_OF_INTEL, good, refusal, verify
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fakes.intel_pki import (
    CA_CERTIFICATE,
    CA_NAME,
    NOW_S,
    ROOT_CERTIFICATE,
    ROOT_MADE,
    ROOT_NAME,
    STRANGER,
    crl,
    der,
    member,
    pck_certificate,
    pem,
    pinned,
    sgx_extension,
    sgx_members,
)

from blindai.attestation.checks import Checks
from blindai.attestation.intel.chain import equal_where
from blindai.attestation.intel.endorsements import COLLATERAL_NAMES
from blindai.attestation.intel.masked import Masked
from blindai.attestation.intel.pck import Pck, read_pck
from blindai.attestation.tee import sgx
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError

GOOD = sgx_members()
OTHERWISE, PPID = "a length that DER would write otherwise", "a PPID of another form"


def pck_of(extension: bytes) -> Pck:
    return read_pck(pck_certificate(extension), tee="sgx")


def refused_pck(extension: bytes) -> str:
    with pytest.raises(MalformedEvidenceError) as refused:
        pck_of(extension)
    return str(refused.value)


@pytest.mark.parametrize(
    ("head", "size", "found"),
    [
        (b"\x00", 0, PPID),
        (b"\x7f", 127, PPID),
        (b"\x80", 128, OTHERWISE),
        (b"\x81\x7f", 127, OTHERWISE),
        (b"\x81\x80", 128, PPID),
        (b"\x82\x00\xff", 255, OTHERWISE),
        (b"\x82\x01\x00", 256, PPID),
        (b"\x83\x00\x01\x00", 256, OTHERWISE),
    ],
)
def test_a_length_has_one_form(head: bytes, size: int, found: str) -> None:
    element = b"\x04" + head + bytes(size)
    assert found in refused_pck(sgx_extension({**GOOD, 1: member((1,), element)}))


def test_an_extension_that_says_to_be_longer_than_it_is_ends_early() -> None:
    whole = sgx_extension(GOOD)
    longer = whole[:2] + (int.from_bytes(whole[2:4], "big") + 1).to_bytes(2, "big") + whole[4:]
    assert whole[:2] == b"\x30\x82"
    assert "DER that ends early" in refused_pck(longer)


def test_a_members_name_is_an_oid() -> None:
    oid = bytes.fromhex("2a864886f84d010d01") + b"\4"
    named = der(0x30, der(4, oid) + der(4, b"F" * 6))
    assert "a member of another form" in refused_pck(sgx_extension({**GOOD, 4: named}))
    pck_of(sgx_extension({**GOOD, 4: der(0x30, der(6, oid) + der(4, b"F" * 6))}))


def test_a_platform_instance_and_a_configuration_come_alone_too() -> None:
    alone = pck_of(sgx_extension({number: value for number, value in GOOD.items() if number != 7}))
    assert (alone.platform_instance_id, alone.smt_enabled) == (b"I" * 16, None)
    other = pck_of(sgx_extension({number: value for number, value in GOOD.items() if number != 6}))
    assert (other.platform_instance_id, other.smt_enabled) == (None, True)


def test_numbers_have_one_form_up_to_their_ends() -> None:
    pck = pck_of(sgx_extension(sgx_members(components=(127, 128, *(0,) * 14), pce_svn=0x0105)))
    assert (pck.components[:2], pck.pce_svn) == ((127, 128), 0x0105)
    assert pck_of(sgx_extension({**GOOD, 5: member((5,), der(10, b"\0\xff"))})).sgx_type == 255
    for content in (b"", b"\0\x7f", b"\1\0", b"\0\0\0\5"):
        wrong = sgx_extension({**GOOD, 5: member((5,), der(10, content))})
        assert "a number out of its range" in refused_pck(wrong)


def test_values_of_other_sizes_are_never_compared() -> None:
    masked = Masked(value=b"ab", mask=b"\xff\xff")
    assert equal_where(b"ab", b"ab", b"\xff\xff")
    assert masked.matches(b"ab")
    with pytest.raises(ValueError, match="zip"):
        equal_where(b"a", b"ab", b"\xff\xff")
    with pytest.raises(ValueError, match="zip"):
        masked.matches(b"a")


# --- chains -----------------------------------------------------------------------------------------------------------


@TEES_OF_INTEL
def test_a_pck_of_another_curve_of_its_size_signs_nothing(tee: str) -> None:
    key = ec.derive_private_key(7, ec.SECP256K1())
    bad = good(tee, pck=pck_certificate(subject_key=key), pck_key=key)
    refusal(bad.item(), "qe_report_signature", UnauthenticEvidenceError)


@TEES_OF_INTEL
def test_a_ca_with_a_key_of_another_kind_has_no_list(tee: str) -> None:
    key = rsa.generate_private_key(65537, 2048)
    ca = dataclasses.replace(CA_CERTIFICATE, subject_key=key).make()  # type: ignore[arg-type]  # what Intel never has
    changes = {"pck_crl": crl(CA_NAME, key), "pck_crl_issuer_chain": pem(ca, ROOT_MADE)}  # type: ignore[arg-type]  # likewise
    bad = good(tee, pck=pck_certificate(issuer_key=key), chain=(ca, ROOT_MADE), endorsements=changes)
    refusal(bad.item(), "pck_crl_signature", UnauthenticEvidenceError)


def test_a_pinned_root_of_another_name_is_none_of_the_sgx_hierarchy() -> None:
    root = dataclasses.replace(ROOT_CERTIFICATE, subject="Another root", issuer="Another root").make()
    ca = dataclasses.replace(CA_CERTIFICATE, issuer="Another root").make()
    with pytest.raises(UnauthenticEvidenceError) as refused:
        sgx.verify(good("sgx", chain=(ca, root)).item(), NOW_S, Checks(), roots=pinned(root))
    assert refused.value.finding_code == "sgx.pck_names"


def test_a_chain_has_three_certificates_whatever_a_fourth_allows() -> None:
    """Intel's root allows one CA below it, so only a root that allows more shows that the number itself is judged."""
    root = dataclasses.replace(ROOT_CERTIFICATE, path_length=None).make()
    between = dataclasses.replace(ROOT_CERTIFICATE, subject_key=STRANGER, serial=7).make()
    ca = dataclasses.replace(CA_CERTIFICATE, issuer_key=STRANGER).make()
    with pytest.raises(UnauthenticEvidenceError) as refused:
        sgx.verify(good("sgx", chain=(ca, between, root)).item(), NOW_S, Checks(), roots=pinned(root))
    assert refused.value.finding_code == "sgx.pck_names"
    assert refused.value.findings[-1].found == f"Intel SGX PCK Certificate, {CA_NAME}, {ROOT_NAME}, {ROOT_NAME}"


@TEES_OF_INTEL
def test_collateral_is_read_when_nothing_else_came(tee: str) -> None:
    others = dict.fromkeys(dict(good(tee).item().endorsements).keys() - COLLATERAL_NAMES)
    claims, _ = verify(good(tee, endorsements=others).item())
    assert claims.state is not None
