"""What a GPU's report needs from NVIDIA: RIMs of its firmware, and OCSP answers (docs/spec/endorsements.md §2).

The report names the RIMs; the device's certificates come with it, since no service has them. OCSP is asked without a
nonce, so that an answer can be stapled and kept until the responder's next update.
Leaves out: whether any of it is genuine, or the right one (attestation/tee/nvidia_gpu.py).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote

from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from blindai.attestation.nvidia.report import TEE, parse
from blindai.attestation.nvidia.rim import load_xml_tools, read_rim
from blindai.attestation.tee.nvidia_gpu import DEVICE_CHAIN, DRIVER_RIM, VBIOS_RIM
from blindai.attestation.x509_chain import read_pem_chain
from blindai.endorsements.documents import Kind, Resource, Service
from blindai.errors import EndorsementsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cryptography import x509

    from blindai.attestation.evidence import EvidenceItem
    from blindai.endorsements.documents import Source


def nvidia_endorsements(item: EvidenceItem, source: Source, now: float) -> Mapping[str, bytes]:
    """The device's certificates as they came, its RIMs, and an OCSP answer about each certificate that has one.

    Raises:
        EndorsementsUnavailableError: the source lacks one, or the device's certificates did not come along.
        MalformedEvidenceError: not a report, or no certificates.
    """
    device, chain_pem = parse(item.evidence).device, dict(item.endorsements).get(DEVICE_CHAIN)
    if chain_pem is None:
        raise EndorsementsUnavailableError(
            "the device's certificates stand on no public service, and none came with the evidence",
            hint="the machine reads them from the device (NVML) and sends them with its report",
        )
    named = {DRIVER_RIM: device.driver_rim, VBIOS_RIM: device.vbios_rim}
    rims = {name: _rim(published, source, now) for name, published in named.items() if published}
    # The leaf is the device's own: it changes with the firmware, and NVIDIA answers only for what it issued.
    chains = [read_pem_chain(chain_pem, tee=TEE, what="the device's certificates")[1:], *_rim_chains(rims.values())]
    return {DEVICE_CHAIN: chain_pem, **rims, **_answers(chains, source, now)}


def _rim(name: str, source: Source, now: float) -> bytes:
    resource = Resource(service=Service.NVIDIA_RIM, path=f"/v1/rim/{quote(name, safe='')}", kind=Kind.RIM)
    return source.get(resource, now=now).body


def _rim_chains(rims: Iterable[bytes]) -> list[tuple[x509.Certificate, ...]]:
    """Without the extra [nvidia] nobody here can read a RIM, and its signers are not asked about."""
    tools = load_xml_tools()
    return [read_rim(rim, tools).chain for rim in rims] if tools else []


def _answers(chains: Sequence[Sequence[x509.Certificate]], source: Source, now: float) -> Mapping[str, bytes]:
    links = dict.fromkeys(link for chain in chains for link in pairwise(chain))
    return {f"ocsp_{number}": source.get(ocsp_resource(*link), now=now).body for number, link in enumerate(links)}


def ocsp_resource(certificate: x509.Certificate, issuer: x509.Certificate) -> Resource:
    """The question about one certificate (RFC 6960 §4.1), with SHA-384 as NVIDIA's own tools ask."""
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, SHA384()).build()
    return Resource(service=Service.NVIDIA_OCSP, path="/", kind=Kind.OCSP, post=request.public_bytes(Encoding.DER))
