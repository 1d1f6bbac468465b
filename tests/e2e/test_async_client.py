"""`AsyncClient` against a real server: the calls of `Client`, many at a time."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from e2e import tiny_models

from blindai import AsyncClient
from blindai.client.results import InferResult
from blindai.errors import (
    ChannelError,
    ConnectionLostError,
    InvalidInputError,
    ModelNotFoundError,
    PolicyViolationError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.running_server import RunningServer

pytestmark = pytest.mark.network

MANY = 200


async def test_a_simulated_server_is_refused_unless_the_caller_says_otherwise(server_url: str) -> None:
    with pytest.raises(PolicyViolationError) as refused:
        async with AsyncClient(server_url):
            pass
    assert "insecure_simulation" in refused.value.hint


async def test_every_call(server_url: str, tmp_path: Path) -> None:
    path = tiny_models.dense(tmp_path / "async-dense.onnx", external="async-dense.onnx.data")
    size = tiny_models.size(path)
    seen: list[tuple[int, int]] = []
    async with AsyncClient(server_url, insecure_simulation=True) as client:
        assert client.attestation.simulated
        uploaded = await client.upload_model(path, progress=lambda *step: seen.append(step))
        assert seen[-1] == (size, size)
        data = np.random.default_rng(2).standard_normal((2, 64)).astype(np.float32)
        result = await client.infer("async-dense", data)
        assert result["y"].tobytes() == tiny_models.in_process(path, {"x": data})[0].tobytes()
        assert (await client.metadata("async-dense")).digest == uploaded.digest
        assert uploaded.digest in {model.digest for model in await client.models()}
        with pytest.raises(InvalidInputError, match="found 3 values"):
            await client.infer("async-dense", [1, 2, 3])
        assert await client.delete_model("async-dense") == 1
        with pytest.raises(ModelNotFoundError):
            await client.infer("async-dense", data)


async def test_two_hundred_inferences_at_once_get_their_own_answers(server_url: str, tmp_path: Path) -> None:
    async with AsyncClient(server_url, insecure_simulation=True) as client:
        name = (await client.upload_model(tiny_models.times(tmp_path / "async-many.onnx", 2))).name
        rows = [np.full((1 + turn % 3, 3), turn, np.float32) for turn in range(MANY)]
        results = await asyncio.gather(*(client.infer(name, row) for row in rows))
    assert all(np.array_equal(result["y"], 2 * row) for result, row in zip(results, rows, strict=True))
    assert len({result.receipt.request_id for result in results}) == MANY


async def test_two_hundred_inferences_at_once_may_be_a_clients_first_calls(server_url: str, tmp_path: Path) -> None:
    async with AsyncClient(server_url, insecure_simulation=True) as other:
        name = (await other.upload_model(tiny_models.times(tmp_path / "async-first.onnx", 2))).name
    client = AsyncClient(server_url, insecure_simulation=True)
    try:
        results = await asyncio.gather(*(client.infer(name, [turn, 0, 0]) for turn in range(MANY)))
    finally:
        await client.close()
    assert [result["y"][0, 0] for result in results] == [2 * turn for turn in range(MANY)]


async def test_cancelled_inferences_leave_the_client_usable_and_the_log_quiet(
    server_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncClient(server_url, insecure_simulation=True) as client:
        name = (await client.upload_model(tiny_models.times(tmp_path / "async-cancelled.onnx", 2))).name
        rows = np.ones((20_000, 3), np.float32)
        for turns in range(12):
            tasks = [asyncio.create_task(client.infer(name, rows)) for _ in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() for task in tasks)
        assert (await client.infer(name, [1, 2, 3]))["y"].tolist() == [[2, 4, 6]]
    gc.collect()  # asyncio tells of lost exceptions when their tasks go
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_a_client_closed_while_requests_run_fails_them_in_its_own_words(server_url: str, tmp_path: Path) -> None:
    async with AsyncClient(server_url, insecure_simulation=True) as other:
        name = (await other.upload_model(tiny_models.times(tmp_path / "async-closed.onnx", 2))).name
    for pause_s in (0, 0.005, 0.02):
        client = AsyncClient(server_url, insecure_simulation=True)
        await client.connect()
        tasks = [asyncio.create_task(client.infer(name, [1, 2, 3])) for _ in range(40)]
        await asyncio.sleep(pause_s)
        await client.close()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [end for end in ends if not isinstance(end, ChannelError | InferResult)]


async def test_a_closed_client_says_so(server_url: str) -> None:
    client = AsyncClient(server_url, insecure_simulation=True)
    with pytest.raises(ConnectionLostError, match="no living attestation") as early:
        _ = client.attestation
    assert "connect()" in early.value.hint
    await client.connect()
    await client.close()
    with pytest.raises(ConnectionLostError, match="closed"):
        await client.models()
    with pytest.raises(ConnectionLostError, match="closed"):
        _ = client.attestation
    assert client._connection.attested is None
    await client.close()  # twice does no harm


async def test_a_killed_server_is_a_connection_error(empty_server: RunningServer) -> None:
    async with AsyncClient(empty_server.url, insecure_simulation=True) as client:
        await client.models()
        empty_server.kill()
        with pytest.raises(ConnectionError) as lost:
            await client.models()
        assert isinstance(lost.value, ConnectionLostError)
