"""Which fields of a ModelConfig have an effect here, which are refused, and that all others are named in a warning.

Refused is what would make a model compute something else than its author meant, or what would load foreign code.
Ignored is what only tunes Triton itself; it is named, so that nobody believes in it.
Leaves out: what the fields with an effect do (`triton_config`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.server.triton_files import Findings

# A field whose message has fields of its own is followed into them, unless it stands here itself.
_EFFECTIVE = frozenset(
    {
        "name",
        "platform",
        "backend",
        "max_batch_size",
        "default_model_filename",
        "version_policy.latest.num_versions",
        "version_policy.specific.versions",
        "input.name",
        "input.data_type",
        "input.dims",
        "input.reshape",
        "input.optional",
        "output.name",
        "output.data_type",
        "output.dims",
        "output.reshape",
        "output.label_filename",
        "instance_group.count",
        "instance_group.kind",
        "dynamic_batching.preferred_batch_size",
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.priority_levels",
        "dynamic_batching.default_priority_level",
        "dynamic_batching.default_queue_policy.default_timeout_microseconds",
        "dynamic_batching.default_queue_policy.allow_timeout_override",
        "dynamic_batching.default_queue_policy.max_queue_size",
        "optimization.graph.level",
        "parameters",
        "ensemble_scheduling.step.model_name",
        "ensemble_scheduling.step.model_version",
        "ensemble_scheduling.step.input_map",
        "ensemble_scheduling.step.output_map",
        "model_warmup",
    }
)
_REFUSED = {
    "model_operations": "operator libraries are foreign code, which this server never loads",
    "model_repository_agents": "repository agents change models while they are read",
    "sequence_batching": "sequences with state are not served",
    "runtime": "a runtime of one's own is foreign code, which this server never loads",
    "dynamic_batching.default_queue_policy.timeout_action": "a request that waited too long is refused, never delayed",
    "batch_input": "inputs that a backend computes from a batch are not served",
    "batch_output": "outputs that a backend cuts from a batch are not served",
    "input.is_shape_tensor": "shape tensors are TensorRT's",
    "output.is_shape_tensor": "shape tensors are TensorRT's",
    "input.is_non_linear_format_io": "such formats are TensorRT's",
    "output.is_non_linear_format_io": "such formats are TensorRT's",
    "ensemble_scheduling.step.model_namespace": "there are no namespaces",
    "model_transaction_policy.decoupled": "one request has one answer here; decoupled models are not served",
    "response_cache.enable": "answers are never kept: they are their users' data",
}


def judge_fields(message: Any, where: str, findings: Findings) -> None:
    """Say of every field that is set whether it is refused or has no effect, each path once."""
    for path in dict.fromkeys(_paths(message, "")):
        if path in _REFUSED:
            findings.refuse(where, f"{path}: {_REFUSED[path]}")
        else:
            findings.ignore(where, path)


def _paths(message: Any, prefix: str) -> Iterator[str]:
    """The paths of set fields that have no effect, or must not have any."""
    for descriptor, value in message.ListFields():
        path = prefix + descriptor.name
        if path in _EFFECTIVE:
            continue
        if path in _REFUSED or descriptor.message_type is None or _is_map(descriptor):
            yield path
            continue
        for inner in (value,) if hasattr(value, "ListFields") else value:
            yield from _paths(inner, f"{path}.")


def _is_map(descriptor: Any) -> bool:
    return bool(descriptor.message_type.GetOptions().map_entry)
