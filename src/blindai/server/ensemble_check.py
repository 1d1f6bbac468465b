"""Whether the steps of an ensemble fit together: Triton's rules, settled once, before anything is served.

From the configuration alone: every tensor is made once, every tensor that is read is made, every input is used, every
output is made, nothing waits for itself. With the models loaded: names, datatypes and shapes on both ends of each map.
Stricter than Triton in one point: shapes are compared with the batch's axis, so that what passes here can run.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from blindai.server.model_fit import ANY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blindai.oip.tensors import TensorSpec
    from blindai.server.model_config import EnsembleStep, ServingConfig
    from blindai.server.runner import ModelFace


def wiring_problems(config: ServingConfig) -> Iterator[str]:
    """What is wrong with the steps, whatever their models are."""
    for index, step in enumerate(config.steps):
        if not (step.model and step.inputs and step.outputs):
            yield f"step {index}: model_name, input_map and output_map are needed"
    made = Counter(tensor for step in config.steps for _, tensor in step.outputs)
    read = {tensor for step in config.steps for _, tensor in step.inputs}
    inputs = {spec.name for spec in config.inputs}
    for tensor, times in made.items():
        if times > 1 or tensor in inputs:
            yield f"ensemble tensor {tensor!r} can appear in an output map only once, and is no input of the ensemble"
    for tensor in sorted(read - made.keys() - inputs):
        yield f"ensemble tensor {tensor!r} that is mapped as an input is never produced"
    for spec in config.outputs:
        if spec.name not in made:
            yield f"output {spec.name!r} is not written by any step"
    for tensor in sorted(inputs - read):
        yield f"ensemble input {tensor!r} isn't used"
    yield from _waiting_problems(config.steps, inputs | (read - made.keys()))


def _waiting_problems(steps: Sequence[EnsembleStep], available: set[str]) -> Iterator[str]:
    """Steps that wait for each other in a circle."""
    known, waiting = set(available), list(steps)
    while waiting:
        ready = [step for step in waiting if known.issuperset(tensor for _, tensor in step.inputs)]
        if not ready:
            names = ", ".join(dict.fromkeys(step.model for step in waiting))
            yield f"circular dependency: these steps wait for each other: {names}"
            return
        known.update(tensor for step in ready for _, tensor in step.outputs)
        waiting = [step for step in waiting if step not in ready]


def batch_problems(config: ServingConfig, members: Mapping[str, ServingConfig]) -> Iterator[str]:
    """Models that take fewer rows at a time than their ensemble."""
    for step in config.steps:
        most = members[step.model].max_batch_size if step.model in members else 0
        if 0 < most < config.max_batch_size:
            yield (
                f"ensemble allows maximum batch size {config.max_batch_size}, but it contains model {step.model!r} "
                f"which only allows maximum batch size to be {most}"
            )


def fit_problems(config: ServingConfig, members: Sequence[ModelFace]) -> Iterator[str]:
    """What is wrong with the maps, given what each step's model is."""
    tensors = {spec.name: spec for spec in (*config.inputs, *config.outputs)}
    for index, (step, face) in enumerate(zip(config.steps, members, strict=True)):
        where = f"step {index} ({step.model})"
        missing = sorted({spec.name for spec in face.inputs} - {name for name, _ in step.inputs})
        if missing:
            yield f"{where}: input {missing[0]!r} is not mapped to any ensemble tensors"
        for side, pairs, specs in (
            ("input", step.inputs, (*face.inputs, *face.optional)),
            ("output", step.outputs, face.outputs),
        ):
            yield from _map_problems(f"{where}: {side}", pairs, {spec.name: spec for spec in specs}, tensors)


def _map_problems(
    where: str, pairs: Sequence[tuple[str, str]], specs: Mapping[str, TensorSpec], tensors: dict[str, TensorSpec]
) -> Iterator[str]:
    """Each pair against what is known of its tensor so far; the first who names a tensor says what it is."""
    for name, tensor in pairs:
        spec = specs.get(name)
        if spec is None:
            yield f"{where} {name!r} does not exist in the model"
            continue
        known = tensors.setdefault(tensor, spec)
        if known.datatype is not spec.datatype:
            yield (
                f"{where} {name!r}: inconsistent data type of ensemble tensor {tensor!r}: "
                f"{spec.datatype} and {known.datatype}"
            )
        elif not _agree(known.shape, spec.shape):
            yield (
                f"{where} {name!r}: inconsistent shape of ensemble tensor {tensor!r}: "
                f"{list(spec.shape)} and {list(known.shape)}"
            )


def _agree(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(
        left == right or ANY in (left, right) for left, right in zip(one, other, strict=True)
    )
