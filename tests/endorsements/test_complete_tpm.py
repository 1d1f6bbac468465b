"""The revocation lists that a TPM's certificates name come from a mirror over real HTTP, a fake vendor behind it."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.tpm_vendor import NOW, FakeTpm, FakeVendor
from fakes.vendor_services import Reply, VendorServices, vendor_services

from blindai.attestation.checks import Checks
from blindai.attestation.tee import tpm
from blindai.attestation.tpm2.revocation import RevocationClaims
from blindai.endorsements import complete
from blindai.endorsements.bundle import Recorder, encode_bundle, parse_bundle
from blindai.endorsements.services import Endpoints, Patience, Services
from blindai.errors import EndorsementsUnavailableError, UnauthenticEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.attestation.evidence import EvidenceItem

pytestmark = pytest.mark.network
AT = NOW.timestamp()
URL = "http://www.microsoft.com/pkiops/crl/Azure%20Virtual%20TPM%20Root.crl"
MIRRORED = "/www.microsoft.com/pkiops/crl/Azure%20Virtual%20TPM%20Root.crl"
UNKNOWN = ("http://crl.test/", "ldap://www.microsoft.com/x", "http://www.microsoft.com:8080/x", "http://[crl/x")
VENDOR = FakeVendor(crl_urls=(*UNKNOWN, URL, "http://crl.microsoft.com/other"))


def shown(vendor: FakeVendor = VENDOR, kind: str = "ak") -> EvidenceItem:
    good = FakeTpm()
    good.endorsements = vendor.chain(vendor.certify(good.key), kind)
    return good.item()


@pytest.fixture
def far() -> Iterator[VendorServices]:
    with vendor_services() as services:
        services.replies[MIRRORED] = Reply(body=VENDOR.crl())
        yield services


def near(far: VendorServices) -> Services:
    return Services(endpoints=Endpoints(vendor_crl=far.url), patience=Patience(attempts=1))


def test_the_list_of_each_certificate_comes_from_where_it_says(far: VendorServices) -> None:
    item = shown()
    far.replies[MIRRORED] = Reply(body=VENDOR.crl(end=NOW + timedelta(days=9)))
    completed = complete(item, near(far), now=AT)
    assert far.asked == [MIRRORED]
    assert dict(completed.endorsements) == {**dict(item.endorsements), "ak_crl_1": far_body(far)}
    claims = tpm.verify(completed, AT, Checks(), roots=VENDOR.pinned)
    assert claims.revocation == RevocationClaims(unknown=(), late_s=0)


def far_body(far: VendorServices) -> bytes:
    reply = far.replies[MIRRORED]
    assert isinstance(reply, Reply)
    return reply.body


def test_a_stapled_list_gives_way_to_one_that_revokes(far: VendorServices) -> None:
    far.replies[MIRRORED] = Reply(body=VENDOR.crl(revoked=(VENDOR.intermediate,)))
    completed = complete(shown(), near(far), now=AT)
    with pytest.raises(UnauthenticEvidenceError) as caught:
        tpm.verify(completed, AT, Checks(), roots=VENDOR.pinned)
    assert caught.value.finding_code == "tpm.ak_revoked"


def test_a_list_that_cannot_be_had_is_never_the_stapled_one(far: VendorServices) -> None:
    far.replies.clear()
    with pytest.raises(EndorsementsUnavailableError, match="no such document"):
        complete(shown(), near(far), now=AT)


def test_nobody_is_asked_at_an_address_that_is_no_known_vendors(far: VendorServices) -> None:
    for urls in (UNKNOWN, ("http://www.microsoft.com.test/x",), ("http://www.microsoft.com/x y",)):
        with pytest.raises(EndorsementsUnavailableError, match="names its revocation list at ") as caught:
            complete(shown(FakeVendor(crl_urls=urls)), near(far), now=AT)
        assert "Google's and Microsoft's" in caught.value.hint
    assert far.asked == []


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "http://primary-cdn.pki.core.windows.net/eastus2/crls/current.crl",
        "http://privateca-content-62d71773-0000-21da-852e-f4f5e80d7778.storage.googleapis.com/032b/crl.crl",
    ],
)
def test_without_a_mirror_the_address_itself_is_asked(url: str) -> None:
    vendor, asked = FakeVendor(crl_urls=(url,)), []

    def send(exchange: object) -> None:
        asked.append(exchange.url)  # type: ignore[attr-defined]  # an Exchange
        raise OSError

    services = Services(patience=Patience(attempts=1), send=send)  # type: ignore[arg-type]  # it never answers
    with pytest.raises(EndorsementsUnavailableError):
        complete(shown(vendor), services, now=AT)
    assert asked == [url]


def test_both_keys_chains_have_their_lists(far: VendorServices) -> None:
    both = dataclasses.replace(shown(), endorsements=(*shown().endorsements, *shown(kind="ek").endorsements))
    completed = complete(both, near(far), now=AT)
    assert {name for name, _ in completed.endorsements if "crl" in name} == {"ak_crl_1", "ek_crl_1"}


def test_more_lists_than_can_be_stapled_are_told(far: VendorServices) -> None:
    good, vendor = FakeTpm(), FakeVendor()
    chain = vendor.chain(vendor.certify(good.key, crl_urls=(f"{URL}0",)))
    for number in (1, 2, 3):
        one = vendor.certify(vendor.key, "intermediate", is_ca=True, crl_urls=(f"{URL}{number}",))
        chain[f"ak_intermediate_{number}"] = one.public_bytes(Encoding.DER)
    good.endorsements = chain
    with pytest.raises(EndorsementsUnavailableError, match="names 4 revocation lists, and 3 are known"):
        complete(good.item(), near(far), now=AT)


def test_evidence_without_certificates_needs_nothing(far: VendorServices) -> None:
    bare = FakeTpm().item()
    assert complete(bare, near(far), now=AT) == bare
    assert far.asked == []


def test_a_bundle_holds_them(far: VendorServices) -> None:
    item, recorder = shown(), Recorder(behind=near(far))
    completed = complete(item, recorder, now=AT)
    bundle = parse_bundle(encode_bundle(recorder.answers), name="host")
    far.asked.clear()
    assert complete(item, bundle, now=AT) == completed
    assert far.asked == []
