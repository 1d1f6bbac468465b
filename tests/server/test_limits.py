"""What requests may cost: memory for bodies, time on the event loop, elements of text; and what settings may say."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from blindai.bundle import UploadHeader
from blindai.errors import (
    InvalidInputError,
    InvalidSettingsError,
    OverloadedError,
    TooLargeError,
)
from blindai.oip.rest import MAX_BYTES_ELEMENTS, decode_infer_request
from blindai.oip.tensors import Datatype, Tensor
from blindai.server.access import open_principal
from blindai.server.budget import BodyBudget
from blindai.server.calls import Call
from blindai.server.infer import _decode, _is_quick
from blindai.server.model_store import ModelStore
from blindai.server.settings import Settings, load_settings
from blindai.server.worker_pool import WorkerPool, _encoded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MEBIBYTE = 1 << 20


async def pieces(count: int, size: int) -> AsyncIterator[memoryview]:
    for _ in range(count):
        yield memoryview(bytes(size))


def call_with(count: int, size: int) -> Call:
    return Call(principal=open_principal(""), method="POST", path="/", headers={}, body=pieces(count, size))


def binary_request(datatype: str, shape: list[int], data: bytes) -> tuple[memoryview, int]:
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    header = msgspec.json.encode({"inputs": [tensor]})
    return memoryview(header + data), len(header)


def json_request(datatype: str, values: list[Any]) -> memoryview:
    tensor = {"name": "x", "datatype": datatype, "shape": [len(values)], "data": values}
    return memoryview(msgspec.json.encode({"inputs": [tensor]}))


async def test_bodies_share_a_budget_and_give_it_back() -> None:
    budget = BodyBudget(max_bytes=1000)
    with budget.share() as first:
        assert len(await call_with(6, 100).read_body(10_000, first)) == 600
        with budget.share() as second, pytest.raises(OverloadedError):
            await call_with(5, 100).read_body(10_000, second)
        with budget.share() as third:
            assert len(await call_with(4, 100).read_body(10_000, third)) == 400
        assert budget.held_bytes == 600
    assert budget.held_bytes == 0


async def test_a_request_that_no_waiting_would_help_is_too_large() -> None:
    with BodyBudget(max_bytes=1000).share() as share, pytest.raises(TooLargeError, match="gives to all"):
        await call_with(11, 100).read_body(10_000, share)


async def test_a_body_is_held_once() -> None:
    with BodyBudget(max_bytes=64 * MEBIBYTE).share() as share:
        tracemalloc.start()
        body = await call_with(16, MEBIBYTE).read_body(64 * MEBIBYTE, share)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(body) == 16 * MEBIBYTE
    assert peak < 24 * MEBIBYTE


@pytest.mark.parametrize("header_length", [None, 16 * MEBIBYTE + 1])
async def test_json_that_would_hold_everybody_up_is_refused_before_it_is_parsed(header_length: int | None) -> None:
    with BodyBudget(max_bytes=1 << 40).share() as share, pytest.raises(TooLargeError, match="JSON form"):
        await _decode(memoryview(bytes(16 * MEBIBYTE + 1)), header_length, share)


async def test_json_is_counted_as_what_it_becomes() -> None:
    body = json_request("FP32", [0.0] * 100_000)
    budget = BodyBudget(max_bytes=4 * len(body))
    with budget.share() as share, pytest.raises(TooLargeError, match="memory"):
        await _decode(body, None, share)


def empty_elements(count: int) -> tuple[memoryview, int]:
    return binary_request("BYTES", [count], bytes(4 * count))


@pytest.mark.parametrize(
    ("body", "header_length"),
    [empty_elements(800_000), (json_request("INT64", [7] * 1_000_000), None)],
    ids=["text", "JSON"],
)
async def test_other_requests_go_on_while_a_long_one_is_decoded(body: memoryview, header_length: int | None) -> None:
    with BodyBudget(max_bytes=1 << 40).share() as share:
        decoding = asyncio.create_task(_decode(body, header_length, share))
        turns = 0
        while not decoding.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert (await decoding).inputs[0].data.size >= 400_000
    assert turns >= 3  # on the loop itself it is one


async def test_text_is_packed_for_the_model_beside_the_event_loop() -> None:
    data = np.full(1_000_000, b"", dtype=object)
    packing = asyncio.create_task(_encoded((Tensor(name="x", datatype=Datatype.BYTES, shape=data.shape, data=data),)))
    turns = 0
    while not packing.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns >= 3
    buffers = await packing
    assert len(buffers[0]) == 4_000_000


async def test_a_model_that_answers_with_too_many_elements_is_refused(tmp_path: Path) -> None:
    """Millions of objects would be the server's memory."""
    store = ModelStore(tmp_path / "store")
    pool = WorkerPool(store, directory=tmp_path)
    model = repeating_model()
    header = UploadHeader(version=None, files=(("m.onnx", len(model)),), default_shape=None, load=False)
    upload = store.begin_upload("m", header)
    upload.write(model)
    upload.complete()
    registered = upload.register()
    [answer] = await pool.infer(registered, "public", (text_tensor(), count_tensor(1000)))
    assert answer.data.tolist() == [b"a"] * 1000
    with pytest.raises(TooLargeError, match="BYTES elements"):
        await pool.infer(registered, "public", (text_tensor(), count_tensor(MAX_BYTES_ELEMENTS + 1)))
    await pool.close()
    store.close()


