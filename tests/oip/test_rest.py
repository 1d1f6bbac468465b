"""Requests, answers and metadata: exact round trips, exact numbers in JSON, and one kind of error for all else."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from blindai.errors import InvalidInputError
from blindai.oip.rest import (
    HeaderMemory,
    InferRequest,
    InferResponse,
    OutputForm,
    decode_infer_request,
    decode_infer_response,
    decode_metadata,
    encode_infer_request,
    encode_infer_response,
)
from blindai.oip.tensors import Datatype, Tensor, decode_tensor, encode_tensor, tensor_from

NAMES = st.text(st.characters(codec="utf-8"), max_size=6)
SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
SECRET = "s3cret"
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from(Datatype)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "x"]), inner, max_size=2),
    max_leaves=5,
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(Datatype))
    shape = draw(SHAPES)
    count = math.prod(shape)
    if datatype is Datatype.BYTES:
        items = draw(st.lists(st.binary(max_size=5), min_size=count, max_size=count))
        raw = b"".join(struct.pack("<I", len(item)) + item for item in items)
    elif datatype is Datatype.BOOL:
        raw = bytes(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    else:
        size = count * (datatype.itemsize or 0)
        raw = draw(st.binary(min_size=size, max_size=size))
    return decode_tensor(raw, name=draw(NAMES), datatype=datatype, shape=shape)


def content(found: tuple[Tensor, ...]) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    return [(tensor.name, tensor.datatype, tensor.shape, bytes(encode_tensor(tensor))) for tensor in found]


def request_json(datatype: str, shape: list[Any], data: str) -> bytes:
    head = json.dumps({"name": "x", "datatype": datatype, "shape": shape})
    return b'{"inputs":[%s,"data":%s}]}' % (head[:-1].encode(), data.encode())


def read_json(datatype: str, shape: list[Any], data: str) -> Tensor:
    return decode_infer_request(request_json(datatype, shape, data), None).inputs[0]


def binary_request(*entries: dict[str, Any], tail: bytes = b"", **members: Any) -> tuple[bytes, int]:
    header = json.dumps({"inputs": list(entries), **members}).encode()
    return header + tail, len(header)


def entry(size: Any = 8, **members: Any) -> dict[str, Any]:
    return {
        "name": "x", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": size}, **members
    }  # fmt: skip


@given(
    inputs=st.lists(tensors(), max_size=3),
    outputs=st.lists(NAMES, max_size=2),
    parameters=st.dictionaries(NAMES, st.booleans() | st.integers(-(2**63), 2**64 - 1) | NAMES, max_size=2),
    request_id=NAMES,
)
def test_requests_round_trip(
    inputs: list[Tensor], outputs: list[str], parameters: dict[str, Any], request_id: str
) -> None:
    request = InferRequest(
        id=request_id, inputs=tuple(inputs), outputs=tuple(outputs), parameters=tuple(parameters.items())
    )
    buffers, header_length = encode_infer_request(request)
    found = decode_infer_request(b"".join(buffers), header_length)
    assert found.binary
    assert content(found.inputs) == content(request.inputs)
    assert (found.id, found.outputs, found.parameters) == (request.id, request.outputs, request.parameters)


@given(outputs=st.lists(tensors(), max_size=3), name=NAMES, version=NAMES, request_id=NAMES)
def test_answers_round_trip(outputs: list[Tensor], name: str, version: str, request_id: str) -> None:
    response = InferResponse(model_name=name, model_version=version, id=request_id, outputs=tuple(outputs))
    buffers, header_length = encode_infer_response(response)
    found = decode_infer_response(memoryview(b"".join(buffers)), header_length)
    assert content(found.outputs) == content(response.outputs)
    assert (found.model_name, found.model_version, found.id) == (name, version, request_id)


def test_request_is_written_as_the_protocol_says() -> None:
    buffers, header_length = encode_infer_request(
        InferRequest(inputs=(tensor_from([[1, 2]], name="a", datatype=Datatype.INT16),), outputs=("b",))
    )
    body = b"".join(buffers)
    header = (
        b'{"inputs":[{"name":"a","datatype":"INT16","shape":[1,2],"parameters":{"binary_data_size":4}}],'
        b'"outputs":[{"name":"b"}],"parameters":{"binary_data_output":true}}'
    )
    assert body == header.ljust(header_length) + b"\1\0\2\0"
    assert 0 <= header_length - len(header) < 8
    assert header_length % 8 == 0


def test_first_tensor_is_used_where_it_lies() -> None:
    buffers, header_length = encode_infer_request(InferRequest(inputs=(tensor_from(np.ones(4096), name="x"),)))
    body = np.frombuffer(b"".join(buffers), np.uint8)
    assert np.shares_memory(decode_infer_request(body.data, header_length).inputs[0].data, body)


def test_both_forms_may_stand_side_by_side() -> None:
    written = {"name": "y", "datatype": "INT8", "shape": [1], "data": [7]}
    body, length = binary_request(entry(), written, entry(name="z"), tail=struct.pack("<4i", 1, 2, 3, 4))
    found = decode_infer_request(body, length).inputs
    assert [tensor.as_flat() for tensor in found] == [[1, 2], [7], [3, 4]]


def test_parameters_of_other_servers_are_passed_over() -> None:
    body, length = binary_request(
        entry(parameters={"binary_data_size": 8, "content_type": {"any": ["thing"]}}),
        outputs=[{"name": "y", "parameters": {"binary_data": True}}],
        parameters={"timeout": 5, "binary_data_output": True, "ratio": 0.5},
        tail=bytes(8),
    )
    request = decode_infer_request(body, length)
    assert request.outputs == ("y",)
    assert (request.binary, request.forms) == (True, (OutputForm(binary=True),))
    assert dict(request.parameters) == {"timeout": 5, "ratio": 0.5}


def test_unknown_members_of_a_request_are_ignored_and_cost_nothing() -> None:
    assert decode_infer_request(b'{"inputs":[],"surprise":{"any":["thing"]}}', None).inputs == ()
    with pytest.raises(InvalidInputError, match=r"nesting depth exceeds maximum allowed limit \(100\)"):
        decode_infer_request(b'{"inputs":[],"surprise":' + b"[" * 101 + b"]" * 101 + b"}", None)
    with pytest.raises(InvalidInputError, match="nesting depth"):
        decode_infer_request(b'{"a":' * 250_000, None)
    assert decode_infer_request(b'{"inputs":[],"surprise":"' + b"[" * 1000 + b'"}', None).inputs == ()


def test_forms_of_outputs_round_trip() -> None:
    forms = (OutputForm(binary=True), OutputForm(binary=False, classes=3))
    request = InferRequest(inputs=(), outputs=("a", "b"), forms=forms, binary=False)
    buffers, header_length = encode_infer_request(request)
    found = decode_infer_request(b"".join(buffers), header_length)
    assert (found.outputs, found.forms, found.binary) == (("a", "b"), forms, False)


def test_no_inputs_and_no_outputs_are_allowed() -> None:
    request = decode_infer_request(b'{"inputs":[],"outputs":[]}', None)
    assert (request.inputs, request.outputs, request.id) == ((), (), "")


# Refusals of the binary form and of the message around it.


@pytest.mark.parametrize(
    ("size", "tail", "reason"),
    [
        (8, 4, "8 bytes declared, 4 left"),
        (8, 0, "8 bytes declared, 0 left"),
        (8, 9, "unexpected additional input data: 1 bytes after the last tensor"),
        (4, 4, r"Expected 8, got 4 \(2 elements"),
        (12, 12, r"Expected 8, got 12 \(2 elements"),
        (2**80, 8, "declared, 8 left"),
        (-8, 8, "Expected int >= 0"),
        ("8", 8, "got str"),
        (8.0, 8, "got float"),
        (True, 8, "got bool"),
        (None, 8, "got null"),
    ],
)
def test_declared_sizes_must_be_the_bytes(size: Any, tail: int, reason: str) -> None:
    body, length = binary_request(entry(size), tail=bytes(tail))
    with pytest.raises(InvalidInputError, match=reason):
        decode_infer_request(body, length)


@pytest.mark.parametrize("length", [-1, 0, 10_000, 99_999_999_999, 1, 40])
def test_header_length_must_be_that_of_the_json(length: int) -> None:
    body, _ = binary_request(entry(), tail=bytes(8))
    with pytest.raises(InvalidInputError):
        decode_infer_request(body, length)


def test_without_a_header_length_the_body_is_json() -> None:
    body, _ = binary_request(entry())
    with pytest.raises(InvalidInputError, match="8 bytes declared, 0 left"):
        decode_infer_request(body, None)


def test_huge_claims_cost_nothing() -> None:
    for datatype in ("INT8", "BYTES"):
        body, length = binary_request(entry(datatype=datatype, shape=[2**40]), tail=bytes(8))
        with pytest.raises(InvalidInputError):
            decode_infer_request(body, length)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"inputs": None},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": [], "id": 5},
        {"inputs": [], "parameters": {"x": {}}},
        {"inputs": [], "parameters": None},
        {"inputs": [], "outputs": ["y"]},
        {"inputs": [], "outputs": [{}]},
        {"inputs": [], "outputs": [{"name": "y", "surprise": 1}]},
        {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
        {"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
        {"inputs": [], "parameters": {"binary_data_output": "yes"}},
        {"inputs": [], "parameters": {"triton_enable_empty_final_response": True}},
        {"inputs": [], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]},
        {"inputs": [entry(parameters={})]},
        {"inputs": [entry(parameters={"shared_memory_region": "r"})]},
        {"inputs": [entry(0, shape=[0], data=[])]},
        {"inputs": [entry(name=None)]},
        {"inputs": [entry(surprise=1)]},
        [],
        None,
    ],
    ids=str,
)
def test_messages_of_another_form_are_refused(message: Any) -> None:
    with pytest.raises(InvalidInputError):
        decode_infer_request(json.dumps(message).encode(), None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"[", b"nul", b"\xff", b'{"inputs":[]}x', b'{"inputs":[],"id":"\xff"}', b'\xef\xbb\xbf{"inputs":[]}',
        b"[" * 200_000, b'{"a":' * 200_000,
    ],
    ids=range(10),
)  # fmt: skip
def test_malformed_json_is_refused(body: bytes) -> None:
    for decode in (decode_infer_request, decode_infer_response):
        with pytest.raises(InvalidInputError):
            decode(body, None)
    with pytest.raises(InvalidInputError):
        decode_metadata(body)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"inputs": [entry(**{SECRET: 1})]}),
        json.dumps({"inputs": [entry(**{f"x - at `$.{SECRET}": 1})]}),
        json.dumps({"inputs": [entry(datatype=SECRET)]}),
        json.dumps({"inputs": [], "parameters": {SECRET: {SECRET: SECRET}}}),
        json.dumps({"inputs": [], "outputs": [{"name": SECRET, "parameters": {"classification": SECRET}}]}),
        json.dumps({"inputs": [entry(data=[SECRET])]}),
        json.dumps({"inputs": [{"name": "x", "datatype": "INT32", "shape": [1], "data": [SECRET]}]}),
        json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [2], "data": [SECRET]}]}),
    ],
)
def test_refusals_quote_nothing_that_was_sent(body: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        decode_infer_request(body.encode(), None)
    error = refused.value
    assert SECRET not in f"{error} {error.hint} {error.__cause__}"
    assert error.__suppress_context__ or error.__context__ is None


def test_refusals_say_where() -> None:
    with pytest.raises(InvalidInputError, match=r"Expected int >= 0 at \$\.inputs\[0\]\.shape\[1\]"):
        read_json("INT32", [1, -1], "[1]")
    with pytest.raises(InvalidInputError, match=r"at \$\.inputs\[0\]\.datatype"):
        read_json("INT33", [1], "[1]")
    with pytest.raises(InvalidInputError, match="missing required field inputs"):
        decode_infer_request(b"{}", None)


# Fuzzing: any bytes give a result or an InvalidInputError.


@given(body=st.binary(max_size=200), length=st.none() | st.integers(-5, 250))
def test_any_bytes_are_read_or_refused(body: bytes, length: int | None) -> None:
    for decode in (decode_infer_request, decode_infer_response):
        try:
            decode(body, length)
        except InvalidInputError:
            continue
    try:
        decode_metadata(body)
    except InvalidInputError:
        return


@given(
    inputs=st.lists(tensors(), min_size=1, max_size=2),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    shift=st.integers(-2, 2),
)
def test_damaged_requests_are_read_or_refused(inputs: list[Tensor], edits: list[tuple[int, int]], shift: int) -> None:
    buffers, header_length = encode_infer_request(InferRequest(inputs=tuple(inputs)))
    body = bytearray(b"".join(buffers))
    for position, value in edits:
        body[position % len(body)] = value
    try:
        found = decode_infer_request(bytes(body), header_length + shift)
    except InvalidInputError:
        return
    assert all(tensor.data.shape == tensor.shape for tensor in found.inputs)


@given(
    tensor=st.fixed_dictionaries(
        {},
        optional={
            "name": st.text(max_size=2) | JSON_VALUES,
            "datatype": st.sampled_from(Datatype) | JSON_VALUES,
            "shape": st.lists(st.integers(-1, 4) | st.integers(), max_size=3) | JSON_VALUES,
            "data": JSON_VALUES,
            "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(0, 9)}) | JSON_VALUES,
        },
    ),
    tail=st.binary(max_size=9),
)
def test_json_of_nearly_the_right_form_is_read_or_refused(tensor: dict[str, Any], tail: bytes) -> None:
    body, length = binary_request(tensor, tail=tail)
    try:
        found = decode_infer_request(body, length)
    except InvalidInputError:
        return
    assert found.inputs[0].data.shape == tuple(tensor["shape"])


HEADERS = (
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]},
    {"inputs": [{"name": "x", "datatype": "INT8", "shape": [4], "parameters": {"binary_data_size": 4}}], "id": "1"},
    {"inputs": [{"name": "x", "datatype": "INT8", "shape": [2], "data": [1, 2]}], "outputs": [{"name": "y"}]},
    {"inputs": [{"name": "x", "datatype": "INT8", "shape": [2]}]},
    {"inputs": [], "parameters": {"binary_data_output": True, "p": 1}},
    {"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": True, "classification": 2}}]},
    {"inputs": [], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "z"}}]},
    {"inputs": [], "parameters": {"triton_x": 1}},
)


def said(body: bytes, length: int, memory: HeaderMemory | None) -> object:
    """All that a request says, or why it is none."""
    try:
        request = decode_infer_request(body, length, memory)
    except InvalidInputError as error:
        return str(error)
    inputs = [(t.name, t.datatype, t.shape, t.data.tobytes()) for t in request.inputs]
    return inputs, request.id, request.outputs, request.forms, request.binary, request.parameters


@given(st.lists(st.tuples(st.sampled_from(HEADERS), st.sampled_from([b"", b"abcd", b"efgh", b"abcde"])), max_size=8))
def test_a_memory_of_headers_changes_nothing_that_is_read(asked: list[tuple[object, bytes]]) -> None:
    memory = HeaderMemory()
    for message, raw in asked:
        header = json.dumps(message).encode()
        assert said(header + raw, len(header), memory) == said(header + raw, len(header), None)


def test_only_short_headers_without_data_are_kept() -> None:
    """There may be tens of thousands of sessions, each with one."""
    memory = HeaderMemory()
    long = json.dumps({"inputs": [], "id": "i" * 1024}).encode()
    for header in (long, json.dumps(HEADERS[2]).encode()):
        decode_infer_request(header, len(header), memory)
        assert memory.recall(header) is None
