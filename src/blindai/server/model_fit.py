"""Whether a request fits the model, before a process sees it, in the words that Triton's clients match on.

Messages name inputs, datatypes and shapes, which only whoever asks gets to see; never a value.
Leaves out: the engine's own look (`engine`), which believes nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError, InvalidModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.oip.tensors import Tensor, TensorSpec
    from blindai.server.catalogue import StoredModel
    from blindai.server.model_config import ServingConfig

ANY = -1
_SHOWN_NAME = 64
_SHOWN_NAMES = 16


def check_inputs(model: StoredModel, tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> None:
    """Each input once, with its datatype and shape, and one number of rows if the model takes batches.

    Raises:
        InvalidInputError: says what the model expects.
    """
    if len(tensors) != len(specs) or any(t.name != s.name for t, s in zip(tensors, specs, strict=True)):
        specs = _paired(model, tensors, specs)
    for tensor, spec in zip(tensors, specs, strict=True):
        if tensor.datatype is not spec.datatype:
            raise InvalidInputError(
                f"inference input '{spec.name}' data-type is '{tensor.datatype.value}', but model '{model.name}' "
                f"expects '{spec.datatype.value}'"
            )
        if not _matches(tensor.shape, spec.shape):
            raise _shape_error(model, tensor, spec)
    if model.config.max_batch_size and tensors:
        _check_rows(model, tensors)


def check_outputs(model: StoredModel, names: Sequence[str], specs: Sequence[TensorSpec]) -> None:
    """Each wished output is one of the model's, and wished once.

    Raises:
        InvalidInputError: which is not.
    """
    known = {spec.name for spec in specs}
    for index, name in enumerate(names):
        if name not in known:
            raise InvalidInputError(
                f"unexpected inference output '{name[:_SHOWN_NAME]}' for model '{model.name}'", hint=listed(specs)
            )
        if name in names[:index]:
            raise InvalidInputError(f"output '{name}' already exists in request")


def check_declaration(config: ServingConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Hold a configuration against the loaded model: it may be narrower, never wider.

    Raises:
        InvalidModelError: it is not about this model.
    """
    for side, declared, found in (("input", config.inputs, inputs), ("output", config.outputs, outputs)):
        own = {spec.name: spec for spec in found}
        for spec in declared:
            known = own.get(spec.name)
            if known is None or known.datatype is not spec.datatype or not _matches(spec.shape, known.shape):
                raise InvalidModelError(
                    f"the model has no {side} '{spec.name}' with this data_type and these dims", hint=listed(found)
                )
    if config.inputs and len(config.inputs) != len(inputs):
        raise InvalidModelError("the configuration does not name every input of the model", hint=listed(inputs))
    if config.max_batch_size and not all(spec.shape and spec.shape[0] == ANY for spec in (*inputs, *outputs)):
        raise InvalidModelError(
            "for the model to support batching the first axis of every input and output must be open (-1)",
            hint="export with a dynamic first axis, or set max_batch_size to 0",
        )


def listed(specs: Sequence[TensorSpec]) -> str:
    """A sentence that tells a model's inputs or outputs."""
    described = [f"{spec.name} {spec.datatype.value} {list(spec.shape)}" for spec in specs[:_SHOWN_NAMES]]
    return f"The model has {', '.join(described)}{' …' if len(specs) > _SHOWN_NAMES else ''}."


def _paired(model: StoredModel, tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The spec of each tensor, when they do not come in the model's order."""
    expected = {spec.name: spec for spec in specs}
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise InvalidInputError(f"input '{tensor.name[:_SHOWN_NAME]}' already exists in request")
        if tensor.name not in expected:
            raise InvalidInputError(
                f"unexpected inference input '{tensor.name[:_SHOWN_NAME]}' for model '{model.name}'",
                hint=listed(specs),
            )
        seen.add(tensor.name)
    missing = [name for name in expected if name not in seen]
    if missing:
        raise InvalidInputError(
            f"expected {len(specs)} inputs but got {len(tensors)} inputs for model '{model.name}'. "
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


def _shape_error(model: StoredModel, tensor: Tensor, spec: TensorSpec) -> InvalidInputError:
    most = model.config.max_batch_size
    batch = ""
    if most and len(tensor.shape) == len(spec.shape) - 1:
        batch = f"; the first axis is the batch: inference request batch-size must be <= {most} for '{model.name}'"
    return InvalidInputError(
        f"unexpected shape for input '{spec.name}' for model '{model.name}'. "
        f"Expected {list(spec.shape)}, got {list(tensor.shape)}{batch}",
        hint="-1 is an axis of any size." if ANY in spec.shape else "",
    )


def _check_rows(model: StoredModel, tensors: Sequence[Tensor]) -> None:
    rows = tensors[0].shape[0] if tensors[0].shape else 0
    for tensor in tensors:
        if (tensor.shape[0] if tensor.shape else 0) != rows:
            raise InvalidInputError(f"input '{tensor.name}' batch size does not match other inputs for '{model.name}'")
    if rows > model.config.max_batch_size:
        raise InvalidInputError(
            f"inference request batch-size must be <= {model.config.max_batch_size} for '{model.name}'"
        )
