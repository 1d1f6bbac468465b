"""Changes of the store wait for the disk and the TEE, and nobody else does; none of them stops half-way."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from server.test_uploads import adder, names, upload

from blindai.attester.simulation import SimulationAttester
from blindai.errors import ModelNotFoundError
from blindai.server.access import open_principal
from blindai.server.calls import Call, Reply
from blindai.server.dispatch import Service, dispatch
from blindai.server.kept_store import KeptStore
from blindai.server.serve import create_app
from blindai.server.settings import Settings
from blindai.server.sharing import NOT_SHARED, Share
from blindai.server.store_changes import StoreChanges, to_the_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE_S = 20


class SlowSealer:
    """A TEE whose counter answers only when it is let: what waits for it, waits for the index to be kept."""

    kind = "slow"

    def __init__(self) -> None:
        self.count = 0
        self.asked, self.free = threading.Event(), threading.Event()
        self.free.set()

    def root_key(self) -> bytes:
        return bytes(32)

    def next_key(self) -> bytes:
        return bytes(32)

    def waiting_key(self) -> None:
        return None

    def take_up(self) -> None:
        pass

    def drop_next(self) -> None:
        pass

    def generation(self) -> int:
        return self.count

    def advance(self, generation: int) -> None:
        self.asked.set()
        assert self.free.wait(PATIENCE_S)
        self.count = generation

    def hold(self) -> None:
        """Let nothing through from now on."""
        self.free.clear()
        self.asked.clear()


@pytest.fixture
def sealer() -> SlowSealer:
    return SlowSealer()


@pytest.fixture
async def service(tmp_path: Path, sealer: SlowSealer) -> AsyncIterator[Service]:
    kept = KeptStore(tmp_path / "kept", sealer)
    attester = SimulationAttester(random=os.urandom, measurement=bytes(32))
    settings = Settings(simulation=True)
    app = create_app(settings, attester=attester, directory=tmp_path, kept=kept)
    async with app.running():
        yield app.sealed.service
        sealer.free.set()


async def asked(service: Service, method: str, path: str) -> Reply:
    call = Call(principal=open_principal(""), method=method, path=path, headers={}, body=memoryview(b""))
    return await dispatch(service, call)


async def held(sealer: SlowSealer) -> None:
    """Until a change waits for the TEE."""
    assert await asyncio.to_thread(sealer.asked.wait, PATIENCE_S)


async def test_nobody_waits_for_another_ones_change(service: Service, sealer: SlowSealer) -> None:
    await upload(service, adder(), "stays")
    await upload(service, adder(2.0), "goes")
    sealer.hold()
    deletion = asyncio.create_task(asked(service, "DELETE", "/v2/repository/models/goes"))
    await held(sealer)
    arriving = asyncio.create_task(upload(service, adder(3.0), "comes"))
    async with asyncio.timeout(PATIENCE_S / 2):  # while the change waits
        for _ in range(3):
            assert (await asked(service, "GET", "/v2/models/stays")).status == 200
            assert (await asked(service, "GET", "/v2/models/goes")).status == 200
            assert names(service) == ["stays", "goes"]
            chunks = [b"".join(c) for _, c in service.store.open_bundle(service.store.resolve("goes"))]
            assert chunks == [adder(2.0)]
    assert not deletion.done()
    assert not arriving.done()
    sealer.free.set()
    assert (await deletion).status == (await arriving).status == 200
    assert names(service) == ["stays", "comes"]


async def test_one_who_leaves_does_not_stop_a_deletion_half_way(service: Service, sealer: SlowSealer) -> None:
    await upload(service, adder(), "goes")
    assert service.pool.process_ids
    sealer.hold()
    deletion = asyncio.create_task(asked(service, "DELETE", "/v2/repository/models/goes"))
    await held(sealer)
    deletion.cancel()
    await asyncio.sleep(0.05)
    assert not deletion.done()
    sealer.free.set()
    with pytest.raises(asyncio.CancelledError):
        await deletion
    assert names(service) == []
    assert not service.pool.process_ids  # its process went, too


async def test_one_who_leaves_at_the_end_of_an_upload_has_uploaded(service: Service, sealer: SlowSealer) -> None:
    sealer.hold()
    arriving = asyncio.create_task(upload(service, adder(), "m"))
    await held(sealer)
    arriving.cancel()
    await asyncio.sleep(0.05)
    sealer.free.set()
    with pytest.raises(asyncio.CancelledError):
        await arriving
    assert names(service) == ["m"]
    chunks = [b"".join(chunks) for _, chunks in service.store.open_bundle(service.store.resolve("m"))]
    assert chunks == [adder()]


async def test_decisions_at_the_same_time_are_all_kept(service: Service) -> None:
    await upload(service, adder(), "a")
    await upload(service, adder(2.0), "b")
    run = Share(run=frozenset({"x"}))
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            list(threads.map(lambda name: service.store.share("public", name, run), "abab"))
            assert {name for _, name, _ in service.store.sharing.decisions()} == {"a", "b"}
            list(threads.map(lambda name: service.store.share("public", name, NOT_SHARED), "abab"))
            assert service.store.sharing.decisions() == ()


async def test_a_name_without_a_model_is_not_shared(service: Service) -> None:
    with pytest.raises(ModelNotFoundError):
        service.store.share("public", "nothing", Share(run=frozenset({"x"})))
    assert service.store.sharing.decisions() == ()


async def test_whoever_is_cancelled_twice_still_waits_for_the_end() -> None:
    may_end, ended = asyncio.Event(), []

    async def work() -> None:
        await may_end.wait()
        ended.append(1)

    waiting = asyncio.create_task(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == [1]


async def test_a_change_that_fails_says_so_to_who_waits() -> None:
    changes = StoreChanges()
    with pytest.raises(ZeroDivisionError):
        await changes.run(divmod, 1, 0)
    changes.close()
