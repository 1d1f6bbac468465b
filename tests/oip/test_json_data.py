"""Tensors written in JSON: exactly the numbers that were sent, or a refusal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.errors import InvalidInputError
from blindai.oip.rest import decode_infer_request

if TYPE_CHECKING:
    from blindai.oip.tensors import Tensor


def read_json(datatype: str, shape: list[Any], data: str) -> Tensor:
    head = json.dumps({"name": "x", "datatype": datatype, "shape": shape})
    body = b'{"inputs":[%s,"data":%s}]}' % (head[:-1].encode(), data.encode())
    return decode_infer_request(body, None).inputs[0]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "values"),
    [
        ("INT64", [3], "[9007199254740993, -9223372036854775808, 9223372036854775807]",
         [2**53 + 1, -(2**63), 2**63 - 1]),
        ("UINT64", [2], "[18446744073709551615, 0]", [2**64 - 1, 0]),
        ("INT8", [2, 2], "[[1, -128], [127, 0]]", [1, -128, 127, 0]),
        ("INT8", [2, 2], "[1, -128, 127, 0]", [1, -128, 127, 0]),
        ("INT8", [1, 2, 1], " [ [ [1],[2] ] ] ", [1, 2]),
        ("BOOL", [2], "[true, false]", [True, False]),
        ("FP64", [4], "[0.1, 5e-324, 1.7976931348623157e308, -0.0]", [0.1, 5e-324, 1.7976931348623157e308, 0.0]),
        ("FP32", [2], "[0.1, 16777217]", [float(np.float32(0.1)), 16777216.0]),
        ("FP16", [1], "[0.333]", [float(np.float16(0.333))]),
        ("BF16", [2], "[1.0, 3]", [1.0, 3.0]),
        ("BYTES", [1, 2], r'[["\u0000é", ""]]', [b"\0\xc3\xa9", b""]),
        ("FP32", [], "[2.5]", [2.5]),
        ("FP32", [1, 0], "[]", []),
        ("INT32", [2, 0], "[[], []]", []),
        ("BYTES", [0], "[]", []),
    ],
)  # fmt: skip
def test_json_data_is_exact(datatype: str, shape: list[int], data: str, values: list[Any]) -> None:
    tensor = read_json(datatype, shape, data)
    assert tensor.shape == tuple(shape)
    assert tensor.as_flat() == values


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_json_floats_are_read_to_the_last_bit(values: list[float]) -> None:
    assert read_json("FP64", [len(values)], json.dumps(values)).data.tobytes() == np.array(values).tobytes()


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("INT32", [1], '["1"]'),
        ("INT32", [1], "[1.5]"),
        ("INT32", [1], "[1.0]"),
        ("INT32", [1], "[1e2]"),
        ("INT32", [1], "[true]"),
        ("INT32", [1], "[null]"),
        ("INT32", [1], "[2147483648]"),
        ("INT32", [1], "[-2147483649]"),
        ("UINT8", [1], "[-1]"),
        ("UINT64", [1], "[18446744073709551616]"),
        ("INT64", [2], "[9223372036854775808, -1]"),
        ("INT64", [1], "[1" + "0" * 5000 + "]"),
        ("FP64", [1], "[1e400]"),
        ("FP32", [1], "[1e39]"),
        ("FP16", [1], "[65520]"),
        ("FP32", [1], "[NaN]"),
        ("FP32", [1], "[-Infinity]"),
        ("FP32", [1], "[true]"),
        ("BOOL", [1], "[1]"),
        ("BOOL", [3], "[true]"),
        ("BYTES", [1], "[1]"),
        ("BYTES", [1], r'["\ud800"]'),
        ("INT32", [2], "[1]"),
        ("INT32", [2], "[1, 2, 3]"),
        ("INT32", [2, 2], "[[1, 2], [3]]"),
        ("INT32", [2, 2], "[[1, 2, 3], [4]]"),
        ("INT32", [2, 2], "[[[1, 2], [3, 4]]]"),
        ("INT32", [4], "[[1, 2], [3, 4]]"),
        ("INT32", [], "[]"),
        ("INT32", [1], "1"),
        ("INT32", [1], "{}"),
        ("INT32", [1], "[" * 100_000),
        ("INT32", [2**62, 2**62], "[1]"),
        ("INT32", [0, 2**62, 2**62], "[]"),
        ("INT32", [-1], "[1]"),
        ("INT32", [1.0], "[1]"),
        ("INT32", [2**64], "[1]"),
        ("INT32", [1] * 17, "[1]"),
        ("int32", [1], "[1]"),
        ("STRING", [1], '["a"]'),
    ],
)
def test_json_that_is_not_exactly_the_tensor_is_refused(datatype: str, shape: list[Any], data: str) -> None:
    with pytest.raises(InvalidInputError):
        read_json(datatype, shape, data)


def test_wrong_counts_are_named() -> None:
    with pytest.raises(InvalidInputError, match="has 3 elements where its shape takes 4"):
        read_json("INT32", [2, 2], "[1, 2, 3]")


@pytest.mark.parametrize(
    ("datatype", "data", "words"),
    [
        ("FP32", b"[NaN]", "cannot say NaN or Infinity; send such a tensor in binary"),
        ("FP64", b"[ -Infinity]", "cannot say NaN or Infinity; send such a tensor in binary"),
        ("BYTES", b'["\xff"]', "cannot say text that is not UTF-8; send such a tensor in binary"),
        ("BYTES", b'["\\ud800"]', "malformed JSON$"),
        ("FP32", b"[1", "malformed JSON$"),
    ],
)
def test_what_json_cannot_say_is_told_to_come_in_binary(datatype: str, data: bytes, words: str) -> None:
    body = b'{"inputs":[{"name":"x","datatype":"%s","shape":[1],"data":%s}]}' % (datatype.encode(), data)
    with pytest.raises(InvalidInputError, match=words):
        decode_infer_request(body, None)
