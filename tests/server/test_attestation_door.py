"""The attestation endpoint under many callers: few quotes, few keys, and nobody left waiting."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from blindai.attester.simulation import SimulationAttester
from blindai.channel.keyring import Clock, Identity, KeyRing
from blindai.channel.keyset import Software
from blindai.server.attestation_door import AttestationDoor
from blindai.server.settings import Settings
from blindai.wire import base64url_encode, compact_json

if TYPE_CHECKING:
    from blindai.attestation.evidence import EvidenceItem

QUOTE_S = 0.02


@dataclass(slots=True)
class SlowDevice:
    """A quote device that takes its time, counts, and fails when told to."""

    tee: str = "simulation"
    quotes: int = 0
    failures: int = 0
    _real: SimulationAttester = field(
        default_factory=lambda: SimulationAttester(random=os.urandom, measurement=bytes(32))
    )

    def attest(self, bound: bytes) -> EvidenceItem:
        self.quotes += 1
        time.sleep(QUOTE_S)
        if self.failures:
            self.failures -= 1
            raise OSError("the device does not answer")
        return self._real.attest(bound)


@dataclass(slots=True)
class Wall:
    now_s: float = 1_800_000_000.0

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now_s, boot=lambda: self.now_s)


def door_with(device: SlowDevice, wall: Wall | None = None, **options: Any) -> AttestationDoor:
    settings = Settings(simulation=True)
    identity = Identity(
        service=settings.service,
        instance=bytes(32),
        runtime=settings.runtime_policy(),
        software=Software(name="blindai", version="1", engines=()),
        simulated=True,
    )
    clock = (wall or Wall()).clock()
    keys = KeyRing(identity, clock=clock, random=os.urandom, epoch_s=settings.epoch_s)
    return AttestationDoor(keys=keys, attester=device, **options)


def nonce() -> bytes:
    return compact_json({"nonce": base64url_encode(os.urandom(32))})


async def test_forty_who_ask_at_once_share_one_quote() -> None:
    device = SlowDevice()
    door = door_with(device)
    documents = await asyncio.gather(*(door.cached() for _ in range(40)))
    assert len(set(documents)) == 1
    assert device.quotes == 1


async def test_the_next_epoch_has_a_quote_of_its_own() -> None:
    device, wall = SlowDevice(), Wall()
    door = door_with(device, wall)
    first = await door.cached()
    wall.now_s += 4 * 3600
    assert await door.cached() != first
    assert device.quotes == 2


async def test_a_caller_that_leaves_does_not_take_the_quote_from_others() -> None:
    device = SlowDevice()
    door = door_with(device)
    leaving, staying = asyncio.create_task(door.cached()), asyncio.create_task(door.cached())
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying
    assert device.quotes == 1


async def test_after_a_failure_the_device_is_asked_again() -> None:
    device = SlowDevice(failures=1)
    door = door_with(device)
    answers = await asyncio.gather(*(door.cached() for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [OSError] * 3
    assert await door.cached()
    assert device.quotes == 2


async def test_a_fresh_request_does_not_wait_behind_the_cached_ones() -> None:
    device = SlowDevice()
    door = door_with(device)
    cached = [asyncio.create_task(door.cached()) for _ in range(40)]
    await asyncio.sleep(0)
    await door.fresh(nonce(), source="192.0.2.1")
    assert device.quotes == 2
    await asyncio.gather(*cached)


async def test_a_flood_of_nonces_makes_few_keys() -> None:
    device = SlowDevice()
    door = door_with(device, batch_interval_s=0.2)
    loop = asyncio.get_running_loop()
    began, asked = loop.time(), list[asyncio.Task[bytes]]()
    while loop.time() < began + 1.0:
        asked.append(asyncio.create_task(door.fresh(nonce(), source=f"192.0.2.{len(asked)}")))
        await asyncio.sleep(0.005)
    await asyncio.gather(*asked)
    batches = 1 + (loop.time() - began) / 0.2
    assert len(asked) > 2 * batches
    assert device.quotes <= batches


async def test_the_first_batch_closes_at_once_and_the_next_only_after_the_interval() -> None:
    door = door_with(SlowDevice(), batch_interval_s=30.0)
    async with asyncio.timeout(10):
        await door.fresh(nonce(), source="192.0.2.1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await door.fresh(nonce(), source="192.0.2.1")
