"""A server staples what its machine's vendor publishes, renews it in time, and never waits for it.

The vendor is a fake AMD behind a real HTTP service; the quote device is a fake; server and client are the real ones.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from fakes import snp_site
from fakes.amd import revocation_list
from fakes.snp_site import (
    CHAIN_PATH,
    CRL_PATH,
    DAY,
    PRODUCT,
    VCEK_PATH,
    SnpDevice,
    accepting,
    endorsements,
    publish,
    trust_fake_amd,
)
from fakes.vendor_services import Reply, VendorServices, vendor_services

from blindai import Client
from blindai.attestation.evidence import AttestationDocument, parse_document
from blindai.endorsements.services import Endpoints, Patience, Services
from blindai.errors import EndorsementsUnavailableError, RejectedEvidenceError
from blindai.server.attestation_door import PATH
from blindai.server.stapling import FIRST_BACKOFF_S, LONGEST_BACKOFF_S, LOOK_EVERY_S, MIN_AGE_S, Stapler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.network
BOUND = bytes(64)
EVERYTHING = [VCEK_PATH, CHAIN_PATH, CRL_PATH]


@pytest.fixture(scope="module", autouse=True)
def _trusted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        trust_fake_amd(patch)
        yield


@pytest.fixture
def far() -> Iterator[VendorServices]:
    with vendor_services() as services:
        publish(services)
        yield services


@dataclasses.dataclass(slots=True)
class Wall:
    """The wall clock, which a test moves."""

    now_s: float = dataclasses.field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now_s


def published(url: str) -> AttestationDocument:
    with urllib.request.urlopen(url + PATH) as answer:  # noqa: S310  # our own, on loopback
        return parse_document(answer.read())


def stapler_of(far: VendorServices, wall: Callable[[], float] = time.time) -> Stapler:
    services = Services(endpoints=Endpoints(amd_kds=far.url), patience=Patience(attempts=1))
    return Stapler(source=services, wall=wall, latest=SnpDevice().attest(BOUND))


def stapled(stapler: Stapler) -> dict[str, bytes]:
    return dict(stapler.staple(SnpDevice().attest(BOUND)).endorsements)


def newer_list() -> bytes:
    today = datetime.now(UTC).replace(microsecond=0)
    return revocation_list(PRODUCT, updates=(today - DAY, today + 3 * DAY))


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, or fail."""
    ends_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends_s
        time.sleep(0.01)


def test_clients_need_nobody_else(far: VendorServices, tmp_path: Path) -> None:
    stapler = stapler_of(far)
    with snp_site.site(SnpDevice(), tmp_path, stapler=stapler) as (url, _):
        until(lambda: stapler.generation > 0)
        for level in ("fresh", "cached"):
            with Client(url, policy=accepting(level), level=level) as client:
                assert client.attestation.level == level
    assert far.asked == EVERYTHING  # once, whoever connects


def test_a_vendor_that_is_away_keeps_nobody_from_attested_keys(far: VendorServices, tmp_path: Path) -> None:
    far.replies.clear()
    stapler = stapler_of(far)
    with snp_site.site(SnpDevice(), tmp_path, stapler=stapler) as (url, _):
        until(lambda: len(far.asked) > 0)
        with pytest.raises(RejectedEvidenceError) as caught:
            Client(url, policy=accepting("cached"), level="cached")
        assert caught.value.finding_code == "sev_snp.endorsements"
        before = published(url)
        publish(far)
        stapler.renew()
        with Client(url, policy=accepting("cached"), level="cached") as client:
            assert client.attestation.level == "cached"
        after = published(url)
    assert before.keyset == after.keyset  # the same keys, quoted anew when there was something to staple
    assert (before.evidence[0].endorsements, dict(after.evidence[0].endorsements)) == ((), endorsements())


