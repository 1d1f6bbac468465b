"""Reads an Azure virtual machine's evidence from a folder: the CPU's item, and the vTPM's beside it.

In the folder: `hcl_report.bin` (NV index 0x01400001), `tpm_quote.msg`, `tpm_quote.sig` (a bare RSA signature, or a
TPMT_SIGNATURE), `pcrs_sha256.json`; with SEV-SNP `vcek.der`; with TDX `td_quote.bin`; perhaps `ak_cert.der` and
`eventlog.bin`. Certificates of issuers are found by their names inside, whatever their files are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.azure.hcl import TDX, parse_hcl
from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee import sev_snp, tdx
from blindai.attestation.tee.azure_vtpm import TEE, AzureVtpmEvidence, encode
from blindai.evidence_files.intel_collateral_file import read_collateral
from blindai.evidence_files.sev_snp import amd_endorsements
from blindai.evidence_files.tpm import pcr_values, vendor_endorsements

if TYPE_CHECKING:
    from pathlib import Path

# TPMT_SIGNATURE (TPM 2.0 Library, Part 2, 11.3.4) of RSASSA with SHA-256, up to the signature's size: what Azure's AK
# makes, and what tools that print a bare signature leave out.
_RSASSA_SHA256 = bytes.fromhex("0014000b")
_RSA_BYTES = (256, 384, 512)


def read_folder(
    folder: Path, *, collateral: Path | None = None, certificates: Path | None = None
) -> tuple[EvidenceItem, ...]:
    """The CPU's item and the vTPM's; an AK's certificate is among the latter's endorsements if its root is found.

    Args:
        folder: the sample's.
        collateral: a folder of AMD's certificates, or one file of Intel's collateral; if none is given, the folder's
            only `collateral*.json`, if it has just one.
        certificates: a folder of Microsoft's certificates.

    Raises:
        MalformedEvidenceError: the HCL report, the PCR values or the collateral cannot be read.
        OSError: a file cannot be read.
    """
    hcl_report = (folder / "hcl_report.bin").read_bytes()
    hcl = parse_hcl(hcl_report)
    folders = tuple(place for place in (collateral, certificates) if place and place.is_dir())
    cpu = _read_tdx(folder, collateral) if hcl.hardware == TDX else _read_snp(folder, hcl.hardware_report, *folders)
    evidence = AzureVtpmEvidence(
        hcl_report=hcl_report,
        quote=(folder / "tpm_quote.msg").read_bytes(),
        signature=_signature((folder / "tpm_quote.sig").read_bytes()),
        pcr_values=pcr_values(folder, ""),
        event_log=_optional(folder / "eventlog.bin"),
    )
    chain = tuple(vendor_endorsements(folder, "ak", "ak_cert*.der", *folders))
    endorsements = chain if "ak_root" in dict(chain) else ()
    return (cpu, EvidenceItem(tee=TEE, evidence=encode(evidence), endorsements=endorsements))


def _read_tdx(folder: Path, collateral: Path | None) -> EvidenceItem:
    files = [collateral] if collateral and collateral.is_file() else sorted(folder.glob("collateral*.json"))
    endorsements = read_collateral(files[0], tee=tdx.TEE) if len(files) == 1 else ()
    return EvidenceItem(tee=tdx.TEE, evidence=(folder / "td_quote.bin").read_bytes(), endorsements=endorsements)


def _read_snp(folder: Path, report: bytes, *folders: Path) -> EvidenceItem:
    vek = _optional(folder / "vcek.der")
    endorsements = amd_endorsements(vek, folder, *folders) if vek else ()
    return EvidenceItem(tee=sev_snp.TEE, evidence=report, endorsements=endorsements)


def _optional(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _signature(data: bytes) -> bytes:
    """As a TPMT_SIGNATURE."""
    return _RSASSA_SHA256 + len(data).to_bytes(2, "big") + data if len(data) in _RSA_BYTES else data
