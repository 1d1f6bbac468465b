"""Quotes without collateral are completed from a PCCS over real HTTP, then verify; a fake Intel stands behind it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from fakes.intel import FakeEvidence
from fakes.intel_pki import CA_MADE, NOW, ROOT_MADE, pck_certificate, pem, pinned
from fakes.vendor_services import Reply, VendorServices, vendor_services

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee import sgx, tdx
from blindai.endorsements import complete
from blindai.endorsements.bundle import Recorder, encode_bundle, parse_bundle
from blindai.endorsements.services import Endpoints, Services
from blindai.errors import EndorsementsUnavailableError, MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.network
AT = NOW.timestamp()
SGX, TDX = "/sgx/certification/v4", "/tdx/certification/v4"
PCK_CRL = f"{SGX}/pckcrl?ca=platform&encoding=der"
GOOD = {"sgx": FakeEvidence(tee="sgx", version=3), "tdx": FakeEvidence()}


@pytest.fixture
def far() -> Iterator[VendorServices]:
    with vendor_services() as services:
        yield services


def near(far: VendorServices) -> Services:
    return Services(endpoints=Endpoints(intel_pcs=f"{far.url}/sgx/certification/v4/"), sleep=lambda _: None)


def signed(member: str, document: bytes, signature: bytes) -> bytes:
    """As Intel's PCS writes it; the signature is over the exact bytes between the colon and the comma."""
    return b'{"%s":%s,"signature":"%s"}' % (member.encode(), document, signature.hex().encode())


def serve(far: VendorServices, evidence: FakeEvidence) -> EvidenceItem:
    """Put a platform's collateral where a PCCS has it; what is left is its quote."""
    item = evidence.item()
    named = dict(item.endorsements)
    base = SGX if item.tee == "sgx" else TDX
    for path, member, name, header in (
        (f"{base}/tcb?fmspc=90C06F000000", "tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain"),
        (f"{base}/qe/identity", "enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain"),
    ):
        far.replies[path] = Reply(
            body=signed(member, named[name], named[f"{name}_signature"]),
            headers={header: quote(named[f"{name}_issuer_chain"])},
        )
    issuers = {"SGX-PCK-CRL-Issuer-Chain": quote(named["pck_crl_issuer_chain"])}
    far.replies[PCK_CRL] = Reply(body=named["pck_crl"], headers=issuers)
    far.replies[f"{SGX}/rootcacrl"] = Reply(body=named["root_ca_crl"].hex().encode())  # as a PCCS writes it
    return dataclasses.replace(item, endorsements=())


def verify(item: EvidenceItem) -> None:
    module = sgx if item.tee == "sgx" else tdx
    module.verify(item, AT, Checks(), roots=pinned())


@pytest.mark.parametrize("tee", GOOD)
def test_the_question_is_built_from_the_quote(far: VendorServices, tee: str) -> None:
    bare = serve(far, GOOD[tee])
    completed = complete(bare, near(far), now=AT)
    assert sorted(far.asked) == sorted(far.replies)
    assert [name for name, _ in completed.endorsements] == [name for name, _ in GOOD[tee].item().endorsements]
    verify(completed)


def test_signed_documents_are_kept_byte_for_byte(far: VendorServices) -> None:
    evidence = FakeEvidence(tcb_info={"id": "TDX"})
    bare = serve(far, evidence)
    spaced = dict(evidence.item().endorsements)["tcb_info"].replace(b'"id":', b'"id" :  ')
    path = f"{TDX}/tcb?fmspc=90C06F000000"
    reply = far.replies[path]
    assert isinstance(reply, Reply)
    far.replies[path] = dataclasses.replace(reply, body=signed("tcbInfo", spaced, b"s" * 64))
    named = dict(complete(bare, near(far), now=AT).endorsements)
    assert (named["tcb_info"], named["tcb_info_signature"]) == (spaced, b"s" * 64)


def test_a_pck_chain_beside_the_quote_is_asked_about_and_stays(far: VendorServices) -> None:
    evidence = dataclasses.replace(GOOD["tdx"], certification=(3, bytes(404)))
    bare = serve(far, evidence)
    with pytest.raises(EndorsementsUnavailableError, match="no PCK certificate"):
        complete(bare, near(far), now=AT)
    chain = pem(pck_certificate(), CA_MADE, ROOT_MADE)
    completed = complete(dataclasses.replace(bare, endorsements=(("pck_chain", chain),)), near(far), now=AT)
    assert dict(completed.endorsements)["pck_chain"] == chain
    verify(completed)


def test_an_unknown_platform_is_told(far: VendorServices) -> None:
    with pytest.raises(EndorsementsUnavailableError, match=r"fmspc=90C06F000000: the service has no such"):
        complete(dataclasses.replace(GOOD["sgx"].item(), endorsements=()), near(far), now=AT)


@pytest.mark.parametrize("signature", [None, 7, "xyz"])
def test_an_answer_without_a_signature_is_refused(far: VendorServices, signature: object) -> None:
    bare = serve(far, GOOD["sgx"])
    path = f"{SGX}/qe/identity"
    reply = far.replies[path]
    assert isinstance(reply, Reply)
    body = json.dumps({**json.loads(reply.body), "signature": signature}).encode()
    far.replies[path] = dataclasses.replace(reply, body=body)
    with pytest.raises(EndorsementsUnavailableError, match="qe_identity has no enclaveIdentity with a signature"):
        complete(bare, near(far), now=AT)


def test_no_quote_is_malformed(far: VendorServices) -> None:
    with pytest.raises(MalformedEvidenceError):
        complete(EvidenceItem(tee="tdx", evidence=b"no", endorsements=()), near(far), now=AT)


def test_a_bundle_answers_as_the_service_did(far: VendorServices) -> None:
    bare = serve(far, GOOD["tdx"])
    recorder = Recorder(behind=near(far))
    completed = complete(bare, recorder, now=AT)
    assert complete(bare, parse_bundle(encode_bundle(recorder.answers), name="b"), now=AT) == completed
