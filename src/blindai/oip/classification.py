"""The largest values of an output, as text (Triton's classification extension).

Each class is `value:index`, or `value:index:label`, the largest value first and of equal ones the first;
with a batch, its rows one by one.
Leaves out: where labels come from (`server.model_config`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import Tensor, described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.oip.datatypes import Array

MAX_ELEMENTS = 1_000_000


def classify(tensor: Tensor, classes: int, *, batched: bool, labels: Sequence[str] = ()) -> Tensor:
    """The output's `classes` largest values; fewer if it has fewer.

    Args:
        tensor: an output of numbers.
        classes: how many, at least 1.
        batched: whether its first axis counts rows.
        labels: of the indices, as far as there are any.

    Raises:
        InvalidInputError: it is text, or too large.
    """
    if tensor.datatype is Datatype.BYTES:
        raise InvalidInputError(f"classification of {described(tensor.name)} is not possible: it is BYTES")
    if tensor.data.size > MAX_ELEMENTS:
        raise InvalidInputError(
            f"classification is for outputs of at most {MAX_ELEMENTS} elements; {described(tensor.name)} has more"
        )
    values = tensor.as_numpy()
    rows_first = batched and bool(tensor.shape)
    count = tensor.shape[0] if rows_first else 1
    rows = values.reshape(count, math.prod(tensor.shape[1:] if rows_first else tensor.shape))
    kept = min(classes, rows.shape[1])
    shape = (count, kept) if rows_first else (kept,)
    data = np.empty(count * kept, dtype=object)
    data[:] = [_class_text(row, index, labels) for row in rows for index in _largest(row, kept)]
    return Tensor(name=tensor.name, datatype=Datatype.BYTES, shape=shape, data=data.reshape(shape))


def _largest(row: Array, count: int) -> list[int]:
    """Indices of the largest values; NaN is smaller than everything."""
    if row.dtype.kind == "f":
        return list(np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable")[:count].tolist())
    rising = np.argsort(row[::-1], kind="stable")[::-1]  # unsigned numbers have no negative to sort by
    return list((row.size - 1 - rising)[:count].tolist())


def _class_text(row: Array, index: int, labels: Sequence[str]) -> bytes:
    value: Any = row[index].item()
    number = f"{value:f}" if isinstance(value, float) else str(int(value))
    return ":".join((number, str(index), *labels[index : index + 1])).encode()
