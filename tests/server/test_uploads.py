"""Uploads that run at the same time: none sees another's half, none is counted twice or undoes another."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from onnx import TensorProto, helper

from blindai.attester.simulation import SimulationAttester
from blindai.bundle import UploadHeader, UploadResult, encode_upload_header
from blindai.channel.heads import parse_wire_error
from blindai.errors import OverloadedError, TooLargeError
from blindai.server.access import open_principal
from blindai.server.calls import Call, Reply
from blindai.server.dispatch import Service, dispatch
from blindai.server.model_store import ModelStore, StoreLimits
from blindai.server.serve import create_app
from blindai.server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

BROKEN = b"no model at all"


@asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Service]:
    attester = SimulationAttester(random=os.urandom, measurement=bytes(32))
    service = create_app(Settings(simulation=True, **settings), attester=attester, directory=folder).sealed.service
    try:
        yield service
    finally:
        await service.pool.close()
        service.store.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with serving(tmp_path) as running:
        yield running


def adder(constant: float = 1.0) -> bytes:
    """Y = x + constant, over float [3]."""
    value = helper.make_tensor("w", TensorProto.FLOAT, [], [constant])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [value])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def header_of(size: int, *, load: bool = True, shape: tuple[int, ...] | None = None) -> UploadHeader:
    return UploadHeader(version=None, files=(("m.onnx", size),), default_shape=shape, load=load)


async def in_pieces(*pieces: bytes) -> AsyncIterator[memoryview]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield memoryview(piece)


async def upload(service: Service, data: bytes, name: str = "m", **header: Any) -> Reply:
    body = in_pieces(encode_upload_header(header_of(len(data), **header)), data[:10], data[10:])
    call = Call(
        principal=open_principal(""), method="POST", path=f"/v2/repository/models/{name}/upload", headers={}, body=body
    )
    return await dispatch(service, call)


def refusal(reply: Reply) -> tuple[int, str]:
    return reply.status, parse_wire_error(b"".join(reply.body)).code


def names(service: Service) -> list[str]:
    return [model.name for model in service.store.models()]


async def test_a_broken_model_sent_twice_at_once_is_twice_called_broken(service: Service) -> None:
    replies = await asyncio.gather(upload(service, BROKEN), upload(service, BROKEN))
    assert [refusal(reply) for reply in replies] == [(422, "invalid_model")] * 2
    assert names(service) == []


async def test_an_upload_that_fails_takes_nothing_from_an_equal_one_that_succeeds(service: Service) -> None:
    data = adder()
    bad, good = await asyncio.gather(upload(service, data, shape=(7, 7)), upload(service, data))
    assert refusal(bad) == (400, "invalid_input")
    assert good.status == 200
    assert names(service) == ["m"]
    assert len(service.pool.process_ids) == 1


async def test_a_failing_upload_does_not_end_the_process_of_the_model_that_was_there(service: Service) -> None:
    data = adder()
    await upload(service, data)
    before = service.pool.process_ids, service.store.models()
    assert refusal(await upload(service, data, shape=(7, 7))) == (400, "invalid_input")
    assert (service.pool.process_ids, service.store.models()) == before


async def test_a_model_that_cannot_run_is_seen_by_nobody_and_leaves_no_process(
    service: Service, tmp_path: Path
) -> None:
    await upload(service, adder(), "good")
    files, seen = stored_files(tmp_path), set()
    failing = asyncio.create_task(upload(service, BROKEN))
    while not failing.done():
        seen.add((service.store.resolve("@last").name, *names(service)))
        await asyncio.sleep(0.001)
    assert (await failing).status == 422
    assert seen == {("good", "good")}
    assert stored_files(tmp_path) == files
    assert len(service.pool.process_ids) == 1


def stored_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


async def test_equal_uploads_at_once_are_one_version(service: Service, tmp_path: Path) -> None:
    replies = await asyncio.gather(*(upload(service, adder()) for _ in range(4)))
    assert {UploadResult.decode(b"".join(reply.body)).version for reply in replies} == {"1"}
    assert names(service) == ["m"]
    assert len(stored_files(tmp_path)) == 1


async def test_the_same_model_again_is_the_same_version_and_the_last(service: Service) -> None:
    first = await upload(service, adder(1), "first")
    await upload(service, adder(2), "second")
    again = await upload(service, adder(1), "first")
    assert b"".join(again.body) == b"".join(first.body)
    assert names(service) == ["second", "first"]
    assert len(service.pool.process_ids) == 2


@pytest.mark.parametrize("load", [True, False])
async def test_no_more_models_are_stored_than_the_policy_says_however_many_come_at_once(
    tmp_path: Path,
    load: bool,  # noqa: FBT001  # a parameter
) -> None:
    async with serving(tmp_path, max_models=1) as service:
        count = 3 if load else 8
        uploads = (upload(service, adder(index), f"m{index}", load=load) for index in range(count))
        replies = await asyncio.gather(*uploads)
        assert sorted(reply.status for reply in replies) == [200, *[413] * (count - 1)]
        assert len(names(service)) == 1
        assert len(stored_files(tmp_path)) == 1
        assert len(service.pool.process_ids) == (1 if load else 0)


async def test_a_full_store_takes_the_same_model_again(tmp_path: Path) -> None:
    async with serving(tmp_path, max_models=1) as service:
        assert (await upload(service, adder(), load=False)).status == 200
        assert (await upload(service, adder(), load=False)).status == 200
        assert refusal(await upload(service, adder(), "other", load=False)) == (413, "too_large")
        assert refusal(await upload(service, adder(2), load=False)) == (413, "too_large")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    opened = ModelStore(tmp_path, limits=StoreLimits(max_bytes=100, max_uploads=2))
    yield opened
    opened.close()


def test_what_an_upload_announces_counts_until_it_ends(store: ModelStore) -> None:
    first = store.begin_upload("a", header_of(60))
    with pytest.raises(TooLargeError, match="100 bytes"):
        store.begin_upload("b", header_of(41))
    first.abort()
    first.abort()
    store.begin_upload("b", header_of(100)).abort()


def test_what_is_stored_counts_until_it_is_deleted(store: ModelStore) -> None:
    incoming = store.begin_upload("a", header_of(60))
    incoming.write(bytes(60))
    incoming.complete()
    incoming.register()
    with pytest.raises(TooLargeError):
        store.begin_upload("b", header_of(41))
    store.begin_upload("b", header_of(40)).abort()
    store.delete("a")
    store.begin_upload("b", header_of(100)).abort()


def test_only_so_many_uploads_run_at_a_time(store: ModelStore) -> None:
    running = [store.begin_upload(name, header_of(1)) for name in "ab"]
    with pytest.raises(OverloadedError):
        store.begin_upload("c", header_of(1))
    running[0].abort()
    running[1].write(b"x")
    running[1].complete()
    running[1].register()
    for name in "cd":
        store.begin_upload(name, header_of(1))


async def test_an_upload_that_ends_early_gives_back_what_it_held(tmp_path: Path) -> None:
    async with serving(tmp_path, max_uploads=1) as service:
        short = in_pieces(encode_upload_header(header_of(100)), b"short")
        call = Call(
            principal=open_principal(""), method="POST", path="/v2/repository/models/m/upload", headers={}, body=short
        )
        assert refusal(await dispatch(service, call)) == (409, "model_digest_mismatch")
        assert (await upload(service, adder())).status == 200
