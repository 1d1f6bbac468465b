"""Certificates and lists of a version that does not exist: cryptography raises an error of its own for them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes import intel_pki
from fakes.machines import machines

from blindai.attestation.checks import Checks
from blindai.attestation.tpm2.revocation import read_crl
from blindai.attestation.x509_chain import read_certificate
from blindai.client.transport import spki_digest
from blindai.endorsements.documents import Kind, Resource, Service, read_document
from blindai.errors import MalformedEvidenceError
from blindai.evidence_files.tpm import read_folder

if TYPE_CHECKING:
    from pathlib import Path

CERTIFICATE = intel_pki.ROOT_MADE.public_bytes(Encoding.DER).replace(b"\xa0\3\2\1\2", b"\xa0\3\2\1\x09", 1)
REVOCATION_LIST = intel_pki.crl(intel_pki.ROOT_NAME, intel_pki.ROOT).replace(b"\2\1\1", b"\2\1\x09", 1)


def test_evidence_with_one_is_malformed() -> None:
    with pytest.raises(MalformedEvidenceError):
        read_certificate(CERTIFICATE, tee="t", what="a certificate")
    with pytest.raises(MalformedEvidenceError):
        read_crl(REVOCATION_LIST, tee="tpm")


@pytest.mark.parametrize(("machine", "name"), [("tdx", "pck_crl"), ("sev_snp", "crl"), ("tpm", "ak_crl_1")])
def test_no_tee_takes_a_list_of_an_unknown_version(machine: str, name: str) -> None:
    good = machines()[machine]
    changed = tuple((one, REVOCATION_LIST if one == name else data) for one, data in good.item.endorsements)
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
