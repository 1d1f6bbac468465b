"""What comes with a fake Intel's quotes: anything that is not exactly what it is called is malformed."""

from __future__ import annotations

import dataclasses

import pytest
from attestation.intel_cases import TEES_OF_INTEL, good, refusal, verify
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.intel_pki import (
    CA_CERTIFICATE,
    CA_NAME,
    DAY,
    NOW,
    PLATFORM_CA,
    ROOT_MADE,
    SIGNER,
    SIGNER_MADE,
    crl,
    der,
    name,
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
    ("certificate_format", {"tcb_info_issuer_chain": pem(SIGNER_MADE, ROOT_MADE) + b" "}),
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


def rewritten_crl(old: bytes, new: bytes) -> bytes:
    """A list in which some bytes of what is signed are others, and which is signed again."""
    tbs = x509.load_der_x509_crl(crl(CA_NAME, PLATFORM_CA)).tbs_certlist_bytes
    assert old in tbs
    changed = der(0x30, tbs[2 if tbs[1] < 0x80 else 3 :].replace(old, new))
    signature = PLATFORM_CA.sign(changed, ec.ECDSA(SHA256()))
    algorithm = der(0x30, der(6, bytes.fromhex("2a8648ce3d040302")))
    return der(0x30, changed + algorithm + der(3, b"\0" + signature))


NEXT_UPDATE = der(0x17, f"{NOW + 30 * DAY:%y%m%d%H%M%SZ}".encode())
MALFORMED += [
    ("crl_format", {"pck_crl": rewritten_crl(NEXT_UPDATE, b"")}),
    ("crl_format", {"pck_crl": rewritten_crl(der(2, b"\1"), der(2, b"\2"))}),
    ("crl_format", {"pck_crl": rewritten_crl(der(12, CA_NAME.encode()), der(12, b"\xff" * len(CA_NAME)))}),
]


def test_a_list_that_was_only_signed_again_is_read() -> None:
    assert verify(good("tdx", endorsements={"pck_crl": rewritten_crl(NEXT_UPDATE, NEXT_UPDATE)}).item())


@TEES_OF_INTEL
def test_a_list_of_some_keys_alone_is_no_list(tee: str) -> None:
    """Signed by the right key, of the right name and in time, and silent about every PCK certificate."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(name(CA_NAME)).last_update(NOW - DAY)
    of_cas_alone = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)  # noqa: FBT003  # RFC 5280's order
    made = builder.next_update(NOW + DAY).add_extension(of_cas_alone, critical=True).sign(PLATFORM_CA, SHA256())
    changes: dict[str, bytes | None] = {"pck_crl": made.public_bytes(Encoding.DER)}
    refusal(good(tee, endorsements=changes).item(), "crl_format", MalformedEvidenceError)


@TEES_OF_INTEL
def test_a_signature_has_no_unused_bits(tee: str) -> None:
    """Bits that are called unused may be anything; a list whose signature ends in a zero could be written with some."""
    made = next(made for made in (crl(CA_NAME, PLATFORM_CA) for _ in range(1000)) if not made[-1] & 1)
    signature = x509.load_der_x509_crl(made).signature
    other = made.replace(b"\0" + signature, b"\1" + signature)
    refusal(good(tee, endorsements={"pck_crl": other}).item(), "crl_format", MalformedEvidenceError)


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
    assert changed.translate(None, b"\r\n\0") == part.translate(None, b"\r\n\0")


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
