"""What an SGX or TDX quote needs from Intel's PCS or a PCCS (docs/spec/endorsements.md §2; Intel PCS API v4).

The question is built from the PCK certificate, which is in the quote or came beside it: FMSPC and which CA issued it.
Leaves out: whether any of it is genuine, or the right one (attestation/intel/chain.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from blindai.attestation.intel.endorsements import PCK_CHAIN, ROOT_CA_CRL
from blindai.attestation.intel.pck import read_pck
from blindai.attestation.intel.quote import TEE_SGX, TEE_TDX, parse_quote
from blindai.attestation.tee import sgx, tdx
from blindai.attestation.x509_chain import read_pem_chain
from blindai.endorsements.documents import Kind, Resource, Service
from blindai.endorsements.services import INTEL_API, ROOT_CRL_PATH
from blindai.errors import EndorsementsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from blindai.attestation.evidence import EvidenceItem
    from blindai.endorsements.documents import Document, Source

_TCB_INFO_ISSUERS = "TCB-Info-Issuer-Chain"
_IDENTITY_ISSUERS = "SGX-Enclave-Identity-Issuer-Chain"
_CRL_ISSUERS = "SGX-PCK-CRL-Issuer-Chain"
_TDX_API = INTEL_API.replace("sgx", "tdx")
_QUOTES = {
    sgx.TEE: (INTEL_API, TEE_SGX, sgx.VERSIONS),
    tdx.TEE: (_TDX_API, TEE_TDX, tdx.VERSIONS),
}


def intel_endorsements(item: EvidenceItem, source: Source, now: float) -> Mapping[str, bytes]:
    """TCB info, QE identity and revocation lists with their signers' chains, in the encodings of docs/spec/tee/tdx.md.

    Raises:
        EndorsementsUnavailableError: the source lacks one, or there is no PCK certificate to ask about.
        MalformedEvidenceError: not such a quote.
    """
    api, _, _ = _QUOTES[item.tee]
    leaf = _pck(item)
    fmspc = read_pck(leaf, tee=item.tee).fmspc.hex().upper()
    authority = "platform" if "Platform" in leaf.issuer.rfc4514_string() else "processor"
    tcb_info = source.get(_collateral(f"{api}/tcb?fmspc={fmspc}", _TCB_INFO_ISSUERS), now=now)
    identity = source.get(_collateral(f"{api}/qe/identity", _IDENTITY_ISSUERS), now=now)
    crl = source.get(_crl(f"{INTEL_API}/pckcrl?ca={authority}&encoding=der", _CRL_ISSUERS), now=now)
    root_crl = source.get(_crl(ROOT_CRL_PATH), now=now)
    return {
        **_given(item),
        **_signed("tcb_info", "tcbInfo", tcb_info),
        **_signed("qe_identity", "enclaveIdentity", identity),
        "pck_crl": crl.body,
        "pck_crl_issuer_chain": crl.issuers,
        ROOT_CA_CRL: root_crl.body,
    }


def _pck(item: EvidenceItem) -> x509.Certificate:
    _, tee_type, versions = _QUOTES[item.tee]
    quote = parse_quote(item.evidence, tee=item.tee, tee_type=tee_type, versions=versions)
    pem = quote.pck_chain or _given(item).get(PCK_CHAIN)
    if pem is None:
        raise EndorsementsUnavailableError(
            "the quote holds no PCK certificate, and none came with it",
            hint="quotes that name their platform only by an encrypted PPID need the PCK chain from its own PCCS",
        )
    return read_pem_chain(pem, tee=item.tee, what="PCK chain")[0]


def _given(item: EvidenceItem) -> Mapping[str, bytes]:
    """What only the platform itself has: a PCK chain beside a quote that holds none, and a TD's event log."""
    return {name: data for name, data in item.endorsements if name in (PCK_CHAIN, tdx.CCEL)}


def _collateral(path: str, issuers: str) -> Resource:
    return Resource(service=Service.INTEL_PCS, path=path, kind=Kind.COLLATERAL, issuer_header=issuers)


def _crl(path: str, issuers: str = "") -> Resource:
    return Resource(service=Service.INTEL_PCS, path=path, kind=Kind.CRL, issuer_header=issuers)


def _signed(name: str, member: str, document: Document) -> Mapping[str, bytes]:
    """The signature is over the exact bytes of the member, so they are cut out and never written anew."""
    try:
        text = document.body.decode("ascii")
        begin = text.index(f'"{member}":') + len(member) + 3
        _, end = json.JSONDecoder().raw_decode(text, begin)
        signature = bytes.fromhex(json.loads(text)["signature"])
    except (ValueError, KeyError, TypeError):
        raise EndorsementsUnavailableError(
            f"the answer for {name} has no {member} with a signature", hint="is it Intel's PCS or a PCCS of version 4?"
        ) from None
    return {
        name: text[begin:end].encode(),
        f"{name}_signature": signature,
        f"{name}_issuer_chain": document.issuers,
    }
