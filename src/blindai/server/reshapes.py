"""Triton's `reshape`: a model that its users know in other shapes than its own.

Leaves out: whether a declared shape and the model's have equally many elements (`triton_config`, at the start).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from blindai.errors import InternalError, InvalidInputError

if TYPE_CHECKING:
    from blindai.oip.tensors import Tensor
    from blindai.server.model_config import ServingConfig


def to_model(config: ServingConfig, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The request in the shapes that the model has.

    Raises:
        InvalidInputError: its elements do not come out even.
    """
    if not config.reshapes:
        return inputs
    try:
        return _reshaped(inputs, dict(config.reshapes), config)
    except ValueError:
        raise InvalidInputError("an input does not fit the shape that the model takes") from None


def from_model(config: ServingConfig, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The answer in the shapes that are declared.

    Raises:
        InternalError: the model answers in a shape that cannot be brought into the declared one.
    """
    if not config.reshapes:
        return outputs
    names = dict(config.reshapes)
    declared = {spec.name: spec.shape[bool(config.max_batch_size) :] for spec in config.outputs if spec.name in names}
    try:
        return _reshaped(outputs, declared, config)
    except ValueError:
        raise InternalError("the model answers in a shape that its configuration does not foresee") from None


def _reshaped(
    tensors: tuple[Tensor, ...], shapes: dict[str, tuple[int, ...]], config: ServingConfig
) -> tuple[Tensor, ...]:
    return tuple(
        _one(tensor, tensor.shape[: bool(config.max_batch_size)] + shapes[tensor.name])
        if tensor.name in shapes
        else tensor
        for tensor in tensors
    )


def _one(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    data = tensor.data.reshape(shape)
    return structs.replace(tensor, shape=data.shape, data=data)
