"""Models run in processes of their own, which may die without taking anything with them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from server.model_parts import (
    FOREVER,
    SOON_S,
    add_model,
    added,
    count_to,
    counting_model,
    external_model,
    floats,
    own_fork_servers,
    own_workers,
    stored,
    until,
    until_busy,
)

from blindai.bundle import UploadHeader
from blindai.errors import (
    BlindAIError,
    DeadlineExceededError,
    InternalError,
    InvalidInputError,
    InvalidModelError,
    ModelNotFoundError,
    ModelNotReadyError,
    TooLargeError,
    UnsealError,
)
from blindai.oip.tensors import Datatype, Tensor, TensorSpec
from blindai.server import worker_protocol as protocol
from blindai.server.cpu_quota import available_cpus, parse_quota
from blindai.server.forking import ForkServers
from blindai.server.model_store import ModelStore
from blindai.server.request_queue import Batch, queued_request
from blindai.server.runner import ModelFace
from blindai.server.runner_start import PoolOptions
from blindai.server.scheduler import Scheduler
from blindai.server.statistics import ModelStatistics
from blindai.server.worker_launch import WorkerLimits, launch_worker
from blindai.server.worker_pool import WorkerPool
from blindai.server.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    opened = ModelStore(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
async def pool(store: ModelStore) -> AsyncIterator[WorkerPool]:
    opened = WorkerPool(store)
    yield opened
    await opened.close()
    assert own_fork_servers() == []


def exists(process_id: int) -> bool:
    return Path(f"/proc/{process_id}").exists()


def seen_by(process_id: int) -> tuple[set[str], list[str], list[str]]:
    """Names in a process's environment, what its descriptors are, and what lies in its working directory."""
    root = Path(f"/proc/{process_id}")
    names = {entry.partition("=")[0] for entry in (root / "environ").read_text("utf-8").split("\0") if entry}
    descriptors = [str(path.readlink()) for path in (root / "fd").iterdir()]
    return names, descriptors, [path.name for path in (root / "cwd").iterdir()]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_runs_a_model_and_tells_its_inputs(store: ModelStore, pool: WorkerPool) -> None:
    model = stored(store, add_model())
    assert pool.process_ids == ()
    assert await pool.metadata(model, "public") == ModelFace(
        inputs=(TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1,)),),
        outputs=(TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1,)),),
        precision="fp32",
        providers=("cpu",),
    )
    assert await added(pool, model, 1, 2) == [2, 3]
    assert await added(pool, model) == []
    assert len(pool.process_ids) == 1


async def test_requests_that_come_at_once_share_one_process_and_get_their_own_answers(
    store: ModelStore, pool: WorkerPool
) -> None:
    model = stored(store, add_model())
    answers = await asyncio.gather(*(added(pool, model, index) for index in range(50)))
    assert answers == [[index + 1] for index in range(50)]
    assert len(pool.process_ids) == 1


async def test_each_model_has_its_own_process(store: ModelStore, pool: WorkerPool) -> None:
    one, two = stored(store, add_model(1), "one"), stored(store, add_model(2), "two")
    answers = await asyncio.gather(added(pool, one, 0), added(pool, two, 0))
    assert list(answers) == [[1], [2]]
    assert len(set(pool.process_ids)) == 2


async def test_large_tensors_pass_both_ways(store: ModelStore, pool: WorkerPool) -> None:
    model = stored(store, add_model())
    data = np.arange(3_000_000, dtype=np.float32)
    inputs = (Tensor(name="x", datatype=Datatype.FP32, shape=data.shape, data=data),)
    for (output,) in await asyncio.gather(*(pool.infer(model, "public", inputs) for _ in range(3))):
        np.testing.assert_array_equal(output.data, data + 1)


async def test_a_request_that_does_not_fit_fails_alone(store: ModelStore, pool: WorkerPool) -> None:
    model = stored(store, add_model())
    wrong = (Tensor(name="x", datatype=Datatype.FP64, shape=(1,), data=np.zeros(1)),)
    with pytest.raises(InvalidInputError, match="the model expects FP32"):
        await pool.infer(model, "public", wrong)
    with pytest.raises(InvalidInputError, match="does not have") as raised:
        await pool.infer(model, "public", floats(1), ("unknown",))
    assert raised.value.hint == "The model has y FP32 [-1]."
    with pytest.raises(InvalidInputError, match="1 MiB"):
        await pool.infer(model, "public", floats(1), ("x" * 2**20,))
    assert await added(pool, model, 1) == [2]


