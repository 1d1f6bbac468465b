"""A client that insists on its own endorsements judges by those, whatever the server staples, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING

import pytest
from cli.in_process import blindai_here
from fakes import snp_site
from fakes.snp_site import CRL_PATH, POLICY, SnpDevice, accepting, endorsements, publish, revoking, trust_fake_amd
from fakes.vendor_services import Reply, VendorServices, vendor_services

import blindai
from blindai import AsyncClient, Client, Endorsements
from blindai.client import BlindAiClient
from blindai.endorsements import complete
from blindai.endorsements.bundle import Recorder, encode_bundle
from blindai.endorsements.services import Endpoints, Patience, Services
from blindai.errors import (
    EndorsementsUnavailableError,
    InvalidInputError,
    PolicyViolationError,
    RejectedEvidenceError,
    UnauthenticEvidenceError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.network


@pytest.fixture(scope="module", autouse=True)
def _trusted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        trust_fake_amd(patch)
        yield


@pytest.fixture(scope="module")
def device() -> SnpDevice:
    return SnpDevice()


@pytest.fixture(scope="module")
def url(device: SnpDevice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that staples what the machine's owner gave it."""
    with snp_site.site(device, tmp_path_factory.mktemp("site")) as (url, _):
        yield url


@pytest.fixture(autouse=True)
def _stapled(device: SnpDevice) -> None:
    device.stapled = endorsements()


@pytest.fixture
def far() -> Iterator[VendorServices]:
    with vendor_services() as services:
        publish(services)
        yield services


def impatient(far: VendorServices) -> Services:
    """A source that does not wait between attempts."""
    return Services(endpoints=Endpoints(amd_kds=far.url), patience=Patience(first_wait_s=0.0))


def codes(client: Client | AsyncClient) -> set[str]:
    return {finding.code for finding in client.attestation.findings}


def test_without_it_what_the_server_staples_is_judged(url: str, far: VendorServices) -> None:
    with blindai.connect(url, policy=accepting()) as client:
        assert client.attestation.level == "fresh"
    assert far.asked == []


def test_the_vendor_is_asked_and_believed_before_the_server(url: str, far: VendorServices) -> None:
    far.replies[CRL_PATH] = Reply(body=revoking())  # the stapled list, a day older, names nobody
    blindai.connect(url, policy=accepting()).close()
    with pytest.raises(RejectedEvidenceError) as caught:
        blindai.connect(url, policy=accepting(), endorsements=Endorsements(fetch=True, amd_kds=far.url))
    assert caught.value.finding_code == "sev_snp.revoked"


def test_a_server_that_staples_nothing_is_judged_by_the_clients_own(
    url: str, device: SnpDevice, far: VendorServices
) -> None:
    device.stapled = {}
    with pytest.raises(RejectedEvidenceError):
        blindai.connect(url, policy=accepting())
    with blindai.connect(url, policy=accepting(), endorsements=Endorsements(fetch=True, amd_kds=far.url)) as client:
        assert "sev_snp.crl" in codes(client)
        assert dict(client._connection.attested.document.evidence[0].endorsements) == endorsements()  # type: ignore[union-attr]  # what a proof would show


def test_what_was_stapled_is_never_taken_instead(url: str, far: VendorServices) -> None:
    del far.replies[CRL_PATH]
    with pytest.raises(EndorsementsUnavailableError) as caught:
        blindai.connect(url, policy=accepting(), endorsements=impatient(far))
    assert "your own endorsements for the sev_snp evidence cannot be had" in str(caught.value)
    assert f"{far.url}{CRL_PATH}" in str(caught.value)
    assert "leave out `endorsements` (--fetch, --endorsements) to judge by what the server staples" in caught.value.hint


def test_a_service_that_does_not_answer_ends_it(url: str, far: VendorServices) -> None:
    far.replies[CRL_PATH] = Reply(status=503)
    with pytest.raises(EndorsementsUnavailableError, match="status 503, 4 times"):
        Client(url, policy=accepting(), endorsements=impatient(far))
    assert far.asked.count(CRL_PATH) == 4


def test_what_the_vendor_says_is_judged_like_anything_else(url: str, far: VendorServices) -> None:
    far.replies[CRL_PATH] = Reply(body=revoking(signer="somebody else"))
    with pytest.raises(UnauthenticEvidenceError) as caught:
        Client(url, policy=accepting(), endorsements=impatient(far))
    assert caught.value.finding_code == "sev_snp.crl_signature"


def test_a_second_attestation_asks_nobody_again(url: str, far: VendorServices) -> None:
    with Client(url, policy=accepting(), endorsements=Endorsements(fetch=True, amd_kds=far.url)) as client:
        asked = list(far.asked)
        connection = client._connection  # its keys are to end now
        assert connection.attested is not None
        connection.forget(connection.attested)
        assert client.attestation.level == "fresh"
    assert far.asked == asked


def test_a_cache_serves_the_next_process_too(url: str, far: VendorServices, tmp_path: Path) -> None:
    own = Endorsements(fetch=True, amd_kds=far.url, cache=tmp_path / "kept")
    Client(url, policy=accepting(), endorsements=own).close()
    far.replies.clear()
    Client(url, policy=accepting(), endorsements=own).close()


def bundle(device: SnpDevice, far: VendorServices, path: Path) -> Path:
    recorder = Recorder(behind=impatient(far))
    complete(device.attest(bytes(64)), recorder, now=time.time())
    path.write_bytes(encode_bundle(recorder.answers))
    return path


