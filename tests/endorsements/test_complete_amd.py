"""Evidence without endorsements is completed from a KDS, then verifies: over real HTTP, a fake AMD behind it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.amd import NOW, FakeMachine, pinned
from fakes.vendor_services import Reply, VendorServices, vendor_services

from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee import sev_snp
from blindai.endorsements import complete
from blindai.endorsements.bundle import Recorder, encode_bundle, parse_bundle
from blindai.endorsements.services import Endpoints, Services
from blindai.errors import EndorsementsUnavailableError, MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.network
AT = NOW.timestamp()
LEVELS = {
    "Milan": "blSPL=04&teeSPL=00&snpSPL=27&ucodeSPL=222",
    "Genoa": "blSPL=10&teeSPL=00&snpSPL=27&ucodeSPL=86",
    "Turin": "fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=80",
}
HWID = {"Milan": bytes(range(64)).hex(), "Genoa": bytes(range(64)).hex(), "Turin": bytes(range(8)).hex()}


@pytest.fixture
def far() -> Iterator[VendorServices]:
    with vendor_services() as services:
        yield services


def near(far: VendorServices) -> Services:
    return Services(endpoints=Endpoints(amd_kds=far.url), sleep=lambda _: None)


def vcek_path(product: str) -> str:
    return f"/vcek/v1/{product}/{HWID[product]}?{LEVELS[product]}"


def serve(far: VendorServices, machine: FakeMachine, key: str = "vcek") -> EvidenceItem:
    """Put a machine's documents where AMD has them; what is left is its report."""
    item = machine.item()
    named = dict(item.endorsements)
    chain = b"".join(
        x509.load_der_x509_certificate(named[role]).public_bytes(Encoding.PEM) for role in ("intermediate", "root")
    )
    if key == "vcek":
        far.replies[vcek_path(machine.product)] = Reply(body=named["vek"])
    far.replies[f"/{key}/v1/{machine.product}/cert_chain"] = Reply(body=chain)
    far.replies[f"/{key}/v1/{machine.product}/crl"] = Reply(body=named["crl"])
    return dataclasses.replace(item, endorsements=())


def verified(item: EvidenceItem) -> sev_snp.SevSnpClaims:
    return sev_snp.verify(item, AT, Checks(), roots=pinned(item))


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_the_question_is_built_from_the_report(far: VendorServices, product: str) -> None:
    bare = serve(far, FakeMachine(product=product))
    completed = complete(bare, near(far), now=AT)
    assert far.asked[0] == vcek_path(product)
    assert verified(completed).bound == b"d" * 64
    assert completed.evidence == bare.evidence


def test_stapled_endorsements_give_way(far: VendorServices) -> None:
    bare = serve(far, FakeMachine())
    stale = dataclasses.replace(bare, endorsements=(("crl", b"old"), ("vek", b"other")))
    assert complete(stale, near(far), now=AT) == complete(bare, near(far), now=AT)


def test_a_report_that_names_no_cpu_is_asked_about_at_both_products(far: VendorServices) -> None:
    machine = FakeMachine(fields={"version": 2, "cpuid": bytes(3), "launch_mit_vector": 0, "current_mit_vector": 0})
    completed = complete(serve(far, machine), near(far), now=AT)
    milan = f"/vcek/v1/Milan/{HWID['Milan']}?{LEVELS['Genoa']}"  # the same levels, in the same layout
    assert far.asked[:2] == [milan, vcek_path("Genoa")]
    verified(completed)


def test_a_chip_that_amd_does_not_know_is_told(far: VendorServices) -> None:
    with pytest.raises(EndorsementsUnavailableError, match="no such document"):
        complete(dataclasses.replace(FakeMachine().item(), endorsements=()), near(far), now=AT)


def test_a_vlek_stays_the_one_that_came(far: VendorServices) -> None:
    machine = FakeMachine(key="VLEK")
    bare = serve(far, machine, key="vlek")
    with pytest.raises(EndorsementsUnavailableError, match="VLEK stands on no public service"):
        complete(bare, near(far), now=AT)
    vlek = dict(machine.item().endorsements)["vek"]
    completed = complete(dataclasses.replace(bare, endorsements=(("vek", vlek),)), near(far), now=AT)
    assert dict(completed.endorsements)["vek"] == vlek
    verified(completed)


@pytest.mark.parametrize("vlek", [b"nonsense", None])
def test_a_vlek_of_something_else_is_refused(far: VendorServices, vlek: bytes | None) -> None:
    bare = serve(far, FakeMachine(key="VLEK"), key="vlek")
    other = vlek or FakeMachine(key="VLEK", product="Milan").chain()["vek"]
    with pytest.raises(EndorsementsUnavailableError, match="the VLEK that came with the evidence is"):
        complete(dataclasses.replace(bare, endorsements=(("vek", other),)), near(far), now=AT)


def test_a_hidden_chip_keeps_the_vcek_that_came(far: VendorServices) -> None:
    machine = FakeMachine(fields={"chip_id": bytes(64), "key_info": 2})
    bare = serve(far, machine)
    with pytest.raises(EndorsementsUnavailableError, match="hides the chip's id"):
        complete(bare, near(far), now=AT)
    vcek = dict(machine.item().endorsements)["vek"]
    completed = complete(dataclasses.replace(bare, endorsements=(("vek", vcek),)), near(far), now=AT)
    assert dict(completed.endorsements)["vek"] == vcek


def test_a_cpu_that_nobody_knows_is_told(far: VendorServices) -> None:
    machine = FakeMachine(fields={"cpuid": b"\x17\x01\x01"})
    with pytest.raises(EndorsementsUnavailableError, match="no product line"):
        complete(serve(far, machine), near(far), now=AT)


def test_a_chain_of_another_form_is_refused(far: VendorServices) -> None:
    bare = serve(far, FakeMachine())
    path = "/vcek/v1/Genoa/cert_chain"
    reply = far.replies[path]
    assert isinstance(reply, Reply)
    far.replies[path] = Reply(body=reply.body[: reply.body.index(b"-----END") + len("-----END CERTIFICATE-----\n")])
    with pytest.raises(EndorsementsUnavailableError, match="one issuer and one root"):
        complete(bare, near(far), now=AT)


def test_no_report_is_malformed(far: VendorServices) -> None:
    with pytest.raises(MalformedEvidenceError):
        complete(EvidenceItem(tee="sev_snp", evidence=b"no", endorsements=()), near(far), now=AT)


def test_a_bundle_answers_as_the_service_did(far: VendorServices) -> None:
    bare = serve(far, FakeMachine())
    recorder = Recorder(behind=near(far))
    completed = complete(bare, recorder, now=AT)
    bundle = parse_bundle(encode_bundle(recorder.answers), name="host.endorsements.json")
    assert complete(bare, bundle, now=AT + 10**9) == completed


def test_evidence_that_carries_everything_is_left_as_it_is(far: VendorServices) -> None:
    item = EvidenceItem(tee="simulation", evidence=b"", endorsements=(("root", b""),))
    assert complete(item, near(far), now=AT) is item
    assert far.asked == []