async def test_a_bundle_with_external_weights_works(store: ModelStore, pool: WorkerPool) -> None:
    data = {
        "m.onnx.data": bytes(8) + np.arange(4, dtype="<f4").tobytes(),
        "m.onnx": external_model("m.onnx.data", 4, 8),
    }
    model = stored(store, data)
    assert await added(pool, model, 1) == [7]
    assert (await pool.metadata(model, "public")).precision == "fp32"


@pytest.mark.parametrize("location", ["/etc/passwd", "../../../../../../../etc/passwd", "passwd"])
async def test_a_model_cannot_read_the_machines_files(store: ModelStore, pool: WorkerPool, location: str) -> None:
    model = stored(store, {"m.onnx": external_model(location, 4), "m.onnx.data": bytes(16)})
    with pytest.raises(InvalidModelError, match="same upload"):
        await pool.load(model, "public")
    assert pool.process_ids == ()


async def test_every_caller_learns_that_a_model_is_none(store: ModelStore, pool: WorkerPool) -> None:
    model = stored(store, b"no model")
    answers = await asyncio.gather(*(pool.load(model, "public") for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [InvalidModelError] * 3
    with pytest.raises(InvalidModelError):
        await pool.infer(model, "public", floats(1))


async def test_death_of_the_process_fails_what_is_in_flight_and_what_waits_runs_on_the_next(
    store: ModelStore, pool: WorkerPool
) -> None:
    model = stored(store, counting_model())
    await pool.load(model, "public")
    (process_id,) = pool.process_ids
    running = asyncio.create_task(pool.infer(model, "public", count_to(FOREVER)))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(pool.infer(model, "public", count_to(number))) for number in range(3)]
    await until_busy(process_id)
    os.kill(process_id, signal.SIGKILL)
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ModelNotReadyError) as raised:
            await running
        assert raised.value.retry_after_s == 1
        assert [int(output.data) for (output,) in await asyncio.gather(*waiting)] == [0, 1, 2]
    assert pool.process_ids not in ((), (process_id,))


async def test_death_of_an_idle_process_is_not_noticed_by_users(store: ModelStore, pool: WorkerPool) -> None:
    model = stored(store, add_model())
    await pool.load(model, "public")
    (process_id,) = pool.process_ids
    os.kill(process_id, signal.SIGKILL)
    await until(lambda: process_id not in pool.process_ids)
    assert await added(pool, model, 1) == [2]


async def test_one_models_death_is_not_the_others(store: ModelStore, pool: WorkerPool) -> None:
    slow, other = stored(store, counting_model(), "slow"), stored(store, add_model(), "other")
    await pool.load(slow, "public")
    (process_id,) = pool.process_ids
    running = asyncio.create_task(pool.infer(slow, "public", count_to(FOREVER)))
    assert await added(pool, other, 1) == [2]
    os.kill(process_id, signal.SIGKILL)
    with pytest.raises(ModelNotReadyError):
        await running
    assert await added(pool, other, 2) == [3]


async def test_a_run_that_takes_too_long_is_broken_off_and_the_process_goes_on(store: ModelStore) -> None:
    pool = WorkerPool(store, PoolOptions(run_timeout_s=0.5))
    try:
        model = stored(store, counting_model())
        await pool.load(model, "public")
        before = pool.process_ids
        first = asyncio.create_task(pool.infer(model, "public", count_to(FOREVER)))
        await asyncio.sleep(0)
        second = asyncio.create_task(pool.infer(model, "public", count_to(1)))
        (answer,) = await asyncio.gather(first, return_exceptions=True)
        assert isinstance(answer, DeadlineExceededError)
        (output,) = await second
        assert output.data == 1
        assert pool.process_ids == before
    finally:
        await pool.close()