def test_a_bundle_needs_no_network(url: str, device: SnpDevice, far: VendorServices, tmp_path: Path) -> None:
    file = bundle(device, far, tmp_path / "host.endorsements.json")
    far.asked.clear()
    device.stapled = {}
    for own in (Endorsements(bundles=file), Endorsements(bundles=str(tmp_path))):
        Client(url, policy=accepting(), endorsements=own).close()
    assert far.asked == []


def test_a_bundle_of_another_machine_ends_it(url: str, tmp_path: Path) -> None:
    file = tmp_path / "other.endorsements.json"
    file.write_bytes(encode_bundle({}))
    with pytest.raises(EndorsementsUnavailableError, match=r"other\.endorsements\.json has no amd_kds/vcek") as caught:
        Client(url, policy=accepting(), endorsements=Endorsements(bundles=file))
    assert "bundles are made for one platform" in caught.value.hint


def test_what_a_bundle_lacks_is_fetched_if_that_was_asked_for(url: str, far: VendorServices, tmp_path: Path) -> None:
    file = tmp_path / "empty.endorsements.json"
    file.write_bytes(encode_bundle({}))
    own = Endorsements(bundles=file, fetch=True, amd_kds=far.url)
    Client(url, policy=accepting(), endorsements=own).close()


def test_the_async_client_fetches_while_others_go_on(url: str, far: VendorServices) -> None:
    far.replies[CRL_PATH] = Reply(body=endorsements()["crl"], stalls_s=0.3)

    async def connect() -> int:
        ticks, connecting = 0, asyncio.create_task(opened())
        while not connecting.done():
            await asyncio.sleep(0.01)
            ticks += 1
        await connecting
        return ticks

    async def opened() -> None:
        own = Endorsements(fetch=True, amd_kds=far.url)
        async with AsyncClient(url, policy=accepting(), endorsements=own) as client:
            assert "sev_snp.crl" in codes(client)

    assert asyncio.run(connect()) > 10
    assert CRL_PATH in far.asked


def test_the_async_client_never_takes_what_was_stapled_instead(url: str, far: VendorServices) -> None:
    del far.replies[CRL_PATH]

    async def connect() -> None:
        async with AsyncClient(url, policy=accepting(), endorsements=impatient(far)):
            pass

    with pytest.raises(EndorsementsUnavailableError, match="cannot be had"):
        asyncio.run(connect())


def test_the_classic_client_takes_them_too(url: str, far: VendorServices, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    client = BlindAiClient()
    client.connect_server(url, policy=tmp_path / "policy.toml", endorsements=Endorsements(fetch=True, amd_kds=far.url))
    assert client.is_connected()
    client.close_connection()
    assert CRL_PATH in far.asked


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (Endorsements(), "come from bundles, or by fetch"),
        (Endorsements(bundles="x", cache="kept"), "need fetch=True"),
        (Endorsements(amd_kds="https://kds.example"), "come from bundles"),
        (Endorsements(fetch=True, amd_kds="ftp://kds.example"), "the address of amd_kds is https://host"),
    ],
)
def test_what_says_nothing_is_refused_before_anything_is_sent(own: Endorsements, words: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(encode_bundle({}))
    if own.bundles:
        own = dataclasses.replace(own, bundles=tmp_path / "x")
    with pytest.raises(InvalidInputError, match=words):
        Client("https://127.0.0.1:1", insecure_simulation=True, endorsements=own)


def test_a_bundle_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(EndorsementsUnavailableError, match="cannot be read") as caught:
        Client("https://127.0.0.1:1", insecure_simulation=True, endorsements=Endorsements(bundles=tmp_path / "none"))
    assert "--save-endorsements" in caught.value.hint


def test_the_command_line_insists_with_fetch(url: str, device: SnpDevice, far: VendorServices, tmp_path: Path) -> None:
    device.stapled = {}
    (tmp_path / "policy.toml").write_text(POLICY)
    policy = ("--policy", tmp_path / "policy.toml")
    assert blindai_here("attest", url, *policy).code == 6
    ended = blindai_here("attest", url, *policy, "--fetch", "--kds", far.url)
    assert (ended.code, ended.err) == (0, "")
    assert "✓ sev_snp.crl: " in ended.out


def test_the_command_line_takes_a_bundle(url: str, device: SnpDevice, far: VendorServices, tmp_path: Path) -> None:
    file = bundle(device, far, tmp_path / "host.endorsements.json")
    (tmp_path / "policy.toml").write_text(POLICY)
    ended = blindai_here("models", url, "--policy", tmp_path / "policy.toml", "--endorsements", file)
    assert (ended.code, ended.err) == (0, "")


def test_the_command_line_ends_with_3_when_they_cannot_be_had(url: str, far: VendorServices, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    del far.replies[CRL_PATH]
    ended = blindai_here("models", url, "--policy", tmp_path / "policy.toml", "--fetch", "--kds", far.url)
    assert ended.code == 3
    assert "your own endorsements for the sev_snp evidence cannot be had" in ended.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--kds", "https://kds.example"), "need --fetch"),
        (("--fetch", "--pccs", "ftp://pccs.example"), "the address of intel_pcs is https://host"),
    ],
)
def test_options_that_do_nothing_are_a_wrong_usage(options: tuple[str, ...], words: str) -> None:
    ended = blindai_here("models", "https://127.0.0.1:1", "--insecure-simulation", *options)
    assert ended.code == 2
    assert words in " ".join(ended.err.replace("│", " ").split())


def test_policy_violations_stay_what_they_are(url: str, far: VendorServices) -> None:
    other = POLICY.replace("6d" * 48, "00" * 48)
    with pytest.raises(PolicyViolationError):
        Client(url, policy=accepting(text=other), endorsements=impatient(far))
