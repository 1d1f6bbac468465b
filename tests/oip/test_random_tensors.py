"""Made-up inputs fit what the model says of itself, and are never larger than a machine bears."""

from __future__ import annotations

import numpy as np
import pytest

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.random_tensors import random_tensors
from blindai.oip.tensors import TensorSpec


def spec(datatype: Datatype, *shape: int) -> TensorSpec:
    return TensorSpec(name="x", datatype=datatype, shape=shape)


@pytest.mark.parametrize("datatype", [one for one in Datatype if one is not Datatype.BYTES])
def test_every_datatype_but_text_is_made_up_alike_each_time(datatype: Datatype) -> None:
    (made,), (again,) = (random_tensors([spec(datatype, -1, 3, -1)], rows=2) for _ in range(2))
    assert (made.name, made.datatype, made.shape) == ("x", datatype, (2, 3, 8))
    assert np.array_equal(made.data, again.data)


def test_shapes_may_be_given() -> None:
    (made,) = random_tensors([spec(Datatype.FP32, -1, 3)], shapes={"x": (5, 3)})
    assert made.shape == (5, 3)


@pytest.mark.parametrize(
    ("asked", "shapes", "words"),
    [
        (spec(Datatype.BYTES, -1), {}, "is text"),
        (spec(Datatype.FP32, 1 << 40), {}, "more than 268435456 elements"),
        (spec(Datatype.FP32, -1), {"x": (1 << 40,)}, "more than 268435456 elements"),
        (spec(Datatype.FP32, -1, 3), {"x": (1, 4)}, "shape"),
        (spec(Datatype.FP32, -1), {"y": (1,)}, "no input of the model"),
    ],
    ids=range(5),
)
def test_what_cannot_be_made_up_is_refused(asked: TensorSpec, shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        random_tensors([asked], shapes=shapes)