async def test_an_answer_above_the_limit_is_refused_with_words(store: ModelStore) -> None:
    pool = WorkerPool(store, PoolOptions(max_answer_bytes=1000))
    try:
        model = stored(store, add_model())
        assert await added(pool, model, 1) == [2]
        before = pool.process_ids
        with pytest.raises(TooLargeError, match="1000 bytes"):
            await added(pool, model, *range(251))
        assert await added(pool, model, *range(250)) == [index + 1 for index in range(250)]
        assert pool.process_ids == before
    finally:
        await pool.close()


async def test_a_client_that_goes_away_does_not_disturb_the_next(store: ModelStore, pool: WorkerPool) -> None:
    model = stored(store, counting_model())
    await pool.load(model, "public")
    gone = asyncio.create_task(pool.infer(model, "public", count_to(100_000)))
    await asyncio.sleep(0.01)
    gone.cancel()
    (output,) = await pool.infer(model, "public", count_to(2))
    assert output.data == 2
    assert gone.cancelled()


async def test_a_caller_that_goes_away_does_not_end_the_start_for_others(store: ModelStore, pool: WorkerPool) -> None:
    model = stored(store, add_model())
    gone = asyncio.create_task(pool.load(model, "public"))
    staying = asyncio.create_task(added(pool, model, 1))
    await asyncio.sleep(0)
    gone.cancel()
    assert await staying == [2]


async def test_a_model_that_is_no_more_leaves_nothing_in_memory(store: ModelStore, pool: WorkerPool) -> None:
    before = {id(found) for found in gc.get_objects()}
    for number in range(3):
        model = stored(store, add_model(number + 1), name=f"m{number}")
        twin = stored(store, add_model(number + 1), name=f"t{number}")
        assert model.digest == twin.digest
        for one in (model, twin):
            await added(pool, one, 1)
        pool.forget(twin)
        counted = pool.statistics(model).success.count, pool.statistics(twin).success.count
        assert counted == (1, 0)
        await pool.stop(model)
    gc.collect()
    kept = (found for found in gc.get_objects() if isinstance(found, Scheduler))
    assert [found for found in kept if id(found) not in before] == []


async def test_stop_ends_the_process_in_the_middle_of_a_run(store: ModelStore, pool: WorkerPool) -> None:
    model = stored(store, counting_model())
    await pool.load(model, "public")
    (process_id,) = pool.process_ids
    running = asyncio.create_task(pool.infer(model, "public", count_to(FOREVER)))
    await until_busy(process_id)
    await pool.stop(model)
    with pytest.raises(ModelNotReadyError):
        await running
    assert not exists(process_id)
    await pool.stop(model)


@pytest.mark.parametrize("pause_s", [0, 0.02, 0.1, 0.2])
async def test_stop_during_the_start_leaves_no_process(store: ModelStore, pool: WorkerPool, pause_s: float) -> None:
    model = stored(store, add_model())
    loading = asyncio.create_task(pool.load(model, "public"))
    await asyncio.sleep(pause_s)
    await pool.stop(model)
    (answer,) = await asyncio.gather(loading, return_exceptions=True)
    assert isinstance(answer, ModelNotReadyError) or (answer is None and pause_s)  # the start may have been faster
    assert pool.process_ids == ()
    assert own_workers() == []


async def test_close_ends_all_processes(store: ModelStore) -> None:
    pool = WorkerPool(store)
    await asyncio.gather(*(pool.load(stored(store, add_model(index), f"m{index}"), "public") for index in range(2)))
    process_ids = pool.process_ids
    assert len(process_ids) == 2
    await pool.close()
    assert pool.process_ids == ()
    assert not any(exists(process_id) for process_id in process_ids)


async def test_what_was_changed_on_disk_is_never_run(store: ModelStore, pool: WorkerPool, tmp_path: Path) -> None:
    model = stored(store, add_model())
    (path,) = (tmp_path / "store").iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UnsealError):
        await pool.load(model, "public")
    store.delete("m")
    with pytest.raises(ModelNotFoundError):
        await pool.load(model, "public")


