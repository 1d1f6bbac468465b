"""Users' values become tensors of the wished datatype without changing, or are refused without being quoted."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import narrow_to_bf16, widen_bf16
from blindai.oip.tensors import Datatype, Tensor, tensor_from

SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
FLOATS = [Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16]
INTEGERS = [member for member in Datatype if "INT" in member.value]
SECRET = 918273


def make(value: Any, datatype: Datatype | None = None) -> Tensor:
    return tensor_from(value, name="x", datatype=datatype)


@pytest.mark.parametrize(
    ("value", "datatype", "shape"),
    [
        (True, Datatype.BOOL, ()),
        (3, Datatype.INT64, ()),
        (2**64 - 1, Datatype.UINT64, ()),
        ([0.5], Datatype.FP64, (1,)),
        ("text", Datatype.BYTES, ()),
        ([[b"a", "b"]], Datatype.BYTES, (1, 2)),
        (np.float32(1), Datatype.FP32, ()),
        (np.zeros((2, 0), np.int8), Datatype.INT8, (2, 0)),
        (np.array(["a", "b"]), Datatype.BYTES, (2,)),
        (np.array([1.5], ml_dtypes.bfloat16), Datatype.BF16, (1,)),
        ([np.array([1, 2], np.uint8), np.array([3, 4], np.uint8)], Datatype.UINT8, (2, 2)),
    ],
)
def test_without_a_datatype_the_value_keeps_its_own(value: Any, datatype: Datatype, shape: tuple[int, ...]) -> None:
    tensor = make(value)
    assert (tensor.datatype, tensor.shape) == (datatype, shape)


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([3.0, -4.0], Datatype.INT8),
        ([1, 0], Datatype.BOOL),
        ([1.0, 0.0], Datatype.BOOL),
        ([True, False], Datatype.INT64),
        ([2**53 + 1, 0.0], Datatype.INT64),
        ([2**63, 0.0], Datatype.UINT64),
        ([2**24, -(2**30)], Datatype.FP32),
        ([256, 512], Datatype.BF16),
        (np.array([-1, 5], np.int8), Datatype.INT32),
        (np.array([1, 2], ">i4"), Datatype.INT64),
        (np.array([1.5, 2.0], ml_dtypes.bfloat16), Datatype.FP16),
        (np.array([1, 2], dtype=object), Datatype.INT16),
    ],
)
def test_lossless_conversions_are_made(value: Any, datatype: Datatype) -> None:
    assert make(value, datatype).as_flat() == list(value)


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([3.7], Datatype.INT64),
        ([float("nan")], Datatype.INT32),
        ([float("inf")], Datatype.UINT8),
        ([300], Datatype.UINT8),
        ([-1], Datatype.UINT64),
        ([2**63], Datatype.INT64),
        ([2**64], Datatype.UINT64),
        ([float(2**63)], Datatype.INT64),
        ([2**63, -1], Datatype.INT64),
        (np.array([2.0**31], np.float32), Datatype.INT32),
        ([2], Datatype.BOOL),
        ([0.5], Datatype.BOOL),
        ([2**24 + 1], Datatype.FP32),
        ([2**53 + 1], Datatype.FP64),
        ([257], Datatype.BF16),
        ([70_000], Datatype.FP16),
        ([1e39], Datatype.FP32),
        ([65_520.0], Datatype.FP16),
        ([3.4e38], Datatype.BF16),
        ([1.0], Datatype.BYTES),
        (["1"], Datatype.INT64),
        (["1.0"], Datatype.FP32),
    ],
)
def test_lossy_conversions_are_refused(value: Any, datatype: Datatype) -> None:
    with pytest.raises(InvalidInputError):
        make(value, datatype)


@pytest.mark.parametrize(
    "value",
    [[[1], [1, 2]], [1, "a"], ["a", 1], ["a", ["b"]], None, [None], {}, {1, 2}, object(), 1j, ["\ud800"],
     np.zeros(2, "M8[s]"), np.zeros(2, "V4"), [10**400]],
)  # fmt: skip
@pytest.mark.parametrize("datatype", [None, Datatype.INT64, Datatype.FP32, Datatype.BYTES])
def test_values_that_are_no_tensor_are_refused(value: Any, datatype: Datatype | None) -> None:
    with pytest.raises(InvalidInputError):
        make(value, datatype)


@given(
    values=st.lists(st.one_of(st.booleans(), st.integers(-(2**65), 2**65), st.floats()), max_size=4),
    datatype=st.sampled_from([Datatype.BOOL, *INTEGERS]),
)
def test_whole_numbers_are_kept_or_refused(values: list[Any], datatype: Datatype) -> None:
    try:
        tensor = make(values, datatype)
    except InvalidInputError:
        return
    assert tensor.as_flat() == values


@given(array=npst.arrays(npst.floating_dtypes(), SHAPES), datatype=st.sampled_from(Datatype))
def test_arrays_of_floats_are_kept_rounded_or_refused(array: np.ndarray[Any, Any], datatype: Datatype) -> None:
    try:
        found = make(array, datatype).as_numpy()
    except InvalidInputError:
        return
    if array.size and datatype in FLOATS:
        assert np.array_equal(np.isinf(found), np.isinf(array))
        assert np.array_equal(np.isnan(found), np.isnan(array))
        wished, found = (values[np.isfinite(array)].astype(np.float64) for values in (array, found))
        assert (np.abs(found - wished) <= np.maximum(np.abs(wished) * 2.0**-8, 2.0**-24)).all()
    elif array.size:
        assert np.array_equal(found, array)


@given(array=npst.arrays(npst.integer_dtypes(), SHAPES), datatype=st.sampled_from([*INTEGERS, *FLOATS, Datatype.BOOL]))
def test_arrays_of_integers_are_kept_or_refused(array: np.ndarray[Any, Any], datatype: Datatype) -> None:
    try:
        tensor = make(array, datatype)
    except InvalidInputError:
        return
    assert tensor.as_flat() == array.reshape(-1).tolist()


def test_every_bf16_pattern_widens_as_ml_dtypes_does() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    wide = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(widen_bf16(bits), wide, equal_nan=True)
    assert np.array_equal(narrow_to_bf16(wide), np.where(np.isnan(wide), bits | 0x40, bits))


@given(array=npst.arrays(np.float32, SHAPES, elements=st.floats(width=32)))
def test_bf16_rounds_as_ml_dtypes_does(array: np.ndarray[Any, Any]) -> None:
    expected = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(widen_bf16(narrow_to_bf16(array)), expected, equal_nan=True)


def test_text_keeps_its_zero_bytes() -> None:
    assert make(["a\0", b"\0"]).as_flat() == [b"a\0", b"\0"]


@pytest.mark.parametrize("order", ["strided", "transposed", "swapped"])
def test_memory_layout_does_not_change_the_elements(order: str) -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    given_array = {"strided": array[:, ::2], "transposed": array.T, "swapped": array.astype(">i4")}[order]
    tensor = make(given_array)
    assert tensor.data.flags.c_contiguous
    assert tensor.as_flat() == given_array.reshape(-1).tolist()


def test_messages_and_repr_hold_no_values() -> None:
    assert str(SECRET) not in repr(make([SECRET]))
    for value, datatype in (
        ([SECRET], Datatype.UINT8),
        ([SECRET + 0.5], Datatype.INT64),
        ([str(SECRET)], Datatype.FP32),
    ):
        with pytest.raises(InvalidInputError) as refused:
            make(value, datatype)
        assert str(SECRET) not in f"{refused.value} {refused.value.hint} {refused.value.__cause__}"