def test_a_document_is_renewed_when_half_of_its_time_is_over(far: VendorServices) -> None:
    wall = Wall()
    stapler = stapler_of(far, wall)
    stapler.renew()
    assert (stapled(stapler), stapler.generation) == (endorsements(), 1)
    far.asked.clear()
    far.replies[CRL_PATH] = Reply(body=newer_list())
    wall.now_s += 11 * 3600
    stapler.renew()
    assert (far.asked, stapler.generation) == ([], 1)
    wall.now_s += 2 * 3600
    stapler.renew()
    assert (far.asked, stapler.generation) == ([CRL_PATH], 2)
    assert stapled(stapler)["crl"] == far_body(far)
    wall.now_s += 12 * 3600
    stapler.renew()
    assert far.asked == [CRL_PATH, VCEK_PATH, CHAIN_PATH]  # after a day, though they hold for a year
    assert stapler.generation == 2


def far_body(far: VendorServices) -> bytes:
    reply = far.replies[CRL_PATH]
    assert isinstance(reply, Reply)
    return reply.body


def test_what_ends_soon_is_not_asked_for_more_than_once_a_minute(far: VendorServices) -> None:
    wall = Wall()
    stapler = stapler_of(far, wall)
    stapler.renew()
    far.asked.clear()
    wall.now_s += 24 * 3600 - 10
    stapler.renew()
    wall.now_s += MIN_AGE_S - 1
    stapler.renew()
    assert far.asked.count(CRL_PATH) == 1
    wall.now_s += 1
    stapler.renew()
    assert far.asked.count(CRL_PATH) == 2


def test_the_old_ones_are_stapled_as_long_as_no_newer_ones_come(far: VendorServices) -> None:
    wall = Wall()
    stapler = stapler_of(far, wall)
    stapler.renew()
    far.replies[CRL_PATH] = Reply(status=503)
    wall.now_s += 2 * 24 * 3600
    with pytest.raises(EndorsementsUnavailableError, match="status 503"):
        stapler.renew()
    assert stapled(stapler) == endorsements()  # whether an ended list will do, each client's policy says
    publish(far, crl=newer_list())
    stapler.renew()
    assert stapled(stapler)["crl"] == far_body(far)


def test_what_came_is_kept_when_something_else_did_not(far: VendorServices) -> None:
    stapler = stapler_of(far)
    del far.replies[CRL_PATH]
    with pytest.raises(EndorsementsUnavailableError, match="no such document"):
        stapler.renew()
    assert stapled(stapler) == {}  # half a chain would say nothing
    publish(far)
    far.asked.clear()
    stapler.renew()
    assert far.asked == [CRL_PATH]


def test_evidence_after_a_firmware_update_asks_for_its_own(far: VendorServices) -> None:
    stapler = stapler_of(far)
    stapler.renew()
    far.asked.clear()
    old = SnpDevice().attest(BOUND)
    updated = dataclasses.replace(old, evidence=bytes(old.evidence[:0x180]) + b"\x63" + old.evidence[0x181:])
    assert stapler.staple(updated) == updated
    with pytest.raises(EndorsementsUnavailableError, match="blSPL=99"):
        stapler.renew()


def test_what_is_no_evidence_is_sent_as_it_is(far: VendorServices) -> None:
    item = dataclasses.replace(SnpDevice().attest(BOUND), evidence=b"no report")
    assert stapler_of(far).staple(item) == item


def test_a_failure_is_told_and_tried_again_later_and_later(
    far: VendorServices, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []

    async def run() -> None:
        enough = asyncio.Event()
        stapler = dataclasses.replace(stapler_of(far), sleep=sleeping(enough))
        running = asyncio.create_task(stapler.keep_fresh())
        await enough.wait()
        running.cancel()

    def sleeping(enough: asyncio.Event) -> Callable[[float], Awaitable[None]]:
        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 9:
                publish(far)
            if len(waits) == 11:
                enough.set()
                await asyncio.Event().wait()

        return sleep

    far.replies.clear()
    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    doubled = [FIRST_BACKOFF_S * 2**number for number in range(6)]
    assert waits == [*doubled, *[LONGEST_BACKOFF_S] * 3, LOOK_EVERY_S, LOOK_EVERY_S]
    assert "endorsements were not renewed, and are tried again in 60 s: http://127.0.0.1" in caplog.text
    assert "no such document" in caplog.text


def test_a_server_without_one_asks_nobody(far: VendorServices, tmp_path: Path) -> None:
    with snp_site.site(SnpDevice(stapled=endorsements()), tmp_path) as (url, _):
        Client(url, policy=accepting()).close()
    assert far.asked == []
