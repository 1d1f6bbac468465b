"""A fake Intel's evidence: what is good verifies, and each link that is not Intel's is refused with its code."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attestation.intel_cases import KINDS, TEES_OF_INTEL, good, refusal, verify
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from fakes.intel import DAY, FakeEvidence, tcb_info
from fakes.intel_pki import (
    CA_CERTIFICATE,
    CA_MADE,
    CA_NAME,
    NOW,
    NOW_S,
    PLATFORM_CA,
    ROOT,
    ROOT_CERTIFICATE,
    ROOT_MADE,
    ROOT_NAME,
    SIGNER_CERTIFICATE,
    SIGNER_MADE,
    STRANGER,
    crl,
    pck_certificate,
    pem,
    sgx_extension,
    sgx_members,
    sign,
)
from fakes.key_usage import key_usage

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import Outcome
from blindai.attestation.tee import TEES
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable


STEPS = [
    "quote_format",
    "endorsements",
    "certificate_format",
    "one_pck_chain",
    "crl_format",
    "collateral_format",
    "pck_chain_root",
    "pck_chain",
    "pck_chain_validity",
    "pck_names",
    "pck_extension",
    "qe_report_signature",
    "qe_report_data",
    "quote_signature",
    "root_crl_signature",
    "pck_crl_chain",
    "pck_crl_signature",
    "tcb_info_chain_root",
    "tcb_info_chain",
    "tcb_info_chain_validity",
    "tcb_info_signer",
    "tcb_info_signature",
    "tcb_info_kind",
    "tcb_info_platform",
    "qe_identity_chain",
    "qe_identity_signer",
    "qe_identity_signature",
    "qe_identity_kind",
    "qe_identity",
    "ca_revoked",
    "pck_revoked",
]
OTHER_ROOT = dataclasses.replace(ROOT_CERTIFICATE, subject_key=STRANGER, issuer_key=STRANGER).make()
RENEWED_CA = dataclasses.replace(CA_CERTIFICATE, serial=22).make()


@KINDS
def test_good_evidence_verifies_and_every_step_is_named(evidence: FakeEvidence) -> None:
    claims, findings = verify(evidence.item())
    steps = STEPS if evidence.tee == "sgx" else [*STEPS, "module_identity"]
    assert [finding.code for finding in findings] == [f"{evidence.tee}.{step}" for step in steps]
    assert all(finding.outcome is Outcome.PASSED and finding.why for finding in findings)
    assert claims.bound == b"r" * 64
    assert claims.facts()


@KINDS
def test_the_real_roots_are_the_default(evidence: FakeEvidence) -> None:
    with pytest.raises(UnauthenticEvidenceError) as refused:
        TEES[evidence.tee].verify(evidence.item(), NOW_S, Checks())
    assert refused.value.finding_code == f"{evidence.tee}.pck_chain_root"


# What does not verify: the code, and what is changed in good evidence.
UNAUTHENTIC: list[tuple[str, Callable[[str], FakeEvidence]]] = [
    ("pck_chain_root", lambda tee: good(tee, chain=(CA_MADE, OTHER_ROOT))),
    ("pck_chain", lambda tee: good(tee, pck=pck_certificate(issuer_key=STRANGER))),
    (
        "pck_chain",
        lambda tee: good(
            tee, chain=(dataclasses.replace(CA_CERTIFICATE, is_ca=False, path_length=None).make(), ROOT_MADE)
        ),
    ),
    ("pck_chain_validity", lambda tee: good(tee, pck=pck_certificate(end=NOW - DAY))),
    ("pck_chain_validity", lambda tee: good(tee, pck=pck_certificate(begin=NOW + DAY))),
    ("pck_names", lambda tee: good(tee, pck=pck_certificate(subject="Intel SGX TCB Signing"))),
    (
        "pck_names",
        lambda tee: good(
            tee,
            pck=pck_certificate(issuer="Another CA"),
            chain=(dataclasses.replace(CA_CERTIFICATE, subject="Another CA").make(), ROOT_MADE),
        ),
    ),
    ("pck_names", lambda tee: good(tee, pck=pck_certificate(issuer=ROOT_NAME, issuer_key=ROOT), chain=(ROOT_MADE,))),
    ("qe_report_signature", lambda tee: good(tee, pck_key=STRANGER)),
    (
        "qe_report_signature",
        lambda tee: good(tee, pck=pck_certificate(subject_key=ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))),
    ),
    (
        "qe_report_signature",
        lambda tee: good(tee, pck=pck_certificate(subject_key=ec.derive_private_key(1, ec.SECP384R1()))),
    ),
    ("qe_report_data", lambda tee: good(tee, qe={"report_data": bytes(64)})),
    ("qe_report_data", lambda tee: good(tee, qe={"report_data": b"\1" * 64})),
    ("quote_signature", lambda tee: good(tee, named_key=b"\1" * 64)),
    ("quote_signature", lambda tee: good(tee, named_key=bytes(64))),
    ("root_crl_signature", lambda tee: good(tee, endorsements={"root_ca_crl": crl(ROOT_NAME, STRANGER)})),
    ("root_crl_signature", lambda tee: good(tee, endorsements={"root_ca_crl": crl(CA_NAME, ROOT)})),
    ("pck_crl_chain_root", lambda tee: good(tee, endorsements={"pck_crl_issuer_chain": pem(CA_MADE, OTHER_ROOT)})),
    (
        "pck_crl_chain",
        lambda tee: good(
            tee,
            endorsements={
                "pck_crl_issuer_chain": pem(dataclasses.replace(CA_CERTIFICATE, issuer_key=STRANGER).make(), ROOT_MADE)
            },
        ),
    ),
    (
        "pck_crl_chain_validity",
        lambda tee: good(
            tee,
            endorsements={
                "pck_crl_issuer_chain": pem(dataclasses.replace(CA_CERTIFICATE, end=NOW - DAY).make(), ROOT_MADE)
            },
        ),
    ),
    ("pck_crl_signature", lambda tee: good(tee, endorsements={"pck_crl": crl(CA_NAME, STRANGER)})),
    (
        "pck_crl_signature",
        lambda tee: good(tee, endorsements={"pck_crl": crl(ROOT_NAME, ROOT), "pck_crl_issuer_chain": pem(ROOT_MADE)}),
    ),
    (
        "tcb_info_chain_root",
        lambda tee: good(tee, endorsements={"tcb_info_issuer_chain": pem(SIGNER_MADE, OTHER_ROOT)}),
    ),
    (
        "tcb_info_chain",
        lambda tee: good(
            tee,
            endorsements={
                "tcb_info_issuer_chain": pem(
                    dataclasses.replace(SIGNER_CERTIFICATE, issuer_key=STRANGER).make(), ROOT_MADE
                )
            },
        ),
    ),
    (
        "tcb_info_chain_validity",
        lambda tee: good(
            tee,
            endorsements={
                "tcb_info_issuer_chain": pem(dataclasses.replace(SIGNER_CERTIFICATE, end=NOW - DAY).make(), ROOT_MADE)
            },
        ),
    ),
    ("tcb_info_signer", lambda tee: good(tee, endorsements={"tcb_info_issuer_chain": pem(CA_MADE, ROOT_MADE)})),
    ("tcb_info_signature", lambda tee: good(tee, endorsements={"tcb_info_signature": bytes(64)})),
    (
        "tcb_info_signature",
        lambda tee: good(tee, endorsements={"tcb_info_signature": sign(STRANGER, json.dumps(tcb_info(tee)).encode())}),
    ),
    ("tcb_info_kind", lambda tee: good(tee, tcb_info={"version": 2})),
    ("tcb_info_kind", lambda tee: good(tee, tcb_info={"id": "OTHER"})),
    ("tcb_info_platform", lambda tee: good(tee, tcb_info={"fmspc": "00" * 6})),
    ("tcb_info_platform", lambda tee: good(tee, tcb_info={"pceId": "0001"})),
    (
        "qe_identity_chain_root",
        lambda tee: good(tee, endorsements={"qe_identity_issuer_chain": pem(SIGNER_MADE, OTHER_ROOT)}),
    ),
    (
        "qe_identity_chain",
        lambda tee: good(
            tee,
            endorsements={
                "qe_identity_issuer_chain": pem(
                    dataclasses.replace(SIGNER_CERTIFICATE, issuer_key=STRANGER).make(), ROOT_MADE
                )
            },
        ),
    ),
    (
        "qe_identity_chain_validity",
        lambda tee: good(
            tee,
            endorsements={
                "qe_identity_issuer_chain": pem(
                    dataclasses.replace(SIGNER_CERTIFICATE, end=NOW - DAY).make(), ROOT_MADE
                )
            },
        ),
    ),
    ("qe_identity_signer", lambda tee: good(tee, endorsements={"qe_identity_issuer_chain": pem(ROOT_MADE)})),
    ("qe_identity_signature", lambda tee: good(tee, endorsements={"qe_identity_signature": bytes(64)})),
    ("qe_identity_kind", lambda tee: good(tee, qe_identity={"id": "QVE"})),
    ("qe_identity_kind", lambda tee: good(tee, qe_identity={"version": 3})),
    ("qe_identity", lambda tee: good(tee, qe={"mr_signer": bytes(32)})),
    ("qe_identity", lambda tee: good(tee, qe={"isv_prod_id": b"\x09\0"})),
    ("qe_identity", lambda tee: good(tee, qe={"misc_select": b"\1\0\0\0"})),
    ("qe_identity", lambda tee: good(tee, qe={"attributes": bytes([0x35]) + bytes(15)})),
    (
        "qe_identity",
        lambda tee: good(tee, qe={"attributes": bytes([0x17]) + bytes(15)}, qe_identity={"attributesMask": "00" * 16}),
    ),
    ("ca_revoked", lambda tee: good(tee, endorsements={"root_ca_crl": crl(ROOT_NAME, ROOT, [1])})),
    ("ca_revoked", lambda tee: good(tee, endorsements={"root_ca_crl": crl(ROOT_NAME, ROOT, [9, 2])})),
    ("ca_revoked", lambda tee: good(tee, endorsements={"root_ca_crl": crl(ROOT_NAME, ROOT, [3])})),
    (
        "ca_revoked",
        lambda tee: good(
            tee,
            endorsements={
                "root_ca_crl": crl(ROOT_NAME, ROOT, [22]),
                "pck_crl_issuer_chain": pem(RENEWED_CA, ROOT_MADE),
            },
        ),
    ),
    ("pck_revoked", lambda tee: good(tee, endorsements={"pck_crl": crl(CA_NAME, PLATFORM_CA, [9, 4])})),
]


@TEES_OF_INTEL
@pytest.mark.parametrize(("code", "bad"), UNAUTHENTIC)
def test_what_is_not_intels_word_is_unauthentic(tee: str, code: str, bad: Callable[[str], FakeEvidence]) -> None:
    refusal(bad(tee).item(), code, UnauthenticEvidenceError)


@TEES_OF_INTEL
def test_a_ca_renewed_with_the_same_key_may_sign_the_list(tee: str) -> None:
    claims, _ = verify(good(tee, endorsements={"pck_crl_issuer_chain": pem(RENEWED_CA, ROOT_MADE)}).item())
    assert claims.revocation is not None


@TEES_OF_INTEL
@pytest.mark.parametrize("revokes", [False, True])
def test_a_ca_whose_key_usage_leaves_out_lists_may_not(tee: str, *, revokes: bool) -> None:
    usage = key_usage("key_cert_sign", "crl_sign") if revokes else key_usage("key_cert_sign")
    issuer = dataclasses.replace(CA_CERTIFICATE, serial=22, usage=usage).make()
    item = good(tee, endorsements={"pck_crl_issuer_chain": pem(issuer, ROOT_MADE)}).item()
    if revokes:
        verify(item)
    else:
        refusal(item, "pck_crl_signature", UnauthenticEvidenceError)


@TEES_OF_INTEL
def test_another_ca_of_the_same_name_may_not(tee: str) -> None:
    other = dataclasses.replace(CA_CERTIFICATE, subject_key=STRANGER).make()
    changes = {"pck_crl": crl(CA_NAME, STRANGER), "pck_crl_issuer_chain": pem(other, ROOT_MADE)}
    refusal(good(tee, endorsements=changes).item(), "pck_crl_signature", UnauthenticEvidenceError)


@TEES_OF_INTEL
def test_another_ca_with_the_same_key_may_not(tee: str) -> None:
    name = "Intel SGX PCK Processor CA"
    other = dataclasses.replace(CA_CERTIFICATE, subject=name).make()
    changes = {"pck_crl": crl(name, PLATFORM_CA), "pck_crl_issuer_chain": pem(other, ROOT_MADE)}
    refusal(good(tee, endorsements=changes).item(), "pck_crl_signature", UnauthenticEvidenceError)


@TEES_OF_INTEL
def test_a_signature_is_told_for_what_it_is(tee: str) -> None:
    _, made = verify(good(tee).item())
    told = {finding.code: finding.found for finding in made}
    assert told[f"{tee}.quote_signature"] == "the attestation key's signature over the quote"
    with pytest.raises(UnauthenticEvidenceError) as refused:
        verify(good(tee, named_key=b"\1" * 64).item())
    assert refused.value.findings[-1].found == "one that does not verify"


@TEES_OF_INTEL
def test_a_revoked_key_stays_revoked_when_its_list_is_old(tee: str) -> None:
    old = crl(CA_NAME, PLATFORM_CA, [4], begin=NOW - 60 * DAY, end=NOW - 30 * DAY)
    refusal(good(tee, endorsements={"pck_crl": old}).item(), "pck_revoked", UnauthenticEvidenceError)


@TEES_OF_INTEL
def test_the_pck_chain_may_stand_beside_the_quote(tee: str) -> None:
    pck = pck_certificate()
    chain = pem(pck, CA_MADE, ROOT_MADE)
    for kind in (1, 2, 3):
        bare = good(tee, certification=(kind, bytes(404)), endorsements={"pck_chain": chain})
        assert verify(bare.item())[0].pck.ppid == b"P" * 16
    refusal(good(tee, certification=(3, bytes(404))).item(), "one_pck_chain", MalformedEvidenceError)
    both = good(tee, pck=pck, endorsements={"pck_chain": chain})
    assert verify(both.item())[0].pck.ppid == b"P" * 16


@TEES_OF_INTEL
def test_without_collateral_and_lists_only_the_quote_is_vouched_for(tee: str) -> None:
    nothing = dict.fromkeys(dict(good(tee).item().endorsements))
    claims, findings = verify(good(tee, endorsements=nothing).item())
    assert (claims.state, claims.collateral, claims.evaluation_number, claims.revocation) == (None, None, None, None)
    assert [finding.code for finding in findings][-1] == f"{tee}.quote_signature"
    assert ("TCB status", "unknown without collateral") in claims.facts()


@TEES_OF_INTEL
def test_each_list_can_be_missing_alone(tee: str) -> None:
    for names in (("root_ca_crl",), ("pck_crl", "pck_crl_issuer_chain")):
        claims, _ = verify(good(tee, endorsements=dict.fromkeys(names)).item())
        assert claims.revocation is None
        assert claims.state is not None


@TEES_OF_INTEL
def test_a_platform_of_the_processor_ca_says_nothing_of_its_configuration(tee: str) -> None:
    ca = dataclasses.replace(CA_CERTIFICATE, subject="Intel SGX PCK Processor CA").make()
    pck = pck_certificate(sgx_extension(sgx_members(flags=None)), issuer="Intel SGX PCK Processor CA")
    changes = {"pck_crl": crl("Intel SGX PCK Processor CA", PLATFORM_CA), "pck_crl_issuer_chain": pem(ca, ROOT_MADE)}
    claims, _ = verify(good(tee, pck=pck, chain=(ca, ROOT_MADE), endorsements=changes).item())
    assert (claims.pck.dynamic_platform, claims.pck.platform_instance_id) == (None, None)
    assert ("smt enabled", "not said") in claims.facts()


@TEES_OF_INTEL
def test_every_code_of_this_step_is_documented_and_refused(tee: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "spec" / "tee" / f"{tee}.md"
    listed = set(re.findall(rf"^\| `{tee}\.([a-z0-9_]+)` \| verify \|", page.read_text("utf-8"), re.MULTILINE))
    malformed = {"quote_format", "endorsements", "certificate_format", "one_pck_chain", "crl_format"}
    malformed |= {"collateral_format", "pck_extension"}
    own = {"module_identity", "ccel", "ccel_format"} if tee == "tdx" else set()
    assert listed == {code for code, _ in UNAUTHENTIC} | malformed | own
