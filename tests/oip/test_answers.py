"""Answers in JSON: every number exact, and what JSON cannot say refused; and the largest values as text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from blindai.errors import InvalidInputError
from blindai.oip.answers import MAX_JSON_ELEMENTS, InferResponse, OutputForm, decode_infer_response
from blindai.oip.answers import encode_infer_response as encode
from blindai.oip.classification import classify
from blindai.oip.raw_request import raw_request
from blindai.oip.tensors import Datatype, Tensor, TensorSpec, tensor_from

JSON = OutputForm(binary=False)
BINARY = OutputForm(binary=True)


def answer(*outputs: Tensor) -> InferResponse:
    return InferResponse(model_name="m", model_version="1", outputs=outputs)


def json_of(*outputs: Tensor) -> dict[str, Any]:
    buffers, header_length = encode(answer(*outputs), (JSON,) * len(outputs))
    assert header_length is None
    found: dict[str, Any] = json.loads(b"".join(buffers), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    return found


@given(
    values=npst.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint64, np.int64, np.bool_]),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    )
)
def test_json_answers_read_back_to_the_last_bit(values: Any) -> None:
    tensor = tensor_from(values, name="y")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        with pytest.raises(InvalidInputError, match="NaN or infinities") as refused:
            encode(answer(tensor), (JSON,))
        assert "binary" in refused.value.hint
        return
    buffers, _ = encode(answer(tensor), (JSON,))
    (found,) = decode_infer_response(b"".join(buffers), None).outputs
    assert (found.datatype, found.shape, found.data.tobytes()) == (tensor.datatype, tensor.shape, tensor.data.tobytes())


def test_whole_numbers_are_written_exactly() -> None:
    found = json_of(tensor_from([2**53 + 1, -(2**63)], name="y"), tensor_from([2**64 - 1], name="z"))
    assert [output["data"] for output in found["outputs"]] == [[2**53 + 1, -(2**63)], [2**64 - 1]]


def test_text_is_utf_8_or_refused() -> None:
    assert json_of(tensor_from(["é\0"], name="y"))["outputs"][0]["data"] == ["é\0"]
    with pytest.raises(InvalidInputError, match="not UTF-8") as refused:
        json_of(tensor_from([b"\xff"], name="y"))
    assert "xff" not in str(refused.value)


def test_forms_may_stand_side_by_side() -> None:
    x, y = tensor_from([1.5], name="x"), tensor_from([2, 3], name="y")
    buffers, header_length = encode(answer(x, y), (JSON, BINARY))
    found = decode_infer_response(b"".join(buffers), header_length)
    assert [output.as_flat() for output in found.outputs] == [[1.5], [2, 3]]
    assert len(buffers) == 2


def test_large_answers_are_not_written_as_json() -> None:
    tensor = tensor_from(np.zeros(MAX_JSON_ELEMENTS + 1, np.int8), name="y")
    with pytest.raises(InvalidInputError, match="at most"):
        encode(answer(tensor), (JSON,))


@pytest.mark.parametrize(
    ("values", "batched", "texts"),
    [
        ([[1.0, 5.0, 10.0, 4.0]], True, [[b"10.000000:2:c", b"5.000000:1:b"]]),
        ([1.0, 5.0, 10.0, 4.0], False, [b"10.000000:2:c", b"5.000000:1:b"]),
        ([[3, 3, 3], [1, 2, 3]], True, [[b"3:0:a", b"3:1:b"], [b"3:2:c", b"2:1:b"]]),
        ([float("nan"), 1.0], False, [b"1.000000:1:b", b"nan:0:a"]),
        ([0, 2**64 - 1], False, [b"18446744073709551615:1:b", b"0:0:a"]),
    ],
)
def test_classes_are_the_largest_values(values: Any, *, batched: bool, texts: list[Any]) -> None:
    datatype = Datatype.UINT64 if values == [0, 2**64 - 1] else None
    tensor = tensor_from(values, name="y", datatype=datatype)
    assert classify(tensor, 2, batched=batched, labels=("a", "b", "c")).data.tolist() == texts


def test_classes_without_a_label_have_none_and_fewer_values_give_fewer() -> None:
    assert classify(tensor_from([1, 2], name="y"), 9, batched=False, labels=("a",)).data.tolist() == [b"2:1", b"1:0:a"]
    assert classify(tensor_from(np.zeros((0, 3)), name="y"), 2, batched=True).shape == (0, 2)


@pytest.mark.parametrize("values", [["text"], np.zeros(1_000_001, np.int8)], ids=["text", "large"])
def test_what_cannot_be_classified_is_refused(values: Any) -> None:
    with pytest.raises(InvalidInputError, match="classification"):
        classify(tensor_from(values, name="y"), 1, batched=False)


def spec(shape: tuple[int, ...], datatype: Datatype = Datatype.FP32) -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=shape)


@pytest.mark.parametrize(
    ("found", "body", "batched", "shape"),
    [
        (spec((-1, -1)), bytes(12), True, (1, 3)),
        (spec((-1, 3)), bytes(24), False, (2, 3)),
        (spec(()), bytes(4), False, ()),
        (spec((-1,), Datatype.BYTES), b"\1\0\0\0a\0\0\0\0", False, (2,)),
    ],
)
def test_raw_bodies_tell_their_shape(found: TensorSpec, body: bytes, *, batched: bool, shape: tuple[int, ...]) -> None:
    request = raw_request(memoryview(body), [found], model="m", batched=batched)
    assert (request.inputs[0].shape, request.binary) == (shape, True)


@pytest.mark.parametrize(
    ("specs", "body", "words"),
    [
        ([spec((1,)), spec((1,))], bytes(4), "must only have 1 input"),
        ([spec((-1, -1))], bytes(4), "more than one variable-sized"),
        ([spec((2,))], bytes(9), "Expected 8, got 9"),
        ([spec((-1, 2))], bytes(12), "Expected 8 or a multiple of it, got 12"),
        ([spec((-1, 0))], bytes(4), "Expected 0"),
        ([spec((-1, 0))], b"", "another dimension is 0"),
        ([spec((2,), Datatype.BYTES)], b"\0\0\0\0", "Expected 2, got 1"),
        ([spec((-1,), Datatype.BYTES)], b"\xff\xff\xff\xffa", "ends inside element"),
    ],
)
def test_raw_bodies_that_do_not_tell_a_shape_are_refused(specs: list[TensorSpec], body: bytes, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        raw_request(memoryview(body), specs, model="m", batched=False)
