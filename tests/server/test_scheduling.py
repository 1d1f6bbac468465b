"""Which request runs when, and with whom: queues, priorities, timeouts, batches, cancellation, instances."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from server.model_parts import (
    FOREVER,
    SOON_S,
    add_model,
    added,
    count_to,
    counting_model,
    floats,
    stored,
    sum_model,
    table_model,
    until_busy,
)

from blindai.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidInputError,
    ModelNotReadyError,
    OverloadedError,
)
from blindai.oip.tensors import Datatype, Tensor
from blindai.server.batching import BatchingRule
from blindai.server.calls import error_reply
from blindai.server.model_config import QueuePolicy, RunWish, ServingConfig
from blindai.server.model_store import ModelStore
from blindai.server.request_queue import Batch, QueuedRequest, RequestQueue, queued_request, signature_of
from blindai.server.runner_start import PoolOptions
from blindai.server.statistics import ModelStatistics
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from blindai.server.model_store import StoredModel

JOINED = ServingConfig(batching="on")
A_WHILE = 20_000  # steps of the counting model: some tens of milliseconds


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


def rows(*numbers: int) -> tuple[Tensor, ...]:
    data = np.array(numbers, dtype=np.int64).reshape(-1, 1)
    return (Tensor(name="x", datatype=Datatype.INT64, shape=data.shape, data=data),)


async def busy(pool: WorkerPool, model: StoredModel) -> asyncio.Task[tuple[Tensor, ...]]:
    """A run that does not end by itself, under way."""
    await pool.load(model, "public")
    running = asyncio.create_task(pool.infer(model, "public", count_to(FOREVER)))
    await until_busy(pool.process_ids[-1])
    return running


@pytest.mark.parametrize("isolation", ["tenant", "model", "thread"])
async def test_joined_rows_are_bit_for_bit_what_they_are_alone(store: ModelStore, isolation: str) -> None:
    model = stored(store, add_model(0.1), config=JOINED)
    random = np.random.default_rng(7)
    inputs = [random.standard_normal(int(count), dtype=np.float32) for count in random.integers(1, 5, 64)]
    async with pool_of(store, isolation=isolation) as pool:
        await pool.load(model, "public")
        answers = await asyncio.gather(*(pool.infer(model, "public", floats(*data)) for data in inputs))
        for data, (output,) in zip(inputs, answers, strict=True):
            assert output.data.tobytes() == (data + np.float32(0.1)).tobytes()
        counted = pool.statistics(model)
    assert counted.execution_count < counted.success.count == 64
    assert counted.inference_count == sum(map(len, inputs))
    assert sum(size * batch.compute_infer.count for size, batch in counted.batches.items()) == counted.inference_count
    assert counted.queue.count == counted.compute.compute_infer.count == 64
    assert 0 < counted.compute.compute_infer.ns <= counted.success.ns
    assert counted.fail.count == 0
    assert counted.last_inference_ms > 0


@pytest.mark.parametrize("isolation", ["tenant", "thread"])
async def test_what_was_answered_is_not_kept_until_the_collector_looks(store: ModelStore, isolation: str) -> None:
    model = stored(store, add_model(), config=JOINED)
    async with pool_of(store, isolation=isolation) as pool:
        await pool.load(model, "public")
        gc.collect()
        before = {id(held) for held in gc.get_objects() if isinstance(held, QueuedRequest | Batch)}  # other tests'
        gc.disable()
        try:
            await asyncio.gather(*(added(pool, model, index) for index in range(8)))
            await asyncio.sleep(0)
            kept = [held for held in gc.get_objects() if isinstance(held, QueuedRequest | Batch)]
            assert [held for held in kept if id(held) not in before] == []
        finally:
            gc.enable()


@pytest.mark.parametrize("config", [ServingConfig(batching="off"), ServingConfig(max_joined_rows=1, batching="on")])
async def test_nothing_is_joined_where_the_owner_says_so(store: ModelStore, config: ServingConfig) -> None:
    model = stored(store, add_model(), config=config)
    async with pool_of(store) as pool:
        await asyncio.gather(*(added(pool, model, index) for index in range(8)))
        assert pool.statistics(model).execution_count == 8


async def test_nothing_is_joined_where_the_operator_says_so(store: ModelStore) -> None:
    model = stored(store, add_model(), config=JOINED)
    async with pool_of(store, batching=False) as pool:
        await asyncio.gather(*(added(pool, model, index) for index in range(8)))
        assert pool.statistics(model).execution_count == 8


@pytest.mark.parametrize("isolation", ["tenant", "model"])
async def test_requests_of_two_shares_never_run_together(store: ModelStore, isolation: str) -> None:
    model = stored(store, add_model(), config=JOINED)
    async with pool_of(store, isolation=isolation) as pool:
        for share in ("one", "two"):
            await pool.load(model, share)
        assert len(pool.process_ids) == (2 if isolation == "tenant" else 1)
        await asyncio.gather(*(pool.infer(model, share, floats(1)) for _ in range(4) for share in ("one", "two")))
        counted = pool.statistics(model)
        assert set(counted.batches) == {4}
        assert counted.execution_count == 2


async def test_a_bad_request_does_not_fail_those_that_run_with_it(store: ModelStore) -> None:
    model = stored(store, table_model(), config=JOINED)
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        numbers = [0, 1, 99, 2]
        answers = await asyncio.gather(
            *(pool.infer(model, "public", rows(number)) for number in numbers), return_exceptions=True
        )
        assert isinstance(answers[2], InternalError)
        for number in (0, 1, 3):
            answer = answers[number]
            assert not isinstance(answer, BaseException)
            assert answer[0].data.ravel().tolist() == [10.0 * (numbers[number] + 1)]
        counted = pool.statistics(model)
        assert (counted.success.count, counted.fail.count) == (3, 1)


async def test_a_model_that_does_not_keep_rows_is_found_out(store: ModelStore) -> None:
    model = stored(store, sum_model(), config=JOINED)
    one = np.ones((1, 2), dtype=np.float32)
    inputs = (Tensor(name="x", datatype=Datatype.FP32, shape=(1, 2), data=one),)
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        for _ in range(2):
            answers = await asyncio.gather(*(pool.infer(model, "public", inputs) for _ in range(4)))
            assert [output.data.tolist() for (output,) in answers] == [[[1.0, 1.0]]] * 4
        assert pool.statistics(model).execution_count == 8


async def test_unequal_requests_run_apart(store: ModelStore) -> None:
    model = stored(store, table_model(), config=JOINED)
    wrong = (Tensor(name="x", datatype=Datatype.FP32, shape=(1, 1), data=np.zeros((1, 1), dtype=np.float32)),)
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        good, bad, wished = await asyncio.gather(
            pool.infer(model, "public", rows(1)),
            pool.infer(model, "public", wrong),
            pool.infer(model, "public", rows(2), ("y",)),
            return_exceptions=True,
        )
        assert isinstance(bad, InvalidInputError)
        assert not isinstance(good, BaseException)
        assert not isinstance(wished, BaseException)
        assert pool.statistics(model).execution_count == 2


async def test_a_batch_axis_is_held_to_its_limit(store: ModelStore) -> None:
    model = stored(store, add_model(), config=ServingConfig(max_batch_size=4, batching="on"))
    async with pool_of(store) as pool:
        assert (await pool.metadata(model, "public")).inputs[0].shape == (-1,)
        with pytest.raises(InvalidInputError, match="inference request batch-size must be <= 4"):
            await added(pool, model, *range(5))
        assert await added(pool, model, *range(4)) == [1, 2, 3, 4]
        await asyncio.gather(*(added(pool, model, 1, 2, 3) for _ in range(4)))
        assert max(pool.statistics(model).batches) <= 4


async def test_a_full_queue_refuses_with_429_and_advice(store: ModelStore) -> None:
    model = stored(store, counting_model(), config=ServingConfig(queue=QueuePolicy(max_queue_size=2)))
    async with pool_of(store) as pool:
        running = await busy(pool, model)
        waiting = [asyncio.create_task(pool.infer(model, "public", count_to(1))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as raised:
            await pool.infer(model, "public", count_to(1))
        reply = error_reply(raised.value)
        assert reply.status == 429
        assert ("retry-after", "1") in reply.headers
        running.cancel()
        async with asyncio.timeout(SOON_S):
            await asyncio.gather(*waiting)


async def test_priorities_run_first_and_equals_in_order(store: ModelStore) -> None:
    policy = QueuePolicy(priority_levels=3, default_priority_level=2)
    model = stored(store, counting_model(), config=ServingConfig(queue=policy))
    ended: list[str] = []

    async def run(pool: WorkerPool, name: str, priority: int) -> None:
        await pool.infer(model, "public", count_to(1), wish=RunWish(priority=priority))
        ended.append(name)

    async with pool_of(store) as pool:
        running = await busy(pool, model)
        wishes = [("last", 3), ("middle", 0), ("also middle", 9), ("first", 1)]
        tasks = [asyncio.create_task(run(pool, name, priority)) for name, priority in wishes]
        await asyncio.sleep(0)
        running.cancel()
        async with asyncio.timeout(SOON_S):
            await asyncio.gather(*tasks)
    assert ended == ["first", "middle", "also middle", "last"]


@pytest.mark.parametrize(
    ("policy", "wish", "error"),
    [
        (QueuePolicy(default_timeout_us=20_000), RunWish(), ModelNotReadyError),
        (QueuePolicy(), RunWish(queue_timeout_us=20_000), ModelNotReadyError),
        (QueuePolicy(default_timeout_us=20_000), RunWish(queue_timeout_us=2**40), ModelNotReadyError),
        (QueuePolicy(), RunWish(deadline_s=0.0), DeadlineExceededError),
    ],
)
async def test_a_request_waits_no_longer_than_it_may(
    store: ModelStore, policy: QueuePolicy, wish: RunWish, error: type[Exception]
) -> None:
    model = stored(store, counting_model(), config=ServingConfig(queue=policy))
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        patient = RunWish(queue_timeout_us=0)
        running = asyncio.create_task(pool.infer(model, "public", count_to(FOREVER), wish=patient))
        await until_busy(pool.process_ids[0])
        async with asyncio.timeout(SOON_S):
            with pytest.raises(error):
                await pool.infer(model, "public", count_to(1), wish=wish)
        assert not running.done()


async def test_a_request_may_not_shorten_its_wait_where_the_owner_forbids_it(store: ModelStore) -> None:
    model = stored(store, counting_model(), config=ServingConfig(queue=QueuePolicy(allow_timeout_override=False)))
    async with pool_of(store) as pool:
        running = await busy(pool, model)
        waiting = asyncio.create_task(pool.infer(model, "public", count_to(1), wish=RunWish(queue_timeout_us=1)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        running.cancel()
        await waiting


async def test_a_deadline_of_its_own_ends_a_run_and_not_its_process(store: ModelStore) -> None:
    model = stored(store, counting_model())
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        before = pool.process_ids
        deadline = asyncio.get_running_loop().time() + 0.2
        with pytest.raises(DeadlineExceededError, match="own deadline"):
            await pool.infer(model, "public", count_to(FOREVER), wish=RunWish(deadline_s=deadline))
        (output,) = await pool.infer(model, "public", count_to(3))
        assert output.data == 3
        assert pool.process_ids == before


async def test_a_run_that_nobody_waits_for_is_broken_off(store: ModelStore) -> None:
    model = stored(store, counting_model())
    async with pool_of(store) as pool:
        running = await busy(pool, model)
        before = pool.process_ids
        running.cancel()
        async with asyncio.timeout(SOON_S):
            (output,) = await pool.infer(model, "public", count_to(5))
        assert output.data == 5
        assert pool.process_ids == before


async def test_a_request_that_nobody_waits_for_is_not_run(store: ModelStore) -> None:
    model = stored(store, counting_model())
    async with pool_of(store) as pool:
        running = await busy(pool, model)
        gone = asyncio.create_task(pool.infer(model, "public", count_to(FOREVER)))
        await asyncio.sleep(0)
        gone.cancel()
        running.cancel()
        async with asyncio.timeout(SOON_S):
            await pool.infer(model, "public", count_to(5))
        assert pool.statistics(model).execution_count == 1


async def test_two_instances_run_at_the_same_time(store: ModelStore) -> None:
    model = stored(store, counting_model(), config=ServingConfig(instances=2))
    async with pool_of(store) as pool:
        running = await busy(pool, model)
        assert len(set(pool.process_ids)) == 2
        async with asyncio.timeout(SOON_S):
            (output,) = await pool.infer(model, "public", count_to(4))
        assert output.data == 4
        assert not running.done()


@pytest.mark.parametrize("isolation", ["tenant", "thread"])
async def test_a_model_is_ready_only_once_it_is_warm(store: ModelStore, isolation: str) -> None:
    config = ServingConfig(warmup=((count_to(A_WHILE), 2),))
    model = stored(store, counting_model(), config=config)
    async with pool_of(store, isolation=isolation) as pool:
        loading = asyncio.create_task(pool.load(model, "public"))
        await asyncio.sleep(0.01)
        assert pool.process_ids == ()
        await loading
        assert pool.statistics(model).execution_count == 0


async def test_a_model_that_fails_its_warm_up_is_not_ready(store: ModelStore) -> None:
    model = stored(store, table_model(), config=ServingConfig(warmup=((rows(99), 1),)))
    async with pool_of(store) as pool:
        with pytest.raises(InternalError):
            await pool.load(model, "public")
        assert pool.process_ids == ()


def waiting(*counts: int, came_ns: int = 0) -> RequestQueue:
    queue = RequestQueue(QueuePolicy())
    for count in counts:
        request = queued_request(floats(*range(count)), (), ModelStatistics())
        request.signature, request.rows = signature_of(request.inputs, (), "public")
        request.queued_ns = came_ns
        queue.put(request)
    return queue


def batch_of(count: int, started_ns: int) -> Batch:
    request: QueuedRequest = queued_request(floats(*range(count)), (), ModelStatistics())
    return Batch(requests=(request,), rows=count, size=0, started_ns=started_ns)


async def test_waits_for_more_rows_as_triton_does() -> None:
    config = ServingConfig(batching="on", preferred_batch_sizes=(4, 8), max_queue_delay_us=100)
    rule = BatchingRule(config, allowed=True)
    assert rule.wait_ns(waiting(3), 40_000) == 60_000
    assert rule.wait_ns(waiting(3), 100_000) <= 0
    assert rule.wait_ns(waiting(3, 2), 0) == 0
    assert rule.max_rows(5) == 4
    assert rule.max_rows(11) == 8
    assert rule.max_rows(3) == 64


async def test_waits_a_twentieth_of_a_run_for_the_queue_to_refill() -> None:
    rule = BatchingRule(ServingConfig(batching="on"), allowed=True)
    assert rule.wait_ns(waiting(1), 0) == 0
    rule.ran(batch_of(4, 0), ended_ns=40_000_000, waiting_rows=3)
    assert rule.wait_ns(waiting(3), 40_000_000) == 2_000_000
    assert rule.wait_ns(waiting(3, 4), 40_000_000) == 0
    rule.ran(batch_of(4, 0), ended_ns=1_000_000_000, waiting_rows=3)
    assert rule.wait_ns(waiting(3, came_ns=1_001_000_000), 1_001_000_000) == 5_000_000
    rule.ran(batch_of(4, 0), ended_ns=1_000_000, waiting_rows=3)
    assert rule.wait_ns(waiting(3), 1_000_000) == 0


async def test_a_batch_takes_what_fits_and_leaves_the_rest_in_order() -> None:
    queue = waiting(2, 3, 2, 1)
    taken = queue.take(max_rows=5, max_bytes=10**6)
    assert [request.rows for request in taken.requests] == [2, 3]
    assert (taken.rows, len(queue), queue.rows) == (5, 2, 3)
    taken = queue.take(max_rows=5, max_bytes=9)
    assert [request.rows for request in taken.requests] == [2]
    queue.put_back(taken.requests)
    assert [request.rows for request in queue.clear()] == [2, 1]