def repeating_model() -> bytes:
    """Y = x repeated n times, over text [1]."""
    infos = [
        helper.make_tensor_value_info("x", TensorProto.STRING, [1]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("y", TensorProto.STRING, ["m"]),
    ]
    graph = helper.make_graph([helper.make_node("Tile", ["x", "n"], ["y"])], "g", infos[:2], infos[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def text_tensor() -> Tensor:
    return Tensor(name="x", datatype=Datatype.BYTES, shape=(1,), data=np.array([b"a"], dtype=object))


def count_tensor(count: int) -> Tensor:
    return Tensor(name="n", datatype=Datatype.INT64, shape=(1,), data=np.array([count], dtype=np.int64))


@pytest.mark.parametrize(
    ("request_", "quick"),
    [
        (binary_request("FP32", [2], bytes(8)), True),
        (binary_request("FP32", [MEBIBYTE], bytes(4 * MEBIBYTE)), False),
        (empty_elements(1), False),
        ((json_request("FP32", [1.0]), None), False),
        ((json_request("FP32", [1.0]), len(json_request("FP32", [1.0]))), False),
        ((memoryview(b'{"inputs":[{"datatype":"B\\u0059TES"}]}'), 38), False),
        ((memoryview(b'{"inputs":[{"d\\u0061ta":[1]}]}'), 30), False),
        ((memoryview(b'{"inputs":[]' + b" " * 20_000 + b"}"), 20_013), False),
    ],
    ids=["numbers", "many", "text", "JSON", "JSON with a length", "disguised text", "disguised data", "long header"],
)
def test_only_a_few_numbers_are_decoded_at_once(request_: tuple[memoryview, int | None], quick: bool) -> None:  # noqa: FBT001  # a parameter
    assert _is_quick(*request_) is quick


def test_text_has_a_bounded_number_of_elements_and_is_counted_before_it_is_made() -> None:
    body, header_length = empty_elements(MAX_BYTES_ELEMENTS + 1)
    tracemalloc.start()
    with pytest.raises(InvalidInputError, match="at most 1000000 BYTES elements, this one 1000001"):
        decode_infer_request(body, header_length)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_the_elements_of_all_tensors_count_together() -> None:
    def tensor(count: int) -> dict[str, Any]:
        return {"name": "x", "datatype": "BYTES", "shape": [count], "parameters": {"binary_data_size": 4 * count}}

    header = msgspec.json.encode({"inputs": [tensor(MAX_BYTES_ELEMENTS), tensor(1)]})
    with pytest.raises(InvalidInputError, match="1000001"):
        decode_infer_request(header + bytes(4 * (MAX_BYTES_ELEMENTS + 1)), len(header))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service", ""),
        ("service", "x\n"),
        ("service", "x" * 300),
        ("host", ""),
        ("host", "a b"),
        ("port", -1),
        ("port", 65536),
        ("max_body_bytes", 2**60),
        ("max_models", 0),
        ("run_timeout_s", -1),
        ("max_uploads", 0),
        ("max_connections", 0),
        ("idle_timeout_s", 0),
        ("max_store_bytes", 1),
        ("max_buffered_bytes", 1),
        ("epoch_s", 10**6),
    ],
)
def test_refuses_settings_that_no_client_would_accept_or_no_server_can_keep(name: str, value: object) -> None:
    with pytest.raises(InvalidSettingsError, match=name):
        load_settings(None, {"simulation": True, name: value})


def test_every_number_of_the_settings_has_a_range() -> None:
    numbers = [name for name, value in Settings().__class__.__dataclass_fields__.items() if type(value.default) is int]
    assert len(numbers) > 8
    for name in numbers:
        with pytest.raises(InvalidSettingsError):
            load_settings(None, {"simulation": True, name: 2**53})
