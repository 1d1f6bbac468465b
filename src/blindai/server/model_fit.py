"""Whether a request fits the model, before a process sees it, and a configuration too, in the words that Triton uses.

Messages name inputs, datatypes and shapes, which only whoever asks gets to see; never a value.
Leaves out: the engine's own look (`engine`), which believes nobody, and Triton's `reshape` (`reshapes`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError, InvalidModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.oip.tensors import Tensor, TensorSpec
    from blindai.server.model_config import ServingConfig
    from blindai.server.runner import ModelFace

ANY = -1
_SHOWN_NAME = 64
_SHOWN_NAMES = 16


def check_inputs(
    name: str,
    config: ServingConfig,
    tensors: Sequence[Tensor],
    specs: Sequence[TensorSpec],
    *,
    optional: Sequence[TensorSpec] = (),
) -> None:
    """Each input once, with its datatype and shape, and one number of rows if the model takes batches.

    Optional ones may be missing.

    Raises:
        InvalidInputError: says what the model expects.
    """
    if [tensor.name for tensor in tensors] != [spec.name for spec in specs]:
        specs = _paired(name, tensors, specs, optional)
    for tensor, spec in zip(tensors, specs, strict=True):
        if tensor.datatype is not spec.datatype:
            raise InvalidInputError(
                f"inference input '{spec.name}' data-type is '{tensor.datatype.value}', but model '{name}' "
                f"expects '{spec.datatype.value}'"
            )
        if not _matches(tensor.shape, spec.shape):
            raise _shape_error(name, config, tensor, spec)
    if config.max_batch_size and tensors:
        _check_rows(name, config, tensors)


def check_outputs(model: str, names: Sequence[str], specs: Sequence[TensorSpec]) -> None:
    """Each wished output is one of the model's, and wished once.

    Raises:
        InvalidInputError: which is not.
    """
    known = {spec.name for spec in specs}
    for index, name in enumerate(names):
        if name not in known:
            raise InvalidInputError(
                f"unexpected inference output '{name[:_SHOWN_NAME]}' for model '{model}'", hint=listed(specs)
            )
        if name in names[:index]:
            raise InvalidInputError(f"output '{name}' already exists in request")


def check_declaration(config: ServingConfig, face: ModelFace) -> None:
    """Hold a configuration against the loaded model, by Triton's rules and in its words.

    It may be narrower, never wider; every input without a default is declared, outputs may be left out.

    Raises:
        InvalidModelError: it is not about this model.
    """
    _check_side("input", config, config.inputs, (*face.inputs, *face.optional))
    _check_side("output", config, config.outputs, face.outputs)
    missing = sorted({spec.name for spec in face.inputs} - {spec.name for spec in config.inputs})
    if config.inputs and missing:
        raise InvalidModelError(
            f"the model's input '{missing[0]}' is not in the model configuration", hint=listed(face.inputs)
        )
    required = sorted({spec.name for spec in face.inputs}.intersection(config.optional))
    if required:
        raise InvalidModelError(f"input '{required[0]}' is not optional: the model has no default for it")
    if config.max_batch_size:
        served = {spec.name for spec in config.outputs or face.outputs}
        _check_batching((*face.inputs, *(spec for spec in face.outputs if spec.name in served)))


def served_as(config: ServingConfig, own: ModelFace) -> ModelFace:
    """A loaded model's face as users are told of it: as declared, or else its own word."""
    if not config.inputs and not config.outputs and not own.optional:
        return own
    defaults = {spec.name for spec in own.optional}
    return replace(
        own,
        inputs=tuple(spec for spec in config.inputs if spec.name not in defaults) or own.inputs,
        outputs=config.outputs or own.outputs,
        optional=_servable(config, own.optional),
    )


