"""What vendors really published is read and put beside evidence as it must be: every sample, completed from a source.

The source stands in for the network alone: it answers the questions that the fetchers ask with the samples' own files.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from attestation.intel_samples import quote_of
from attestation.samples import COLLATERAL, EVIDENCE, meta_of, needs_evidence, sample_folders, unix_seconds
from cryptography.x509 import ocsp

from blindai.attestation.checks import Checks
from blindai.attestation.tee import TEES
from blindai.endorsements import complete
from blindai.endorsements.documents import Document, Kind, Resource, Service, read_document
from blindai.endorsements.services import MissingDocumentError
from blindai.evidence_files import read_sample, sev_snp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blindai.attestation.evidence import EvidenceItem

pytestmark = needs_evidence
TOLD = "told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A source that answers from bytes; a path may be known by how it begins."""

    bodies: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    answers: dict[int, bytes] = field(default_factory=dict)

    def get(self, resource: Resource, *, now: float) -> Document:
        """The document whose path begins so, or the OCSP answer about that serial number."""
        if resource.post:
            body, issuers = self.answers[ocsp.load_der_ocsp_request(resource.post).serial_number], b""
        else:
            found = [answer for path, answer in self.bodies.items() if resource.path.startswith(path)]
            if not found:
                raise MissingDocumentError(resource.path)
            body, issuers = found[0]
        return read_document(resource, body, issuers=issuers, now=now)


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("amd/*.der", Kind.CRL),
        ("amd/*.pem", Kind.CHAIN),
        ("intel/crl_*.der", Kind.CRL),
        ("intel/*.pem", Kind.CHAIN),
        ("../sev-snp/*/vcek.der", Kind.CERTIFICATE),
        ("../nvidia/*/ocsp/*.der", Kind.OCSP),
        ("../nvidia/*/rim/*.xml", Kind.RIM),
    ],
)
def test_every_published_document_is_read(pattern: str, kind: Kind, tell: Callable[[str], None]) -> None:
    paths = sorted(COLLATERAL.glob(pattern))
    resource = Resource(service=Service.AMD_KDS, path="/", kind=kind)
    documents = [read_document(resource, path.read_bytes(), now=0.0) for path in paths]
    assert documents
    assert all(document.expires_at > 0 for document in documents)
    tell(f"{len(documents)} of {pattern}")


def claims_of(item: EvidenceItem, now: float) -> object:
    return TEES[item.tee].verify(item, now, Checks())


def bare(item: EvidenceItem, *kept: str) -> EvidenceItem:
    return dataclasses.replace(
        item, endorsements=tuple((name, data) for name, data in item.endorsements if name in kept)
    )


def test_sev_snp_samples_are_completed(tell: Callable[[str], None]) -> None:
    chains = {
        f"/{key}/v1/{product}/cert_chain": COLLATERAL / f"amd/{product.lower()}_{key}_{issuer}_ark.pem"
        for key, issuer in (("vcek", "ask"), ("vlek", "asvk"))
        for product in ("Milan", "Genoa", "Turin")
    }
    crls = {
        f"/{key}/v1/{product}/crl": COLLATERAL / f"amd/{product.lower()}_crl.der"
        for key in ("vcek", "vlek")
        for product in ("Milan", "Genoa")
    }
    bodies = {path: (file.read_bytes(), b"") for path, file in (chains | crls).items()}
    completed = 0
    for folder in sample_folders("sev-snp"):
        (item,) = sev_snp.read_folder(folder, collateral=COLLATERAL / "amd")
        given = dict(item.endorsements)
        if "crl" not in given:  # AMD's list for Turin is not among the files
            continue
        source = Files(bodies=bodies | {"/vcek/v1/": (given["vek"], b"")})
        now = unix_seconds(meta_of(folder)["verify_at"][0])
        anew = complete(bare(item, "vek") if (folder / "vlek.der").exists() else bare(item), source, now=now)
        assert anew.endorsements == tuple(sorted(item.endorsements))
        completed += 1
    assert completed > 0
    tell(f"{completed} SEV-SNP samples")


def pcs(collateral: Path, tee: str) -> Files:
    """A file of collateral as Intel's PCS serves it."""
    members = json.loads(collateral.read_bytes())

    def signed(member: str, name: str) -> tuple[bytes, bytes]:
        text = f'{{"{member}":{members[name]},"signature":"{members[f"{name}_signature"]}"}}'
        return text.encode(), members[f"{name}_issuer_chain"].encode()

    return Files(
        bodies={
            f"/{tee}/certification/v4/tcb": signed("tcbInfo", "tcb_info"),
            f"/{tee}/certification/v4/qe/identity": signed("enclaveIdentity", "qe_identity"),
            "/sgx/certification/v4/pckcrl": (members["pck_crl"].encode(), members["pck_crl_issuer_chain"].encode()),
            "/sgx/certification/v4/rootcacrl": (members["root_ca_crl"].encode(), b""),
        }
    )


@pytest.mark.parametrize("tee", ["sgx", "tdx"])
def test_quotes_are_completed_in_every_run(tee: str, tell: Callable[[str], None]) -> None:
    completed = 0
    for folder in sample_folders(tee):
        for run in meta_of(folder)["runs"]:
            now, collateral = unix_seconds(run["verify_at"]), folder / run["collateral"]
            (item,) = read_sample(folder, now=now, collateral=collateral).items
            item = dataclasses.replace(item, evidence=quote_of(folder, "quote.bin")[0])
            if run["expect"]["signatures_and_chain"] != "valid":
                continue
            anew = complete(bare(item, "ccel"), pcs(collateral, tee), now=now)  # an event log is the guest's own
            assert claims_of(anew, now) == claims_of(item, now)
            completed += 1
    assert completed > 0
    tell(f"{completed} runs of {tee}")


def test_a_gpus_rims_and_answers_are_completed() -> None:
    folder = EVIDENCE / "nvidia" / "h100-550.90.07-full"
    now = unix_seconds(meta_of(folder)["verify_at"][0])
    (item,) = read_sample(folder, now=now).items
    named = dict(item.endorsements)
    answers = {}
    for name in (name for name in named if name.startswith("ocsp_")):
        answers[ocsp.load_der_ocsp_response(named[name]).serial_number] = named[name]
    source = Files(
        bodies={
            "/v1/rim/NV_GPU_DRIVER_GH100_550.90.07": (named["driver_rim"], b""),
            "/v1/rim/NV_GPU_VBIOS_1010_0200_882_96009F0001": (named["vbios_rim"], b""),
        },
        answers=answers,
    )
    anew = complete(bare(item, "device_chain"), source, now=now)
    assert {name for name in dict(anew.endorsements) if not name.startswith("ocsp_")} == {
        "device_chain",
        "driver_rim",
        "vbios_rim",
    }
    assert claims_of(anew, now)
