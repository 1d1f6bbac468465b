"""What an operator declares of a model's inputs and outputs, held against the model and against each request.

Triton's rules: a declaration may be narrower than the model, never wider; every input is declared, outputs may be left
out; the batch is the first axis of everything when `max_batch_size` is set.
Messages are for whoever runs the server, or for whoever sent the request; they name what is declared, never a value.
Leaves out: models without a declaration, which speak for themselves (`engine`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blindai.errors import InternalError, InvalidInputError, InvalidModelError
from blindai.oip.tensors import Tensor, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.server.model_config import ServingConfig

ANY = -1
Specs = tuple[TensorSpec, ...]


def served(config: ServingConfig, inputs: Specs, outputs: Specs) -> tuple[Specs, Specs]:
    """What users are told of a model's inputs and outputs: the declaration, or else the model's own word."""
    return config.inputs or inputs, config.outputs or outputs


def check_model(config: ServingConfig, inputs: Specs, outputs: Specs) -> None:
    """Hold a declaration against a loaded model.

    Raises:
        InvalidModelError: the declaration is not about this model.
    """
    if config.inputs:
        _check_side("input", config, config.inputs, inputs)
        missing = sorted({spec.name for spec in inputs} - {spec.name for spec in config.inputs})
        if missing:
            raise InvalidModelError(f"the model's input {missing[0]!r} is not in the model configuration")
    if config.outputs:
        _check_side("output", config, config.outputs, outputs)
    if config.max_batch_size:
        _check_batching((*inputs, *(spec for spec in outputs if not config.outputs or _named(spec, config.outputs))))


def check_request(config: ServingConfig, inputs: Sequence[Tensor]) -> None:
    """Hold a request against the declaration, which may be narrower than the model.

    Raises:
        InvalidInputError: says what is expected.
    """
    if config.inputs:
        check_inputs(inputs, config.inputs)
    if config.max_batch_size:
        _check_rows(config.max_batch_size, inputs)


def check_inputs(inputs: Sequence[Tensor], specs: Sequence[TensorSpec]) -> None:
    """Whether the tensors are what the model expects: each input once, its datatype, rank and fixed axes.

    Raises:
        InvalidInputError: what the model expects.
    """
    expected = {spec.name: spec for spec in specs}
    names = [tensor.name for tensor in inputs]
    if len(set(names)) != len(names):
        raise InvalidInputError("an input is given twice", hint=listed(specs))
    if not expected.keys() >= set(names):
        raise InvalidInputError("an input is given that the model does not have", hint=listed(specs))
    missing = [name for name in expected if name not in names]
    if missing:
        raise InvalidInputError(f"input {missing[0]!r} is missing", hint=listed(specs))
    for tensor in inputs:
        _check_input(tensor, expected[tensor.name])


def _check_input(tensor: Tensor, spec: TensorSpec) -> None:
    if tensor.datatype is not spec.datatype:
        raise InvalidInputError(
            f"input {spec.name!r} has datatype {tensor.datatype.value}, the model expects {spec.datatype.value}"
        )
    if not _matches(tensor.shape, spec.shape):
        raise InvalidInputError(
            f"the shape of input {spec.name!r} does not fit, the model expects {list(spec.shape)}",
            hint="-1 is an axis of any size." if ANY in spec.shape else "",
        )


def wished_outputs(config: ServingConfig, outputs: tuple[str, ...]) -> tuple[str, ...]:
    """The outputs to compute: those asked for, or all that are declared; empty means all of the model's.

    Raises:
        InvalidInputError: one is asked for that is not declared.
    """
    if not config.outputs:
        return outputs
    names = tuple(spec.name for spec in config.outputs)
    if not set(outputs) <= set(names) or len(set(outputs)) != len(outputs):
        raise InvalidInputError(
            "an output is asked for that the model does not have, or twice", hint=f"The model has {', '.join(names)}."
        )
    return outputs or names


def to_model(config: ServingConfig, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The request in the shapes that the model has (Triton's `reshape`)."""
    shapes = dict(config.reshapes)
    return tuple(
        _reshaped(tensor, shapes[tensor.name], config) if tensor.name in shapes else tensor for tensor in inputs
    )


