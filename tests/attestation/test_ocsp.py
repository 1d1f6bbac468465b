"""OCSP answers, each for itself: one answer in its own DER, signed with a strong hash by whoever may answer.

What a GPU's evidence makes of them is in test_nvidia_endorsements.py.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA224, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from fakes import nvidia
from fakes.nvidia import NOW

from blindai.attestation.evidence import Finding, Outcome
from blindai.attestation.ocsp import Question, answers, judge_answers, read_answer
from blindai.errors import MalformedEvidenceError

ROM, PROVISIONER = nvidia.device_chain()[1:3]
QUESTION = Question(certificate=ROM, issuer=PROVISIONER)
ROM_NAME, ISSUER = "GH100 A01 GSP BROM", "GH100 Provisioner"
GOOD = nvidia.answer(ROM, PROVISIONER)
UNSUCCESSFUL = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER)
FORM = "found an error, several answers, a critical extension, or another encoding"


def read(der: bytes) -> ocsp.OCSPResponse:
    return read_answer(der, tee="t")


def judged(der: bytes) -> tuple[Finding, ...]:
    """All three findings, also after the first that failed."""
    made = tuple(judge_answers([(read(der), QUESTION)], tee="t", now=NOW.timestamp()))
    assert [finding.code for finding in made] == ["t.ocsp_responder", "t.ocsp_signature", "t.revoked"]
    return made


def failed(der: bytes) -> dict[str, str]:
    return {one.code.removeprefix("t."): one.found for one in judged(der) if one.outcome is Outcome.FAILED}


# --- one answer in its own DER ----------------------------------------------------------------------------------------


def element(tag: int, content: bytes) -> bytes:
    """A DER value of at most 65535 bytes."""
    size = len(content)
    head = bytes([size]) if size < 0x80 else b"\x81" + bytes([size]) if size < 0x100 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + head + content


def content_of(der: bytes, at: int = 0) -> tuple[int, int]:
    """Where the content of the DER value at a place begins and ends."""
    more = der[at + 1] - 0x80 if der[at + 1] > 0x80 else 0
    begin = at + 2 + more
    return begin, begin + (int.from_bytes(der[at + 2 : begin]) if more else der[at + 1])


def with_answers(der: bytes, count: int) -> bytes:
    """The same response with its one answer so many times; its signature no longer fits."""
    response = ocsp.load_der_ocsp_response(der)
    signed = response.tbs_response_bytes
    at = signed.index(b"\x18\x0f") + 17  # behind producedAt
    begin, end = content_of(signed, at)
    start, _ = content_of(signed)
    changed = element(0x30, signed[start:at] + element(0x30, signed[begin:end] * count) + signed[end:])
    after = der[der.index(signed) + len(signed) :]  # algorithm, signature, certificates
    oid = bytes.fromhex("06092b0601050507300101")
    inner = element(0x30, oid + element(4, element(0x30, changed + after)))
    return element(0x30, b"\x0a\1\0" + element(0xA0, inner))


def test_a_response_holds_one_answer() -> None:
    assert with_answers(GOOD, 1) == GOOD
    for count in (0, 2):
        assert len(list(ocsp.load_der_ocsp_response(with_answers(GOOD, count)).responses)) == count
        with pytest.raises(MalformedEvidenceError, match=FORM):
            read(with_answers(GOOD, count))
    with pytest.raises(MalformedEvidenceError, match=FORM) as refusal:
        read(UNSUCCESSFUL)
    assert (refusal.value.finding_code, refusal.value.tee) == ("t.ocsp_format", "t")


def test_an_answer_is_read_from_exactly_its_der(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the library under us would pass over what stands behind it."""
    strict = ocsp.load_der_ocsp_response
    monkeypatch.setattr(ocsp, "load_der_ocsp_response", lambda data: strict(data[: len(GOOD)]))
    assert read(GOOD).serial_number == ROM.serial_number
    with pytest.raises(MalformedEvidenceError, match=FORM):
        read(GOOD + b"\0")


