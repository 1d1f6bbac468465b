"""What comes with a fake Intel's quotes: anything that is not exactly what it is called is malformed."""

from __future__ import annotations

import dataclasses

import pytest
from attestation.intel_cases import TEES_OF_INTEL, good, refusal, verify
from fakes.intel_pki import (
    CA_CERTIFICATE,
    CA_NAME,
    PLATFORM_CA,
    ROOT_MADE,
    SIGNER,
    SIGNER_MADE,
    crl,
    pck_certificate,
    pem,
    sign,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from blindai.attestation.evidence import EvidenceItem
from blindai.errors import MalformedEvidenceError, RejectedEvidenceError

RENEWED_CA = dataclasses.replace(CA_CERTIFICATE, serial=22).make()

NOT_SIGNED = sign(SIGNER, b"nothing")
MALFORMED: list[tuple[str, dict[str, bytes | None]]] = [
    ("endorsements", {"surplus": b""}),
    ("endorsements", {"pck_crl": None}),
    ("endorsements", {"pck_crl_issuer_chain": None}),
    ("endorsements", {"tcb_info": None}),
    ("endorsements", {"qe_identity": None, "qe_identity_signature": None, "qe_identity_issuer_chain": None}),
    ("certificate_format", {"tcb_info_issuer_chain": b""}),
    ("certificate_format", {"tcb_info_issuer_chain": b"nothing of that kind"}),
    ("certificate_format", {"tcb_info_issuer_chain": pem(SIGNER_MADE, ROOT_MADE) + b"more"}),
    ("certificate_format", {"tcb_info_issuer_chain": b"before" + pem(SIGNER_MADE, ROOT_MADE)}),
    ("certificate_format", {"tcb_info_issuer_chain": pem(*[ROOT_MADE] * 9)}),
    ("certificate_format", {"tcb_info_issuer_chain": pem(SIGNER_MADE).replace(b"MII", b"M!!", 1)}),
    (
        "certificate_format",
        {"tcb_info_issuer_chain": b"-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n"},
    ),
    (
        "certificate_format",
        {"tcb_info_issuer_chain": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
    ),
    ("one_pck_chain", {"pck_chain": pem(pck_certificate(), RENEWED_CA, ROOT_MADE)}),
    ("crl_format", {"root_ca_crl": b""}),
    ("crl_format", {"pck_crl": crl(CA_NAME, PLATFORM_CA) + b"\0"}),
    ("collateral_format", {"tcb_info": b"[]"}),
    ("collateral_format", {"qe_identity": b"{}"}),
    ("collateral_format", {"tcb_info_signature": NOT_SIGNED[1:]}),
    ("collateral_format", {"qe_identity_signature": NOT_SIGNED + b"\0"}),
]


@TEES_OF_INTEL
@pytest.mark.parametrize(("code", "changes"), MALFORMED)
def test_endorsements_that_are_not_what_they_are_called_are_malformed(
    tee: str, code: str, changes: dict[str, bytes | None]
) -> None:
    refusal(good(tee, endorsements=changes).item(), code, MalformedEvidenceError)


@TEES_OF_INTEL
def test_an_endorsement_is_named_once(tee: str) -> None:
    item = good(tee).item()
    twice = dataclasses.replace(item, endorsements=(*item.endorsements, item.endorsements[0]))
    refusal(twice, "endorsements", MalformedEvidenceError)


@TEES_OF_INTEL
def test_a_pck_certificate_without_its_extension_is_malformed(tee: str) -> None:
    refusal(good(tee, pck=pck_certificate(b"")).item(), "pck_extension", MalformedEvidenceError)
    plain = dataclasses.replace(
        CA_CERTIFICATE, subject="Intel SGX PCK Certificate", issuer=CA_NAME, issuer_key=PLATFORM_CA
    )
    refusal(good(tee, pck=plain.make()).item(), "pck_extension", MalformedEvidenceError)


BASE = {tee: good(tee).item() for tee in ("sgx", "tdx")}


@TEES_OF_INTEL
@settings(max_examples=60)
@given(data=st.data())
def test_arbitrary_changes_are_rejected_and_nothing_worse(tee: str, data: st.DataObject) -> None:
    item = BASE[tee]
    parts = [("", item.evidence), *item.endorsements]
    which = data.draw(st.integers(0, len(parts) - 1))
    name, part = parts[which]
    begin = data.draw(st.integers(0, len(part) - 1))
    end = data.draw(st.integers(begin, min(len(part), begin + 8)))
    changed = part[:begin] + data.draw(st.binary(max_size=8)) + part[end:]
    changed_parts = dict(item.endorsements) | ({name: changed} if name else {})
    evil = EvidenceItem(tee=tee, evidence=item.evidence if name else changed, endorsements=tuple(changed_parts.items()))
    try:
        verify(evil)
    except RejectedEvidenceError:
        return
    assert changed.translate(None, b" \t\r\n\0") == part.translate(None, b" \t\r\n\0")


@TEES_OF_INTEL
@given(
    evidence=st.binary(max_size=600),
    endorsement=st.binary(max_size=100),
    name=st.sampled_from(sorted(dict(BASE["sgx"].endorsements))),
)
def test_arbitrary_bytes_are_rejected_and_nothing_worse(
    tee: str, evidence: bytes, endorsement: bytes, name: str
) -> None:
    for item in (
        dataclasses.replace(BASE[tee], evidence=evidence),
        dataclasses.replace(
            BASE[tee], endorsements=tuple((dict(BASE[tee].endorsements) | {name: endorsement}).items())
        ),
    ):
        with pytest.raises(RejectedEvidenceError):
            verify(item)