def from_model(config: ServingConfig, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The answer in the shapes that are declared.

    Raises:
        InternalError: the model answers in a shape that cannot be brought into the declared one.
    """
    reshaped = dict(config.reshapes)
    declared = {spec.name: spec.shape[bool(config.max_batch_size) :] for spec in config.outputs}
    try:
        return tuple(
            _reshaped(tensor, declared[tensor.name], config) if tensor.name in reshaped else tensor
            for tensor in outputs
        )
    except InvalidInputError:
        raise InternalError("the model answers in a shape that its configuration does not foresee") from None


def _check_side(side: str, config: ServingConfig, declared: Specs, found: Specs) -> None:
    by_name = {spec.name: spec for spec in found}
    for spec in declared:
        own = by_name.get(spec.name)
        if own is None:
            raise InvalidModelError(
                f"unexpected inference {side} {spec.name!r}", hint=f"allowed {side}s are: {', '.join(by_name)}"
            )
        if own.datatype is not spec.datatype:
            raise InvalidModelError(
                f"unexpected datatype {spec.datatype.value} for inference {side} {spec.name!r}, "
                f"expecting {own.datatype.value}"
            )
        shape = dict(config.reshapes).get(spec.name)
        wanted = spec.shape if shape is None else spec.shape[: bool(config.max_batch_size)] + shape
        if not _matches(wanted, own.shape):
            raise InvalidModelError(
                f"tensor {spec.name!r}: the model expects {len(own.shape)} dimensions (shape {list(own.shape)}) but "
                f"the model configuration specifies {len(wanted)} dimensions (shape {list(wanted)})",
                hint="with max_batch_size above 0 a batch's axis comes before dims",
            )


def _check_batching(specs: Sequence[TensorSpec]) -> None:
    for spec in specs:
        if not spec.shape or spec.shape[0] != ANY:
            raise InvalidModelError(
                f"tensor {spec.name!r}: for the model to support batching the shape should have at least 1 dimension "
                f"and the first dimension must be -1, but the model expects shape {list(spec.shape)}",
                hint="export with a dynamic first axis, or set max_batch_size: 0 and give the whole shape in dims",
            )


def _check_rows(most: int, inputs: Sequence[Tensor]) -> None:
    rows = {tensor.shape[0] if tensor.shape else 0 for tensor in inputs}
    if len(rows) > 1:
        raise InvalidInputError("the inputs of a request have the same batch size, here they differ")
    if any(not 1 <= count <= most for count in rows):
        raise InvalidInputError(f"inference request batch-size must be from 1 to {most} for this model")


def _matches(shape: Sequence[int], pattern: Sequence[int]) -> bool:
    return len(shape) == len(pattern) and all(
        wanted in (ANY, size) for size, wanted in zip(shape, pattern, strict=True)
    )


def _named(spec: TensorSpec, among: Specs) -> bool:
    return any(spec.name == other.name for other in among)


def _reshaped(tensor: Tensor, shape: tuple[int, ...], config: ServingConfig) -> Tensor:
    whole = tensor.shape[: bool(config.max_batch_size)] + shape
    try:
        data = tensor.data.reshape(whole)
    except ValueError:
        raise InvalidInputError(f"input {tensor.name!r} does not fit the shape that the model takes") from None
    return replace(tensor, shape=data.shape, data=data)


def listed(specs: Sequence[TensorSpec]) -> str:
    """A sentence that tells a model's inputs or outputs."""
    described = (f"{spec.name} {spec.datatype.value} {list(spec.shape)}" for spec in specs)
    return f"The model has {', '.join(described)}."
