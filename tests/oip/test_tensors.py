"""Tensors: raw bytes round-trip exactly, users' values take the shape that fits, misfits are said in words."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import element_count
from blindai.oip.tensors import Datatype, Tensor, TensorSpec, decode_tensor, encode_tensor, tensor_for, tensor_from

SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


def raw_elements(count: int) -> st.SearchStrategy[bytes]:
    items = st.lists(st.binary(max_size=9), min_size=count, max_size=count)
    return items.map(lambda parts: b"".join(struct.pack("<I", len(part)) + part for part in parts))


def raw_for(datatype: Datatype, shape: tuple[int, ...]) -> st.SearchStrategy[bytes]:
    """Every raw form of a shape: any bit pattern, so NaN payloads and subnormals too."""
    count = math.prod(shape)
    if datatype is Datatype.BYTES:
        return raw_elements(count)
    if datatype is Datatype.BOOL:
        return st.lists(st.booleans(), min_size=count, max_size=count).map(bytes)
    size = count * (datatype.itemsize or 0)
    return st.binary(min_size=size, max_size=size)


def make(value: Any, datatype: Datatype | None = None, **options: Any) -> Tensor:
    return tensor_from(value, name="x", datatype=datatype, **options)


@pytest.mark.parametrize("datatype", Datatype)
@given(data=st.data(), shape=SHAPES)
def test_raw_form_round_trips_bit_for_bit(datatype: Datatype, data: st.DataObject, shape: tuple[int, ...]) -> None:
    raw = data.draw(raw_for(datatype, shape))
    tensor = decode_tensor(raw, name="x", datatype=datatype, shape=shape)
    assert tensor.data.shape == tensor.shape == shape
    assert tensor.data.dtype == datatype.numpy
    assert bytes(encode_tensor(tensor)) == raw
    again = make(tensor.data if datatype is not Datatype.BF16 else tensor, datatype)
    assert bytes(encode_tensor(again)) == raw


@given(
    raw=st.binary(max_size=64), datatype=st.sampled_from(Datatype), shape=st.lists(st.integers(-2, 2**65), max_size=20)
)
def test_decoder_refuses_or_reads_every_byte(raw: bytes, datatype: Datatype, shape: list[int]) -> None:
    try:
        tensor = decode_tensor(memoryview(raw), name="x", datatype=datatype, shape=tuple(shape))
    except InvalidInputError:
        return
    assert len(encode_tensor(tensor)) == len(raw)


@pytest.mark.parametrize(
    ("value", "datatype", "raw"),
    [
        ([1, -2], Datatype.INT64, "0100000000000000feffffffffffffff"),
        ([[1], [258]], Datatype.UINT16, "01000201"),
        ([True, False], Datatype.BOOL, "0100"),
        ([1.0, -0.5], Datatype.FP16, "003c00b8"),
        ([1.0, -0.5], Datatype.BF16, "803f00bf"),
        (1.0, Datatype.FP32, "0000803f"),
        (["é", b"\xff\0", ""], Datatype.BYTES, "02000000c3a902000000ff0000000000"),
        ([], Datatype.FP64, ""),
    ],
)
def test_raw_form_is_the_protocols(value: Any, datatype: Datatype, raw: str) -> None:
    assert bytes(encode_tensor(make(value, datatype))).hex() == raw


def test_large_tensors_are_not_copied() -> None:
    array = np.arange(100_000, dtype=np.float32).reshape(100, 1000)
    raw = encode_tensor(make(array))
    assert np.shares_memory(np.frombuffer(raw, np.uint8), array)
    assert np.shares_memory(decode_tensor(raw, name="x", datatype=Datatype.FP32, shape=(100, 1000)).data, array)


def test_unaligned_bytes_become_an_aligned_array() -> None:
    raw = memoryview(b"?" + struct.pack("<2q", 1, 2))[1:]
    tensor = decode_tensor(raw, name="x", datatype=Datatype.INT64, shape=(2,))
    assert tensor.data.flags.aligned
    assert tensor.as_flat() == [1, 2]


def test_any_bool_byte_but_zero_is_true() -> None:
    tensor = decode_tensor(b"\0\1\2\xff", name="x", datatype=Datatype.BOOL, shape=(4,))
    assert bytes(encode_tensor(tensor)) == b"\0\1\1\1"


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_decoder_names_expected_and_found_bytes(size: int) -> None:
    with pytest.raises(InvalidInputError, match=rf"Expected 16, got {size} \(2 elements of INT64\)"):
        decode_tensor(bytes(size), name="x", datatype=Datatype.INT64, shape=(2,))


@pytest.mark.parametrize(
    "shape", [(-1,), (-1, -8), (1,) * 17, (2**62, 2**62), (0, 2**70), (0, 2**62, 2**62), (0, 2**61)], ids=str
)
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError):
        decode_tensor(b"", name="x", datatype=Datatype.FP64, shape=shape)


def test_element_count_computes_beyond_64_bits() -> None:
    assert element_count((2**20, 2**20)) == 2**40
    with pytest.raises(InvalidInputError):
        element_count((2**32, 2**32))  # 0 in 64 bits


@pytest.mark.parametrize(
    ("raw", "count", "reason"),
    [
        (b"", 1, "cannot hold"),
        (bytes(8), 2**40, "cannot hold"),
        (struct.pack("<I", 200) + b"ab", 1, "ends inside element 1 of 1"),
        (struct.pack("<I", 6) + b"sixsix" + b"\0\0", 2, "ends inside element 2 of 2"),
        (bytes(9), 2, "has 1 bytes after"),
        (bytes(8), 1, "has 4 bytes after"),
        (b"\0", 0, "has 1 bytes after"),
    ],
)
def test_text_must_fill_its_bytes_exactly(raw: bytes, count: int, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        decode_tensor(raw, name="x", datatype=Datatype.BYTES, shape=(count,))


def test_tensor_refuses_data_of_another_kind_than_it_says() -> None:
    with pytest.raises(InvalidInputError):
        Tensor(name="x", datatype=Datatype.INT64, shape=(2,), data=np.zeros(2, np.float64))
    with pytest.raises(InvalidInputError):
        Tensor(name="x", datatype=Datatype.FP64, shape=(3,), data=np.zeros(2, np.float64))


@pytest.mark.parametrize(
    ("value", "shape", "found"),
    [
        ([1, 2, 3, 4], (2, 2), (2, 2)),
        ([1, 2, 3, 4], (-1, 2), (2, 2)),
        ([1, 2, 3, 4], [1, np.int64(-1)], (1, 4)),
        ([[1, 2], [3, 4]], (-1, -1), (2, 2)),
        (5, (1, 1), (1, 1)),
        ([5], (), ()),
        ([], (0, 3), (0, 3)),
        ([], (-1, 3), (0, 3)),
        ("text", (-1,), (1,)),
    ],
)
def test_flat_values_take_the_shape(value: Any, shape: Any, found: tuple[int, ...]) -> None:
    assert make(value, shape=shape).shape == found


@pytest.mark.parametrize(
    ("value", "shape", "reason"),
    [
        ([1, 2, 3], (2, 2), r"shape \[2, 2\], which is 4 values; found 3 values in 1 axes"),
        ([1, 2, 3], (-1, 2), r"shape \[-1, 2\], a multiple of 2 values; found 3 values"),
        ([1, 2, 3, 4], (-1, -1), "open axes"),
        ([[1, 2], [3, 4]], (4,), "found 4 values in 2 axes"),
        ([], (0, -1), "multiple of 0"),
        ([1], (-2,), "below -1"),
        ([1], (1.0,), "whole numbers"),
        ([1], (1,) * 17, "more than 16 axes"),
        ([1], (2**40, 2**40), "addressed"),
    ],
)
def test_wrong_counts_name_the_expected_shape(value: Any, shape: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        make(value, shape=shape)


def spec(datatype: Datatype, *shape: int) -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=shape)


@pytest.mark.parametrize(
    ("value", "expected", "default_shape", "shape"),
    [
        ([1, 2, 3], spec(Datatype.INT64, -1, 3), None, (1, 3)),
        ([[1, 2, 3]] * 2, spec(Datatype.INT64, -1, 3), (1, 3), (2, 3)),
        ([1, 2, 3, 4], spec(Datatype.FP32, -1, -1), (1, 4), (1, 4)),
        ([1, 2, 3, 4], spec(Datatype.INT32, -1, -1), (2, -1), (2, 2)),
        (np.zeros((2, 2)), spec(Datatype.FP32, -1, -1), (1, 4), (2, 2)),
        (7, spec(Datatype.INT64), None, ()),
        ("text", spec(Datatype.BYTES, -1, 1), None, (1, 1)),
        (tensor_from([1.0], name="other"), spec(Datatype.FP64, -1), None, (1,)),
    ],
)
def test_values_are_fitted_to_the_models_input(
    value: Any, expected: TensorSpec, default_shape: tuple[int, ...] | None, shape: tuple[int, ...]
) -> None:
    tensor = tensor_for(value, expected, default_shape=default_shape)
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", expected.datatype, shape)


@pytest.mark.parametrize(
    ("value", "expected", "default_shape", "reason"),
    [
        ([1, 2], spec(Datatype.INT64, 1, 3), None, r"shape \[1, 3\], which is 3 values; found 2 values"),
        ([1, 2], spec(Datatype.INT64, -1, -1), (1, 3), r"shape \[1, 3\], which is 3 values; found 2 values"),
        (np.zeros((2, 2)), spec(Datatype.FP32, 1, 4), (1, 4), "found 4 values in 2 axes"),
        ([1, 2, 3], spec(Datatype.INT64, 3, 1), (1, 3), "default shape does not fit"),
        (["a"], spec(Datatype.INT64, 1), None, "INT64"),
        (tensor_from([1], name="other"), spec(Datatype.FP64, -1), None, "is INT64, expected FP64"),
    ],
)
def test_values_that_do_not_fit_the_models_input_are_refused(
    value: Any, expected: TensorSpec, default_shape: tuple[int, ...] | None, reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        tensor_for(value, expected, default_shape=default_shape)
