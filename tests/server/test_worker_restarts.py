"""Processes that die, idle or stand in the way, and what others notice of it: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from server.model_parts import (
    FOREVER,
    SOON_S,
    add_model,
    added,
    count_to,
    counting_model,
    stored,
    until,
    until_busy,
)

from blindai.errors import BlindAIError, InvalidModelError, ModelNotReadyError, OverloadedError
from blindai.server.backoff import Backoff
from blindai.server.metrics import Metrics
from blindai.server.model_config import ServingConfig
from blindai.server.model_store import ModelStore
from blindai.server.runner_start import PoolOptions
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    opened = ModelStore(tmp_path / "store")
    yield opened
    opened.close()


@contextlib.asynccontextmanager
async def pool_of(store: ModelStore, **options: Any) -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(store, PoolOptions(**options))
    try:
        yield pool
    finally:
        await pool.close()


async def test_a_kill_among_32_running_requests_costs_only_those_that_ran(
    store: ModelStore, tell: Callable[[str], None]
) -> None:
    victim = stored(store, counting_model(), "victim", ServingConfig(instances=2))
    others = [stored(store, add_model(index), f"m{index}") for index in range(3)]
    async with pool_of(store) as pool:
        for model in (victim, *others):
            await pool.load(model, "public")
        process_id = pool.process_ids[0]
        counts = [FOREVER, FOREVER, *range(30)]
        running = [asyncio.create_task(pool.infer(victim, "public", count_to(count))) for count in counts]
        await until_busy(process_id)
        right = 0

        async def keep_asking(index: int) -> None:
            nonlocal right
            while not all(task.done() for task in running[2:]):
                assert await added(pool, others[index], 7) == [7 + index]
                right += 1

        asking = [asyncio.create_task(keep_asking(index)) for index in range(3)]
        os.kill(process_id, signal.SIGKILL)
        async with asyncio.timeout(SOON_S):
            answers = await asyncio.gather(*running[2:])
            await asyncio.gather(*asking)
        dead = [task for task in running[:2] if task.done() and isinstance(task.exception(), ModelNotReadyError)]
        assert len(dead) == 1
        assert [int(output.data) for (output,) in answers] == list(range(30))
        assert right > 0
        tell(f"32 running, 1 killed, 30 answered, 1 still runs; {right} requests to other models, all right")
        for task in running:
            task.cancel()


async def test_the_process_comes_back_by_itself(store: ModelStore) -> None:
    model = stored(store, add_model())
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        (process_id,) = pool.process_ids
        os.kill(process_id, signal.SIGKILL)
        await until(lambda: process_id not in pool.process_ids)
        await until(lambda: len(pool.process_ids) == 1)


async def killed(pool: WorkerPool) -> None:
    """Its only process dies, and the pool has noticed."""
    (process_id,) = pool.process_ids
    os.kill(process_id, signal.SIGKILL)
    await until(lambda: process_id not in pool.process_ids)


async def test_whoever_comes_after_a_crash_waits_for_the_next_process(store: ModelStore) -> None:
    model = stored(store, add_model())
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        for pause_s in (0, 0.5, 1):
            await killed(pool)
            before_s = asyncio.get_running_loop().time()
            async with asyncio.timeout(SOON_S):
                answers = await asyncio.gather(*(added(pool, model, number) for number in range(8)))
            assert answers == [[number + 1] for number in range(8)]
            assert asyncio.get_running_loop().time() - before_s > 0.9 * pause_s


async def test_one_that_dies_again_and_again_is_left_alone_for_a_while(store: ModelStore) -> None:
    model = stored(store, add_model())
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        for _ in range(3):
            await killed(pool)
            await until(lambda: len(pool.process_ids) == 1)
        await killed(pool)
        with pytest.raises(ModelNotReadyError, match="again and again") as raised:
            await added(pool, model, 1)
        assert raised.value.retry_after_s == 2
        await until(lambda: len(pool.process_ids) == 1)
        assert await added(pool, model, 1) == [2]


async def test_one_that_dies_while_another_starts_is_replaced_too(store: ModelStore) -> None:
    model = stored(store, add_model(), config=ServingConfig(instances=2))
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        first, second = pool.process_ids
        os.kill(first, signal.SIGKILL)
        await until(lambda: first not in pool.process_ids)
        os.kill(second, signal.SIGKILL)
        await until(lambda: len(set(pool.process_ids) - {first, second}) == 2)


async def test_a_model_that_cannot_be_loaded_is_not_loaded_for_every_request(store: ModelStore) -> None:
    model = stored(store, b"no model")
    async with pool_of(store) as pool:
        for _ in range(2):
            with pytest.raises(InvalidModelError):
                await added(pool, model, 1)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for _ in range(20):
            with pytest.raises(InvalidModelError):
                await added(pool, model, 1)
        assert loop.time() - start < 0.4  # a start takes longer than that, and there are twenty


def test_the_pauses_grow_and_are_forgotten() -> None:
    backoff = Backoff()
    now_s, pauses = 0.0, []
    for _ in range(9):
        backoff.fail(now_s)
        pauses.append(backoff.wait_s(now_s))
        now_s += pauses[-1]
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.fail(now_s + 61)
    assert backoff.wait_s(now_s + 61) == 0


async def test_a_process_that_nobody_uses_ends_and_the_model_stays_ready(store: ModelStore) -> None:
    model = stored(store, add_model())
    async with pool_of(store, idle_worker_s=0.2) as pool:
        assert await added(pool, model, 1) == [2]
        await until(lambda: pool.process_ids == ())
        assert await added(pool, model, 1) == [2]


async def test_a_run_is_no_idleness(store: ModelStore) -> None:
    model = stored(store, counting_model())
    async with pool_of(store, idle_worker_s=0.1) as pool:
        running = asyncio.create_task(pool.infer(model, "public", count_to(FOREVER)))
        await until(lambda: pool.process_ids != ())
        await asyncio.sleep(0.4)
        assert not running.done()
        assert len(pool.process_ids) == 1
        running.cancel()


async def test_the_one_unused_longest_makes_room(store: ModelStore) -> None:
    models = [stored(store, add_model(index), f"m{index}") for index in range(3)]
    async with pool_of(store, max_workers=2) as pool:
        assert await added(pool, models[0], 0) == [0]
        assert await added(pool, models[1], 0) == [1]
        first, second = pool.process_ids
        assert await added(pool, models[0], 0) == [0]
        assert await added(pool, models[2], 0) == [2]
        assert len(pool.process_ids) == 2
        assert first in pool.process_ids
        assert second not in pool.process_ids


async def test_no_room_is_made_where_all_are_used(store: ModelStore) -> None:
    used, other = stored(store, counting_model(), "used"), stored(store, add_model(), "other")
    async with pool_of(store, max_workers=1) as pool:
        await pool.load(used, "public")
        running = asyncio.create_task(pool.infer(used, "public", count_to(FOREVER)))
        await until_busy(pool.process_ids[0])
        with pytest.raises(OverloadedError) as raised:
            await added(pool, other, 1)
        assert raised.value.retry_after_s == 1
        assert not running.done()
        running.cancel()
        async with asyncio.timeout(SOON_S):
            await asyncio.gather(running, return_exceptions=True)
            await pool.infer(used, "public", count_to(1))
            assert await added(pool, other, 1) == [2]


async def test_a_process_that_does_not_break_its_run_off_is_killed(store: ModelStore) -> None:
    model = stored(store, counting_model())
    async with pool_of(store, run_timeout_s=0.3) as pool:
        await pool.load(model, "public")
        (process_id,) = pool.process_ids
        os.kill(process_id, signal.SIGSTOP)  # as a kernel that cannot be interrupted
        async with asyncio.timeout(SOON_S):
            with pytest.raises(BlindAIError, match="ran longer"):
                await pool.infer(model, "public", count_to(1))
            await until(lambda: process_id not in pool.process_ids and len(pool.process_ids) == 1)
            (output,) = await pool.infer(model, "public", count_to(2))
        assert output.data == 2


async def test_restarts_waiting_requests_and_runs_are_counted(store: ModelStore) -> None:
    metrics = Metrics()
    model = stored(store, counting_model())
    pool = WorkerPool(store, PoolOptions(), metrics=metrics)
    try:
        await pool.load(model, "public")
        (process_id,) = pool.process_ids
        running = [asyncio.create_task(pool.infer(model, "public", count_to(count))) for count in (FOREVER, 1, 2)]
        await until_busy(process_id)
        assert (pool.waiting, metrics.worker_restarts, metrics.batch_sizes.total) == (2, 0, 0)
        os.kill(process_id, signal.SIGKILL)
        async with asyncio.timeout(SOON_S):
            await asyncio.wait(running)
        assert (pool.waiting, metrics.worker_restarts) == (0, 1)
        assert metrics.batch_sizes.counts[0] == metrics.batch_sizes.total == 2
    finally:
        await pool.close()