def test_a_signature_with_unused_bits_is_another_encoding() -> None:
    made = (nvidia.answer(ROM, PROVISIONER) for _ in range(100))
    even = next(one for one in made if not ocsp.load_der_ocsp_response(one).signature[-1] & 1)  # else it is no DER
    signature = ocsp.load_der_ocsp_response(even).signature
    assert read(even).signature == signature
    with pytest.raises(MalformedEvidenceError, match=FORM):
        read(even.replace(b"\0" + signature, b"\1" + signature))


def of_size(size: int) -> bytes:
    """An answer of just so many bytes, by an extension that nobody knows; the signature's own size changes."""
    filled = size - 1500
    for _ in range(1000):
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x" * filled)
        made = nvidia.answer(ROM, PROVISIONER, extensions=[(unknown, False)])
        if len(made) == size:
            return made
        filled += size - len(made)
    raise AssertionError("no answer of this size")


def test_the_largest_answer_is_read() -> None:
    assert failed(of_size(8192)) == {}
    with pytest.raises(MalformedEvidenceError, match=FORM):
        read(of_size(8193))


@pytest.mark.parametrize("which", [1, 2])
def test_a_time_that_python_has_not_is_none(which: int) -> None:
    """ThisUpdate and nextUpdate in the year 0, which DER can say."""
    times = [found.start() for found in re.finditer(rb"\x18\x0f\d{14}Z", GOOD)]
    changed = bytearray(GOOD)
    changed[times[which] : times[which] + 17] = b"\x18\x0f00000101000000Z"
    with pytest.raises(MalformedEvidenceError, match="bytes that are none"):
        read(bytes(changed))


# --- about which certificate ------------------------------------------------------------------------------------------


def test_an_answer_is_about_one_certificate_of_one_issuer() -> None:
    """Serial number, issuer's name and issuer's key: an answer about another is about none of ours."""
    later = nvidia.certify(ROM_NAME, by=ISSUER, serial=8)
    namesake = nvidia.certify(ISSUER, by="GH100 Identity", subject_key=nvidia.key("another").public_key())
    renamed = nvidia.certify("Another", by="GH100 Identity", subject_key=nvidia.key(ISSUER).public_key())
    by_another = nvidia.certify(ROM_NAME, by="Another", serial=ROM.serial_number)
    for digest in (SHA256(), SHA384(), SHA512()):
        assert answers(read(nvidia.answer(ROM, PROVISIONER, algorithm=digest)), QUESTION)
        for certificate, issuer in ((later, PROVISIONER), (ROM, namesake), (by_another, renamed)):
            about = read(nvidia.answer(certificate, issuer, algorithm=digest))
            assert not answers(about, QUESTION)
            assert answers(about, Question(certificate=certificate, issuer=issuer))
    assert not answers(read(nvidia.answer(ROM, PROVISIONER, algorithm=SHA224())), QUESTION)


# --- who answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", [SHA256(), SHA384(), SHA512()], ids=lambda one: one.name)
def test_a_strong_hash_will_do(digest: Any) -> None:
    assert failed(nvidia.answer(ROM, PROVISIONER, signed_with=digest)) == {}


def test_no_other_hash_will_do_however_well_it_is_signed() -> None:
    assert failed(nvidia.answer(ROM, PROVISIONER, signed_with=SHA224())) == {
        "ocsp_signature": f"a signature that does not verify about {ROM_NAME}"
    }


def test_an_answer_of_a_stranger_counts_as_unsigned_too() -> None:
    stranger = nvidia.certify("Stranger", by="Stranger", extensions=nvidia.OCSP_SIGNING)
    assert failed(nvidia.answer(ROM, PROVISIONER, responder=stranger, signer=nvidia.key("Stranger"))) == {
        "ocsp_responder": f"another's about {ROM_NAME}",
        "ocsp_signature": f"a signature that does not verify about {ROM_NAME}",
    }


def test_a_refusal_names_what_is_revoked() -> None:
    assert failed(nvidia.answer(ROM, PROVISIONER, status=ocsp.OCSPCertStatus.REVOKED)) == {"revoked": ROM_NAME}
    assert [finding.found for finding in judged(GOOD)] == ["1 of them", "1 of them", "none"]
