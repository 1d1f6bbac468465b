"""Element types in every form that the 0.3 to 0.5 lines took."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blindai.client import ModelDatumType
from blindai.client.classic_types import datatype_named
from blindai.errors import InvalidInputError
from blindai.oip.tensors import Datatype


class TorchType:
    """Prints as torch's dtypes do; torch itself is not here."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __str__(self) -> str:
        return f"torch.{self._name}"


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (ModelDatumType.F32, Datatype.FP32),
        (3, Datatype.INT64),
        ("F64", Datatype.FP64),
        ("bool", Datatype.BOOL),
        ("i8", Datatype.INT8),
        ("float32", Datatype.FP32),
        ("torch.int64", Datatype.INT64),
        (TorchType("int32"), Datatype.INT32),
        (TorchType("bfloat16"), Datatype.BF16),
        (np.float32, Datatype.FP32),
        (np.dtype("<i8"), Datatype.INT64),
        (np.dtype(">f8"), Datatype.FP64),
        (bool, Datatype.BOOL),
    ],
    ids=str,
)
def test_an_element_type_in_any_form(dtype: Any, expected: Datatype) -> None:
    assert datatype_named(dtype) is expected


@pytest.mark.parametrize("dtype", [99, -1, None, "float33", "", TorchType("qint8"), object, "M8"])
def test_what_is_no_element_type(dtype: Any) -> None:
    with pytest.raises(InvalidInputError, match="no ModelDatumType"):
        datatype_named(dtype)
