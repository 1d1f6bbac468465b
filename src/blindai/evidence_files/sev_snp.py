"""Reads an SEV-SNP report with AMD's certificates from a folder (docs/spec/tee/sev_snp.md §7).

In the folder: `report.bin`, with `vcek.der` or `vlek.der` beside it. The rest of the chain and the revocation list are
found by their names inside, in the same folder or in the collateral's, in PEM or DER, whatever the files are called.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.amd.certificates import read_amd_certificate, read_crl
from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee.sev_snp import CRL, INTERMEDIATE, ROOT, TEE, VEK
from blindai.errors import RejectedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cryptography import x509

_SUFFIXES = {".pem", ".der", ".crt", ".cer", ".crl"}
_VEK_FILES = ("vcek.der", "vlek.der")


def read_folder(folder: Path, *, collateral: Path | None = None) -> tuple[EvidenceItem, ...]:
    """The report in a folder, with as much of its chain as the files hold; `verify` says what is missing.

    Raises:
        OSError: there is no `report.bin`, or a file cannot be read.
    """
    vek = next((folder / name for name in _VEK_FILES if (folder / name).is_file()), None)
    endorsements = amd_endorsements(vek.read_bytes(), folder, collateral) if vek else ()
    return (EvidenceItem(tee=TEE, evidence=(folder / "report.bin").read_bytes(), endorsements=endorsements),)


def amd_endorsements(vek: bytes, *folders: Path | None) -> tuple[tuple[str, bytes], ...]:
    """A VCEK's or VLEK's certificate in DER, and from these folders its issuer, its root and the root's CRL.

    Raises:
        OSError: a file cannot be read.
    """
    files = [path.read_bytes() for folder in folders if folder for path in _candidates(folder)]
    by_subject = {one.subject: one for data in files for one in _certificates(data)}
    found = [(VEK, vek)]
    name = next((one.issuer for one in _certificates(vek)), None)
    for role in (INTERMEDIATE, ROOT):
        if name in by_subject:
            found.append((role, by_subject[name].public_bytes(Encoding.DER)))
            name = by_subject[name].issuer
    crl = next((crl for data in files for crl in _crls(data) if crl.issuer == name), None)
    return (*found, (CRL, crl.public_bytes(Encoding.DER))) if crl is not None else tuple(found)


def _candidates(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _certificates(data: bytes) -> list[x509.Certificate]:
    try:
        return [read_amd_certificate(der, "certificate") for der in _ders(data, b"CERTIFICATE")]
    except (RejectedEvidenceError, ValueError):
        return []


def _crls(data: bytes) -> list[x509.CertificateRevocationList]:
    try:
        return [read_crl(der) for der in _ders(data, b"X509 CRL")]
    except (RejectedEvidenceError, ValueError):
        return []


def _ders(data: bytes, label: bytes) -> list[bytes]:
    """The DER in each PEM block of that label, or the whole file if it has no PEM."""
    if b"-----BEGIN " not in data:
        return [data]
    blocks = re.findall(b"-----BEGIN %b-----([^-]*)-----END %b-----" % (label, label), data)
    return [base64.b64decode(block) for block in blocks]
