"""A request without any JSON: the one input's bytes are the whole body (Triton, raw binary request).

The shape is the model's, with one row of a batch and at most one axis that the bytes decide.
Leaves out: when a request is one (header `inference-header-content-length: 0`, `server.infer`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.rest import InferRequest
from blindai.oip.tensor_entries import MAX_BYTES_ELEMENTS
from blindai.oip.tensors import decode_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.oip.tensors import TensorSpec

_LENGTH_BYTES = 4


def raw_request(body: memoryview, specs: Sequence[TensorSpec], *, model: str, batched: bool) -> InferRequest:
    """The request that these bytes are; every output is wished in binary.

    Args:
        body: the input's raw form.
        specs: the model's inputs.
        model: its name, for messages.
        batched: whether the first axis counts rows; it is 1.

    Raises:
        InvalidInputError: the model has another number of inputs, or the bytes do not tell the shape.
    """
    if len(specs) != 1:
        raise InvalidInputError(
            f"Raw request must only have 1 input (found 1) to be deduced but got {len(specs)} inputs in '{model}' "
            "model configuration"
        )
    spec = specs[0]
    pattern = (1, *spec.shape[1:]) if batched and spec.shape else spec.shape
    if pattern.count(-1) > 1:
        raise InvalidInputError(
            f"The shape of the raw input '{spec.name}' can not be deduced because there are more than one "
            "variable-sized dimension"
        )
    shape = _solved(pattern, spec, body, model)
    return InferRequest(inputs=(decode_tensor(body, name=spec.name, datatype=spec.datatype, shape=shape),))


def _solved(pattern: tuple[int, ...], spec: TensorSpec, body: memoryview, model: str) -> tuple[int, ...]:
    known = math.prod(axis for axis in pattern if axis != -1)
    if spec.datatype.itemsize is None:
        count, whole = _text_elements(body), True
    else:
        count, rest = divmod(body.nbytes, spec.datatype.itemsize)
        whole = not rest
    fits = count % known == 0 if -1 in pattern and known else count == known
    if not whole or not fits:
        raise _size_error(pattern, spec, found=count if spec.datatype is Datatype.BYTES else body.nbytes, model=model)
    if -1 in pattern and not known:
        raise InvalidInputError(
            f"The shape of the raw input '{spec.name}' can not be deduced: another dimension is 0, so no byte tells it"
        )
    return tuple(count // known if axis == -1 else axis for axis in pattern)


def _size_error(pattern: tuple[int, ...], spec: TensorSpec, *, found: int, model: str) -> InvalidInputError:
    expected = math.prod(axis for axis in pattern if axis != -1) * (spec.datatype.itemsize or 1)
    unit = "element" if spec.datatype is Datatype.BYTES else "byte"
    multiple = " or a multiple of it" if -1 in pattern else ""
    return InvalidInputError(
        f"input {unit} size mismatch for input 'raw_input' for model '{model}'. Expected {expected}{multiple}, "
        f"got {found}"
    )


def _text_elements(body: memoryview) -> int:
    """How many elements the lengths in front of them tell."""
    count, offset = 0, 0
    while offset < body.nbytes:
        offset += _LENGTH_BYTES + int.from_bytes(body[offset : offset + _LENGTH_BYTES], "little")
        count += 1
        if count > MAX_BYTES_ELEMENTS:
            raise InvalidInputError(f"a request has at most {MAX_BYTES_ELEMENTS} BYTES elements")
    return count