def _servable(config: ServingConfig, optional: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Of a model's inputs with defaults, those that are declared; or that have the batch's axis, if that is asked."""
    if config.inputs:
        names = {spec.name for spec in optional}
        return tuple(spec for spec in config.inputs if spec.name in names)
    return tuple(spec for spec in optional if not config.max_batch_size or spec.shape[:1] == (ANY,))


def _check_side(side: str, config: ServingConfig, declared: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    own, reshapes = {spec.name: spec for spec in found}, dict(config.reshapes)
    for spec in declared:
        known = own.get(spec.name)
        if known is None:
            raise InvalidModelError(f"unexpected inference {side} '{spec.name}'", hint=listed(found))
        if known.datatype is not spec.datatype:
            raise InvalidModelError(
                f"unexpected datatype {spec.datatype.value} for inference {side} '{spec.name}', "
                f"expecting {known.datatype.value}"
            )
        inner = reshapes.get(spec.name)
        shape = spec.shape if inner is None else spec.shape[: bool(config.max_batch_size)] + inner
        if not _matches(shape, known.shape):
            raise InvalidModelError(
                f"tensor '{spec.name}': the model expects {len(known.shape)} dimensions (shape {list(known.shape)}) "
                f"but the model configuration specifies {len(shape)} dimensions (shape {list(shape)})",
                hint="with max_batch_size above 0 a batch's axis comes before dims",
            )


def _check_batching(specs: Sequence[TensorSpec]) -> None:
    for spec in specs:
        if spec.shape[:1] != (ANY,):
            raise InvalidModelError(
                f"tensor '{spec.name}': for the model to support batching the shape should have at least 1 dimension "
                f"and the first dimension must be -1, but the model expects shape {list(spec.shape)}",
                hint="export with a dynamic first axis, or set max_batch_size to 0 and give the whole shape in dims",
            )


def listed(specs: Sequence[TensorSpec]) -> str:
    """A sentence that tells a model's inputs or outputs."""
    described = [f"{spec.name} {spec.datatype.value} {list(spec.shape)}" for spec in specs[:_SHOWN_NAMES]]
    return f"The model has {', '.join(described)}{' …' if len(specs) > _SHOWN_NAMES else ''}."


def _paired(
    model: str, tensors: Sequence[Tensor], specs: Sequence[TensorSpec], optional: Sequence[TensorSpec]
) -> list[TensorSpec]:
    """The spec of each tensor, when they do not come in the model's order."""
    expected = {spec.name: spec for spec in (*specs, *optional)}
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise InvalidInputError(f"input '{tensor.name[:_SHOWN_NAME]}' already exists in request")
        if tensor.name not in expected:
            raise InvalidInputError(
                f"unexpected inference input '{tensor.name[:_SHOWN_NAME]}' for model '{model}'",
                hint=listed((*specs, *optional)),
            )
        seen.add(tensor.name)
    missing = [spec.name for spec in specs if spec.name not in seen]
    if missing:
        raise InvalidInputError(
            f"expected {len(specs)} inputs but got {len(tensors)} inputs for model '{model}'. "
            f"Got input(s) {sorted(seen)[:_SHOWN_NAMES]}, but missing required input(s) {missing[:_SHOWN_NAMES]}. "
            "Please provide all required input(s).",
            hint=listed(specs),
        )
    return [expected[tensor.name] for tensor in tensors]


def _matches(shape: tuple[int, ...], pattern: tuple[int, ...]) -> bool:
    if len(shape) != len(pattern):
        return False
    for size, wanted in zip(shape, pattern, strict=True):  # noqa: SIM110  # a generator in all() costs thrice as much
        if wanted not in (ANY, size):
            return False
    return True


def _shape_error(model: str, config: ServingConfig, tensor: Tensor, spec: TensorSpec) -> InvalidInputError:
    most = config.max_batch_size
    batch = ""
    if most and len(tensor.shape) == len(spec.shape) - 1:
        batch = f"; the first axis is the batch: inference request batch-size must be <= {most} for '{model}'"
    return InvalidInputError(
        f"unexpected shape for input '{spec.name}' for model '{model}'. "
        f"Expected {list(spec.shape)}, got {list(tensor.shape)}{batch}",
        hint="-1 is an axis of any size." if ANY in spec.shape else "",
    )


def _check_rows(model: str, config: ServingConfig, tensors: Sequence[Tensor]) -> None:
    rows = tensors[0].shape[0] if tensors[0].shape else 0
    for tensor in tensors:
        if (tensor.shape[0] if tensor.shape else 0) != rows:
            raise InvalidInputError(f"input '{tensor.name}' batch size does not match other inputs for '{model}'")
    if rows > config.max_batch_size:
        raise InvalidInputError(f"inference request batch-size must be <= {config.max_batch_size} for '{model}'")