async def test_the_servers_memory_does_not_grow_with_the_model(store: ModelStore, pool: WorkerPool) -> None:
    count = 24 * 1024 * 1024
    weights = np.zeros(1024, dtype="<f4").tobytes()
    graph = external_model("w.data", count)
    await pool.load(stored(store, add_model(), "small"), "public")
    sizes = (("m.onnx", len(graph)), ("w.data", 4 * count))
    upload = store.begin_upload("m", UploadHeader(version=None, files=sizes, default_shape=None, load=False))
    before = resident_bytes()
    upload.write(graph)
    for _ in range(4 * count // len(weights)):
        upload.write(weights)
    upload.complete()
    assert await added(pool, upload.register(), 1) == [1]
    assert resident_bytes() - before < 16 * 1024 * 1024


async def test_a_process_sees_nothing_of_the_servers_environment_or_descriptors(
    store: ModelStore, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_LOAD_CONFIG_FROM_MODEL", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    left, right = socket.socketpair()
    with left, right:
        left.set_inheritable(True)
        await pool.load(stored(store, add_model()), "public")
        (process_id,) = pool.process_ids
        if os.geteuid() != 0:  # a process that forbids dumps cannot be looked into by its own user either
            with pytest.raises(PermissionError):
                seen_by(process_id)
            return
        names, descriptors, working_directory = seen_by(process_id)
    assert names <= {
        "LANG",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPATH",
        "OPENBLAS_NUM_THREADS",
        "ORT_DISABLE_TELEMETRY",
    }
    assert sum("socket:" in link for link in descriptors) == 2
    # Those of the model are closed once it is loaded; a mapping keeps a descriptor of its own of each arena.
    assert sorted(link for link in descriptors if "memfd:" in link) == [
        "/memfd:answers (deleted)",
        "/memfd:requests (deleted)",
    ]
    assert working_directory == []


async def test_a_process_ends_when_the_server_is_gone_even_in_a_run(store: ModelStore, tmp_path: Path) -> None:
    model = stored(store, counting_model())
    limits = WorkerLimits(
        threads=1, max_request_bytes=4096, max_answer_bytes=4096, max_address_space_bytes=2**40, rows_wanted=False
    )
    forks = ForkServers(str(tmp_path), idle_s=60)
    fork_server = forks.of("public")
    await fork_server.until_ready()
    launched = launch_worker(store, model, fork_server, limits)
    worker = WorkerProcess(launched, max_answer_bytes=4096, on_finished=lambda *_: None, on_ended=lambda _: None)
    await worker.load()
    request = queued_request(count_to(FOREVER), (), ModelStatistics())
    worker.run(Batch(requests=(request,), rows=1, size=request.size))
    await until_busy(launched.process.pid)
    process_id = launched.process.pid
    assert exists(process_id)
    launched.control.shutdown(socket.SHUT_RDWR)  # as the end of the server's process would
    await until(lambda: not exists(process_id))
    await worker.end()
    await forks.close()


@pytest.mark.parametrize(
    ("cpu_max", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000", 0.5)]
)
def test_reads_the_cgroups_quota(cpu_max: str, quota: float | None) -> None:
    assert parse_quota(cpu_max) == quota


def test_uses_no_more_threads_than_it_may_run_on() -> None:
    assert 1 <= available_cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        b"\x80",
        protocol.encode_header(protocol.Failed(code="", message="", hint="")),
        protocol.encode_header(protocol.Result((), 0, 0, 0)) + b"\0",
        b"\x95\x90\0\0\0\0",  # one member too many
    ],
)
def test_a_header_that_cannot_be_read_is_a_value_error(header: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        protocol.decode_header(header, protocol.Result)


@pytest.mark.parametrize("shape", [(-2,), (0,) * 17])
def test_a_worker_cannot_claim_a_shape_that_is_none(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="none"):
        protocol.unpack_specs([protocol.SpecEntry("x", "FP32", shape)])


def test_a_worker_can_only_blame_the_model_the_input_or_itself() -> None:
    def blame(error: Exception) -> BlindAIError:
        return protocol.error_of(protocol.failure_of(error))

    assert isinstance(blame(InvalidInputError("wrong")), InvalidInputError)
    assert isinstance(blame(InvalidModelError("wrong")), InvalidModelError)
    assert isinstance(blame(ModelNotFoundError("wrong")), InternalError)
    foreign = blame(RuntimeError("a user's data"))
    assert isinstance(foreign, InternalError)
    assert "data" not in str(foreign)
