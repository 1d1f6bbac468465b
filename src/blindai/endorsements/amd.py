"""What an SEV-SNP report needs from AMD's key distribution service (docs/spec/endorsements.md §2; AMD 57230 §4).

The question is built from the report: product from its CPUID, chip id, and the reported TCB part by part.
Leaves out: whether any of it is genuine, or the right one (attestation/tee/sev_snp.py).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from blindai.attestation.amd.report import parse
from blindai.attestation.amd.tcb import Product, product_of, read_tcb
from blindai.attestation.tee.sev_snp import CRL, INTERMEDIATE, ROOT, VEK
from blindai.attestation.x509_chain import UNREADABLE
from blindai.endorsements.documents import Kind, Resource, Service
from blindai.endorsements.services import MissingDocumentError
from blindai.errors import EndorsementsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blindai.attestation.amd.report import Report
    from blindai.attestation.evidence import EvidenceItem
    from blindai.endorsements.documents import Source

_VCEK, _VLEK = 0, 1
_TURIN_HWID_BYTES = 8


def amd_endorsements(item: EvidenceItem, source: Source, now: float) -> Mapping[str, bytes]:
    """VCEK, issuer, root and revocation list, all in DER; a VLEK stays the one that came with the evidence.

    Raises:
        EndorsementsUnavailableError: the source lacks one, or the chip hides its id, or a VLEK did not come along.
        MalformedEvidenceError: not a report.
    """
    report, given = parse(item.evidence), dict(item.endorsements)
    if report.signing_key == _VLEK:
        return _with_vlek(report, given.get(VEK), source, now)
    missing: MissingDocumentError | None = None
    for product in _products(report):
        try:
            vcek = _vcek(report, product, source, now) or given.get(VEK)
        except MissingDocumentError as error:
            missing = error
            continue
        if vcek is None:
            raise _unavailable("the report hides the chip's id, so its VCEK cannot be asked for")
        return {VEK: vcek, **_issuers(product, "vcek", source, now)}
    raise missing or _unavailable("no product line of AMD's is known for the CPU that the report names")


def _with_vlek(report: Report, vlek: bytes | None, source: Source, now: float) -> Mapping[str, bytes]:
    """Its own issuer's name says the product, if the report does not."""
    if vlek is None:
        raise _unavailable("a VLEK stands on no public service, and none came with the evidence")
    for product in _products(report):
        issuers = _issuers(product, "vlek", source, now)
        if _certificate(issuers[INTERMEDIATE]).subject == _certificate(vlek).issuer:
            return {VEK: vlek, **issuers}
    raise _unavailable("the VLEK that came with the evidence is not of the CPU's product line")


def _products(report: Report) -> tuple[Product, ...]:
    """Reports of version 2 name no CPU; they are older than Turin."""
    if report.cpuid is None:
        return (Product.MILAN, Product.GENOA)
    product = product_of(report.cpuid)
    return (product,) if product else ()


def _vcek(report: Report, product: Product, source: Source, now: float) -> bytes | None:
    """None if the report hides the chip's id."""
    return source.get(vcek_resource(report, product), now=now).body if any(report.chip_id) else None


def vcek_resource(report: Report, product: Product) -> Resource:
    """Where the VCEK is: each security patch level in decimal; Turin has one more, and a shorter id."""
    tcb = read_tcb(report.reported_tcb, product)
    levels = {"blSPL": tcb.bootloader, "teeSPL": tcb.tee, "snpSPL": tcb.snp, "ucodeSPL": tcb.microcode}
    chip_id = report.chip_id
    if product is Product.TURIN:
        levels, chip_id = {"fmcSPL": tcb.fmc, **levels}, chip_id[:_TURIN_HWID_BYTES]
    query = "&".join(f"{name}={level:02d}" for name, level in levels.items())
    path = f"/vcek/v1/{product.value}/{chip_id.hex()}?{query}"
    return Resource(service=Service.AMD_KDS, path=path, kind=Kind.CERTIFICATE)


def _issuers(product: Product, key: str, source: Source, now: float) -> Mapping[str, bytes]:
    base = f"/{key}/v1/{product.value}"
    chain = source.get(Resource(service=Service.AMD_KDS, path=f"{base}/cert_chain", kind=Kind.CHAIN), now=now)
    crl = source.get(Resource(service=Service.AMD_KDS, path=f"{base}/crl", kind=Kind.CRL), now=now)
    named = dict(_roles(chain.body))
    if named.keys() != {INTERMEDIATE, ROOT}:
        raise _unavailable(f"{base}/cert_chain does not hold one issuer and one root")
    return {**named, CRL: crl.body}


def _roles(pem: bytes) -> Iterator[tuple[str, bytes]]:
    for certificate in x509.load_pem_x509_certificates(pem):
        name = ROOT if certificate.subject == certificate.issuer else INTERMEDIATE
        yield name, certificate.public_bytes(Encoding.DER)


def _certificate(der: bytes) -> x509.Certificate:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # AMD's serial numbers are 0
            return x509.load_der_x509_certificate(der)
    except UNREADABLE:
        raise _unavailable("the VLEK that came with the evidence is no certificate") from None


def _unavailable(what: str) -> EndorsementsUnavailableError:
    return EndorsementsUnavailableError(what, hint="ask the operator to send AMD's certificates with the evidence")
