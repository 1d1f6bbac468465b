"""Made-up inputs of a model, to measure it with, by what it says of its inputs.

Leaves out: text, for which random data says nothing.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import tensor_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blindai.oip.tensors import Tensor, TensorSpec

OPEN_AXIS = 8
MAX_ELEMENTS = 1 << 28  # of one tensor: what a model says of itself may be anybody's word
_FLOATS = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16})
_NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def random_tensors(
    specs: Sequence[TensorSpec], *, rows: int = OPEN_AXIS, shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES
) -> tuple[Tensor, ...]:
    """Numbers of a fixed seed: normal ones, and 0 or 1 for whole numbers, which may be places in a table.

    Args:
        specs: the model's inputs.
        rows: size of the first axis where it is open; the others that are open have 8.
        shapes: by input, instead of that.

    Raises:
        InvalidInputError: an input is text or too large, or a shape does not fit.
    """
    unknown = sorted(shapes.keys() - {spec.name for spec in specs})
    if unknown:
        raise InvalidInputError(f"a shape is given for {unknown[0]!r}, which is no input of the model")
    random = np.random.default_rng(0)
    return tuple(tensor_for(_drawn(random, spec, shapes.get(spec.name) or _shape(spec, rows)), spec) for spec in specs)


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    return tuple((OPEN_AXIS if axis else rows) if size < 0 else size for axis, size in enumerate(spec.shape))


def _drawn(random: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if spec.datatype is Datatype.BYTES:
        raise InvalidInputError(
            f"input {spec.name!r} is text, for which random data says nothing", hint="Give a --sample."
        )
    if math.prod(shape) > MAX_ELEMENTS:
        raise InvalidInputError(f"input {spec.name!r} has more than {MAX_ELEMENTS} elements", hint="Give a --sample.")
    values = random.normal(size=shape) if spec.datatype in _FLOATS else random.integers(0, 2, shape)
    return values.astype(np.float32 if spec.datatype is Datatype.BF16 else spec.datatype.numpy)
