"""From what a user gives to the tensors that a model takes, by the model's metadata.

Leaves out: how one value becomes a tensor (oip/conversion.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import tensor_for

if TYPE_CHECKING:
    from blindai.oip.rest import ModelMetadata
    from blindai.oip.tensors import Tensor, TensorSpec

_FILES = {"picture": (".jpg", ".jpeg", ".png"), "sound": (".wav",)}  # names of files, by the name of a pipeline's input


def tensors_for(inputs: Any, metadata: ModelMetadata) -> tuple[Tensor, ...]:
    """Fit what the user gave to the model's inputs.

    A dict is taken by input name, and may hold optional inputs. A model with one input takes the value itself, or its
    array alone in a list; one with more takes a list or tuple with one value for each, in the model's order.
    Files, open or as paths, are read for inputs of BYTES.

    Raises:
        InvalidInputError: names, number, type, shape or count do not fit.
    """
    specs = metadata.inputs
    if isinstance(inputs, Mapping):
        names = {spec.name for spec in specs}
        optional = {spec.name for spec in metadata.optional_inputs}
        if not names <= set(inputs) <= names | optional:
            more = f", and may take {sorted(optional)}" if optional else ""
            raise InvalidInputError(
                f"the model takes the inputs {sorted(names)}{more}, found {sorted(map(str, inputs))}"
            )
        specs = (*specs, *(spec for spec in metadata.optional_inputs if spec.name in inputs))
        values = [inputs[spec.name] for spec in specs]
    elif len(specs) == 1:
        values = [inputs[0] if _is_the_only_array(inputs, specs[0]) else inputs]
    else:
        values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if len(values) != len(specs):
            expected = [spec.name for spec in specs]
            raise InvalidInputError(f"the model takes {len(specs)} inputs, {expected}; found {len(values)}")
    values = [
        _read(value, spec) if spec.datatype is Datatype.BYTES else value
        for value, spec in zip(values, specs, strict=True)
    ]
    shapes = [metadata.default_shape if spec in metadata.inputs[:1] else None for spec in specs]
    return tuple(
        tensor_for(value, spec, default_shape=shape) for value, spec, shape in zip(values, specs, shapes, strict=True)
    )


def _is_the_only_array(inputs: Any, spec: TensorSpec) -> bool:
    """Whether this is a list of one value for one input, and not a list of rows: an array that has the input's rank."""
    if not isinstance(inputs, list | tuple) or len(inputs) != 1:
        return False
    shape = getattr(inputs[0], "shape", None)  # numpy's, torch's, and a `Tensor`'s
    return shape is not None and len(shape) == len(spec.shape)


def _read(value: Any, spec: TensorSpec) -> Any:
    """The bytes of files among what is given for BYTES: of paths, and of what is open in binary mode.

    A `str` stays text, except that an input called `picture` or `sound` takes the name of such a file.
    """
    if isinstance(value, list | tuple):
        return [_read(one, spec) for one in value]
    if isinstance(value, os.PathLike):
        return Path(value).read_bytes()
    if isinstance(value, str) and value.lower().endswith(_FILES.get(spec.name, ())):
        return Path(value).read_bytes()
    if hasattr(value, "read"):
        content = value.read()
        if not isinstance(content, bytes):
            raise InvalidInputError("a file is open as text", hint='Open it with open(path, "rb").')
        return content
    return value
