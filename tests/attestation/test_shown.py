"""What a value shows of itself: long and private bytes stand in no message and no traceback."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import TYPE_CHECKING

import blindai.attestation

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN = {
    "amd.report.Report": {"signed", "signature"},
    "aws.cose_sign1.CoseSign1": {"payload", "signature"},
    "aws.nitro_document.AttestationDocument": {"certificate", "ca_bundle"},
    "azure.hcl.HclReport": {"hardware_report", "runtime_data"},
    "azure.hcl.RuntimeClaims": {"attestation_key"},
    "evidence.AttestationDocument": {"keyset"},
    "evidence.EvidenceItem": {"evidence", "endorsements"},
    "intel.endorsements.Endorsements": {"pck_chain", "pck_crl_issuer_chain"},
    "intel.endorsements.RevocationList": {"crl", "serials"},
    "intel.endorsements.SignedDocument": {"data", "signature", "chain"},
    "intel.quote.Quote": {
        "signed",
        "signature",
        "attestation_key",
        "qe_report_raw",
        "qe_report_signature",
        "qe_auth_data",
        "pck_chain",
    },
    "manifest.Manifest": {"tees"},
    "nvidia.report.NvidiaReport": {"measurements", "signed", "signature"},
    "nvidia.rim.Rim": {"golden"},
    "nvidia.rim.SealedRim": {"root"},
    "policy_file.Section": {"text", "members", "inherited"},
    "tee.azure_vtpm.AzureVtpmEvidence": {"hcl_report", "quote", "signature", "pcr_values", "event_log"},
    "tee.nvidia_gpu.NvidiaGpuClaims": {"measurements"},
    "tee.sev_snp.SevSnpClaims": {"chip_id"},
    "tee.simulation.SimulatedEvidence": {"signed", "signature"},
    "tee.tpm.TpmEvidence": {"quote", "signature", "ak_public", "ak_parent", "pcr_values", "event_log"},
    "tpm2.certificates.VendorChain": {"certificates", "crls"},
    "tpm2.credential.Credential": {"blob", "encrypted_seed"},
    "tpm2.event_log.Event": {"data"},
    "tpm2.keys.TpmPublic": {"key"},
    "tpm2.keys.TpmSignature": {"value"},
    "tpm2.quote.Quote": {"signed"},
}
# Of every claims' class: what it is bound to.
OF_CLAIMS = {"bound"}
# `Section`'s, which this one only answers questions for.
OF_SECTIONS = {"policy_tees._Question"}


def hidden() -> Iterator[tuple[str, set[str]]]:
    """Each dataclass of `attestation/` that has a field which is not shown."""
    prefix = f"{blindai.attestation.__name__}."
    for module in pkgutil.walk_packages(blindai.attestation.__path__, prefix):
        for name, one in vars(importlib.import_module(module.name)).items():
            if isinstance(one, type) and one.__module__ == module.name and dataclasses.is_dataclass(one):
                fields = {field.name for field in dataclasses.fields(one) if not field.repr}
                if fields:
                    yield f"{module.name.removeprefix(prefix)}.{name}", fields


def test_long_and_private_values_are_not_shown() -> None:
    found = {name: fields - OF_CLAIMS for name, fields in hidden() if name not in OF_SECTIONS}
    assert {name: fields for name, fields in found.items() if fields} == HIDDEN
    claims = {name for name, fields in hidden() if fields & OF_CLAIMS}
    assert claims == {
        "evidence.Claims",
        "intel.policy.IntelClaims",
        "tee.azure_vtpm.AzureVtpmClaims",
        "tee.nitro.NitroClaims",
        "tee.nvidia_gpu.NvidiaGpuClaims",
        "tee.sev_snp.SevSnpClaims",
        "tee.sgx.SgxClaims",
        "tee.simulation.SimulationClaims",
        "tee.tdx.TdxClaims",
        "tee.tpm.TpmClaims",
    }
