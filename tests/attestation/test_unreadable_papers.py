"""Certificates and lists of a version that does not exist, or of the year 0: cryptography knows them, up to a point.

It raises an error of its own for such a version, and Python has no such year, so asking for the time fails.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fakes import intel_pki
from fakes.machines import machines

from blindai.attestation.checks import Checks
from blindai.attestation.x509_chain import read_certificate
from blindai.client.transport import spki_digest
from blindai.endorsements.documents import Kind, Resource, Service, read_document
from blindai.errors import MalformedEvidenceError
from blindai.evidence_files.tpm import read_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEQUENCE = 0x30
CERTIFICATE = intel_pki.ROOT_MADE.public_bytes(Encoding.DER).replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\x09", 1)
REVOCATION_LIST = intel_pki.crl(intel_pki.ROOT_NAME, intel_pki.ROOT).replace(b"\2\1\1", b"\2\1\x09", 1)


def of_year_0(der: bytes, which: int) -> bytes:
    """The paper with one of its first two times in the year 0, and with the lengths around it that this needs."""
    at = [found.start() for found in re.finditer(rb"\x17\x0d\d{12}Z", der)][which]
    levels = [at - 2 - 15 * which] if der[at - 2 - 15 * which] == SEQUENCE else []  # a certificate's two stand in one
    changed = bytearray(der)
    changed[at : at + 15] = b"\x18\x0f00000101000000Z"
    for level in levels:
        changed[level + 1] += 2
    for start in (0, 2 + max(0, der[1] - 0x80)):  # the whole, and what is signed of it
        size = max(0, der[start + 1] - 0x80)
        number = slice(start + 2, start + 2 + size) if size else slice(start + 1, start + 2)
        changed[number] = (int.from_bytes(changed[number], "big") + 2).to_bytes(max(1, size), "big")
    return bytes(changed)


def without_beginning() -> bytes:
    return of_year_0(intel_pki.ROOT_MADE.public_bytes(Encoding.DER), 0)


def without_end() -> bytes:
    return of_year_0(intel_pki.ROOT_MADE.public_bytes(Encoding.DER), 1)


def list_without_beginning() -> bytes:
    return of_year_0(intel_pki.crl(intel_pki.ROOT_NAME, intel_pki.ROOT), 0)


def list_without_end() -> bytes:
    return of_year_0(intel_pki.crl(intel_pki.ROOT_NAME, intel_pki.ROOT), 1)


LISTS = [lambda: REVOCATION_LIST, list_without_beginning, list_without_end]


def test_these_papers_are_well_formed_but_for_that() -> None:
    for certificate in (without_beginning(), without_end()):
        assert x509.load_der_x509_certificate(certificate).public_bytes(Encoding.DER) == certificate
    for crl in (list_without_beginning(), list_without_end()):
        assert x509.load_der_x509_crl(crl).public_bytes(Encoding.DER) == crl


@pytest.mark.parametrize("certificate", [lambda: CERTIFICATE, without_beginning, without_end])
def test_such_a_certificate_is_malformed(certificate: Callable[[], bytes]) -> None:
    with pytest.raises(MalformedEvidenceError):
        read_certificate(certificate(), tee="t", what="a certificate")


@pytest.mark.parametrize("crl", LISTS)
@pytest.mark.parametrize(("machine", "name"), [("tdx", "pck_crl"), ("sev_snp", "crl"), ("tpm", "ak_crl_1")])
def test_no_tee_takes_such_a_list(machine: str, name: str, crl: Callable[[], bytes]) -> None:
    good = machines()[machine]
    changed = tuple((one, crl() if one == name else data) for one, data in good.item.endorsements)
    with pytest.raises(MalformedEvidenceError) as refusal:
        good.verify(dataclasses.replace(good.item, endorsements=changed), good.now, Checks())
    assert refusal.value.finding_code.endswith(".crl_format")


def test_a_server_that_shows_one_shows_no_key() -> None:
    assert spki_digest(CERTIFICATE) is None


@pytest.mark.parametrize(("kind", "body"), [(Kind.CERTIFICATE, CERTIFICATE), (Kind.CRL, REVOCATION_LIST)])
def test_a_service_that_answers_with_one_answers_nothing(kind: Kind, body: bytes) -> None:
    with pytest.raises(ValueError, match="bytes that are none"):
        read_document(Resource(service=Service.INTEL_PCS, path="/", kind=kind), body, now=0.0)


def test_a_folder_of_evidence_passes_over_them(tmp_path: Path) -> None:
    good = dict(machines()["tpm"].item.endorsements)
    files = {"quote.msg": b"x", "ak_cert.der": good["ak_certificate"], "a.crt": CERTIFICATE, "a.crl": REVOCATION_LIST}
    for name, data in {**files, "b.crt": good["ak_intermediate_1"], "b.crl": good["ak_crl_1"]}.items():
        (tmp_path / name).write_bytes(data)
    (item,) = read_folder(tmp_path)
    assert {"ak_certificate", "ak_intermediate_1"} <= dict(item.endorsements).keys()
