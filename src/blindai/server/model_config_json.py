"""A model's configuration as JSON, Triton's ModelConfig: written for whoever asks, read from a load request.

JSON and config.pbtxt are two spellings of one message, so what it means is `triton_config`'s word for both.
int64 numbers are written as numbers, and read as numbers or text (protobuf's JSON form has text).
Leaves out: whether a configuration fits its model (`model_fit`), and warnings about fields without an effect: a load's
answer has no place for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.grpc.schema import ModelConfig, from_json_object
from blindai.oip.json_data import check_depth, decode_json
from blindai.server.execution_providers import OPENVINO
from blindai.server.triton_config import (
    BATCHING_PARAMETER,
    MAX_CONFIG_BYTES,
    OPTIMIZATIONS,
    THREADS_PARAMETER,
    ModelPlan,
    read_plan,
)
from blindai.server.triton_files import Findings

if TYPE_CHECKING:
    from blindai.oip.tensors import TensorSpec
    from blindai.server.catalogue import StoredModel
    from blindai.server.model_config import EnsembleStep, ServingConfig
    from blindai.server.runner import ModelFace

BACKEND = "onnxruntime"
_WHERE = "the parameter `config`"
_MAX_TOLD = 4
_OPTIMIZATION_LEVELS = {words: level for level, words in OPTIMIZATIONS.items()}
_decoder = msgspec.json.Decoder(dict[str, Any])


def platform_of(model: StoredModel) -> str:
    """In Triton's words."""
    return "ensemble" if model.config.steps else "onnxruntime_onnx"


def write_config(model: StoredModel, face: ModelFace) -> dict[str, Any]:
    """Triton's ModelConfig of a model that is served so."""
    config = model.config
    written: dict[str, Any] = {
        "name": model.name,
        "platform": platform_of(model),
        "backend": "" if config.steps else BACKEND,
        "version_policy": _write_policy(config.version_policy),
        "max_batch_size": config.max_batch_size,
        "input": [
            *(_write_tensor(spec, config) for spec in face.inputs),
            *(_write_tensor(spec, config) | {"optional": True} for spec in face.optional),
        ],
        "output": [_write_tensor(spec, config) for spec in face.outputs],
        "instance_group": [],
        "default_model_filename": "",
    }
    if config.steps:
        return written | {"ensemble_scheduling": {"step": [_write_step(step) for step in config.steps]}}
    kind = "KIND_GPU" if "cuda" in face.providers else "KIND_CPU"
    written["instance_group"] = [{"name": model.name, "kind": kind, "count": config.instances}]
    written["default_model_filename"] = model.manifest.model_path
    written["optimization"] = {"graph": {"level": _OPTIMIZATION_LEVELS[model.manifest.session.graph_optimization]}}
    if OPENVINO in face.providers:
        accelerator = {"cpu_execution_accelerator": [{"name": OPENVINO}]}
        written["optimization"]["execution_accelerators"] = accelerator
    written["parameters"] = {
        BATCHING_PARAMETER: {"string_value": config.batching},
        THREADS_PARAMETER: {"string_value": str(config.intra_op_threads)},
    }
    if config.max_batch_size and config.batching != "off":
        written["dynamic_batching"] = _write_batching(config)
    return written


def read_config(text: bytes, *, name: str) -> ModelPlan:
    """What a configuration of the model `name` means here: the same as in a repository's config.pbtxt.

    Raises:
        InvalidInputError: no configuration, of another model, or one that this server cannot honour.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise InvalidInputError(f"{_WHERE} has more than {MAX_CONFIG_BYTES} bytes")
    check_depth(memoryview(text))
    members, findings = decode_json(_decoder, text, _WHERE), Findings()
    try:
        message: Any = from_json_object(members, ModelConfig)
    except InvalidInputError as error:
        raise InvalidInputError(f"{_WHERE}: {error}") from None
    plan = read_plan(message, name, _WHERE, findings)
    if plan.serving.steps:
        findings.refuse(_WHERE, "ensemble_scheduling: an ensemble is served from a model repository only")
    if plan.warmup:
        findings.refuse(_WHERE, "model_warmup: warm-up data is read from a model repository only")
    if findings.problems:
        raise InvalidInputError("; ".join(findings.problems[:_MAX_TOLD]))
    return plan


def _write_tensor(spec: TensorSpec, config: ServingConfig) -> dict[str, Any]:
    """Without the batch's axis, as Triton's dims are."""
    data_type = "STRING" if spec.datatype is Datatype.BYTES else spec.datatype.value
    dims = spec.shape[1:] if config.max_batch_size else spec.shape
    written: dict[str, Any] = {"name": spec.name, "data_type": f"TYPE_{data_type}", "dims": list(dims)}
    inner = dict(config.reshapes).get(spec.name)
    return written if inner is None else written | {"reshape": {"shape": list(inner)}}


def _write_step(step: EnsembleStep) -> dict[str, Any]:
    return {
        "model_name": step.model,
        "model_version": int(step.version),
        "input_map": dict(step.inputs),
        "output_map": dict(step.outputs),
    }


def _write_batching(config: ServingConfig) -> dict[str, Any]:
    return {
        "preferred_batch_size": list(config.preferred_batch_sizes),
        "max_queue_delay_microseconds": config.max_queue_delay_us,
        "priority_levels": config.queue.priority_levels,
        "default_priority_level": config.queue.default_priority_level,
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": config.queue.default_timeout_us,
            "allow_timeout_override": config.queue.allow_timeout_override,
            "max_queue_size": config.queue.max_queue_size,
        },
    }


def _write_policy(policy: str) -> dict[str, Any]:
    kind, *numbers = policy.split()
    if kind == "latest":
        return {"latest": {"num_versions": int(numbers[0])}}
    return {"all": {}} if kind == "all" else {"specific": {"versions": [int(number) for number in numbers]}}
