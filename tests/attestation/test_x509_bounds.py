"""Names outside their bounds and serial numbers of 0: refused, whether Python's warnings are errors or not.

cryptography only warns of them, once or each time that they are looked at.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID
from fakes.amd import NOW, certificate, rsa_key
from fakes.machines import machines

from blindai.attestation.amd.certificates import read_amd_certificate
from blindai.attestation.checks import Checks
from blindai.attestation.ocsp import read_answer
from blindai.attestation.x509_bounds import require_bounded, without_warnings
from blindai.attestation.x509_chain import read_certificate, read_pem_chain
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = ec.generate_private_key(ec.SECP256R1())


def name(oid: x509.ObjectIdentifier, value: str) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x509.Name([x509.NameAttribute(oid, value, _validate=False)])


GOOD, LONG = name(NameOID.COMMON_NAME, "a"), name(NameOID.COMMON_NAME, "a" * 65)


def made(subject: x509.Name, issuer: x509.Name) -> x509.Certificate:
    builder = x509.CertificateBuilder(issuer, subject, KEY.public_key(), 1, NOW, NOW)
    return builder.sign(KEY, SHA256())


def der_of(subject: x509.Name, issuer: x509.Name) -> bytes:
    return made(subject, issuer).public_bytes(Encoding.DER)


def list_by(issuer: x509.Name) -> bytes:
    builder = x509.CertificateRevocationListBuilder(issuer, NOW, NOW)
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)


def answer_by(responder: x509.Certificate, *carried: x509.Certificate) -> bytes:
    plain = made(GOOD, GOOD)
    builder = ocsp.OCSPResponseBuilder().add_response(
        plain, plain, SHA256(), ocsp.OCSPCertStatus.GOOD, NOW, NOW, None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, responder).certificates([plain, *carried])
    return builder.sign(KEY, SHA256()).public_bytes(Encoding.DER)


@pytest.fixture(autouse=True, params=["error", "ignore"])
def _warnings(request: pytest.FixtureRequest) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter(request.param)
        yield


@pytest.mark.parametrize(
    ("oid", "good", "bad"),
    [
        (NameOID.COMMON_NAME, ["a", "a" * 64, "é" * 32], ["", "a" * 65, "é" * 32 + "a"]),
        (NameOID.COUNTRY_NAME, ["US"], ["U", "USA", ""]),
        (NameOID.JURISDICTION_COUNTRY_NAME, ["US"], ["U", "USA"]),
        (NameOID.ORGANIZATION_NAME, ["a", "a" * 300], []),
    ],
)
def test_names_have_bounds(oid: x509.ObjectIdentifier, good: list[str], bad: list[str]) -> None:
    for value in good:
        require_bounded(name(oid, value))
    for value in bad:
        with pytest.raises(ValueError, match=oid.dotted_string):
            require_bounded(name(oid, value))


def test_only_our_own_looks_are_without_warnings() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with without_warnings():
            warnings.warn("somebody else's", UserWarning, stacklevel=1)
    assert [str(one.message) for one in told] == ["somebody else's"]


def test_what_is_within_them_is_read() -> None:
    assert read_certificate(der_of(GOOD, GOOD), tee="t", what="paper").subject == GOOD
    assert read_answer(answer_by(made(GOOD, GOOD)), tee="t").responder_name == GOOD


@pytest.mark.parametrize(("subject", "issuer"), [(LONG, GOOD), (GOOD, LONG)])
def test_a_certificate_of_or_by_such_a_name_is_malformed(subject: x509.Name, issuer: x509.Name) -> None:
    der = der_of(subject, issuer)
    with pytest.raises(MalformedEvidenceError):
        read_certificate(der, tee="t", what="paper")
    with pytest.raises(MalformedEvidenceError):
        read_answer(answer_by(made(GOOD, GOOD), made(subject, issuer)), tee="t")


def test_an_answer_in_such_a_name_is_malformed() -> None:
    with pytest.raises(MalformedEvidenceError):
        read_answer(answer_by(made(LONG, GOOD)), tee="t")


@pytest.mark.parametrize(("machine", "paper"), [("tdx", "pck_crl"), ("sev_snp", "crl"), ("tpm", "ak_crl_1")])
def test_a_list_by_such_a_name_is_malformed(machine: str, paper: str) -> None:
    good = machines()[machine]
    changed = tuple((one, list_by(LONG) if one == paper else data) for one, data in good.item.endorsements)
    with pytest.raises(MalformedEvidenceError) as refusal:
        good.verify(dataclasses.replace(good.item, endorsements=changed), good.now, Checks())
    assert refusal.value.finding_code.endswith(".crl_format")


def test_only_amd_gives_the_serial_number_0() -> None:
    der = certificate(
        "SEV-VCEK", "SEV-Genoa", public_key=KEY.public_key(), signer=rsa_key("a"), serial=0, extensions={}
    )
    read_amd_certificate(der, "vek")
    with pytest.raises(MalformedEvidenceError, match="a positive serial number, found 0"):
        read_certificate(der, tee="t", what="paper")
    negative = der.replace(b"\xa0\x03\x02\x01\x02\x02\x01\x00", b"\xa0\x03\x02\x01\x02\x02\x01\xff", 1)
    with pytest.raises(MalformedEvidenceError, match="a positive serial number, found -1"):
        read_amd_certificate(negative, "vek")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    with pytest.raises(MalformedEvidenceError, match="a positive serial number, found 0"):
        read_pem_chain(pem, tee="t", what="paper")
