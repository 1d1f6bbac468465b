"""A model's configuration as JSON, Triton's ModelConfig: written for whoever asks, read from a load request.

What has an effect here is read; what would change the meaning of a model, or load foreign code, is refused by name.
int64 numbers are written as numbers, and read as numbers or text (protobuf's JSON form has text).
Leaves out: configurations in a Triton repository (`triton_repository`), and whether one fits its model (`model_fit`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import MAX_AXIS, MAX_RANK, Datatype
from blindai.oip.json_data import check_depth, decode_json
from blindai.oip.tensors import TensorSpec
from blindai.server.execution_providers import OPENVINO
from blindai.server.model_config import QueuePolicy, ServingConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.server.catalogue import StoredModel
    from blindai.server.model_config import EnsembleStep
    from blindai.server.runner import ModelFace

BACKEND = "onnxruntime"
_PLATFORMS = ("", "onnxruntime_onnx")
MAX_INSTANCES = 64
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Axis = Annotated[int, Meta(ge=-1, le=MAX_AXIS)] | str


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    data_type: str
    dims: Annotated[list[_Axis], Meta(max_length=MAX_RANK)]
    format: str = "FORMAT_NONE"
    optional: bool = False
    label_filename: str = ""


class _Group(msgspec.Struct):
    count: Annotated[int, Meta(ge=0, le=MAX_INSTANCES)] = 1


class _Queue(msgspec.Struct, forbid_unknown_fields=True):
    timeout_action: str = "REJECT"
    default_timeout_microseconds: _Whole | str = 0
    allow_timeout_override: bool = False
    max_queue_size: _Count = 0


class _Batching(msgspec.Struct, forbid_unknown_fields=True):
    preferred_batch_size: list[_Count] = []
    max_queue_delay_microseconds: _Whole | str = 0
    preserve_ordering: bool = False
    priority_levels: _Whole | str = 0
    default_priority_level: _Whole | str = 0
    default_queue_policy: _Queue | None = None


class _Latest(msgspec.Struct, forbid_unknown_fields=True):
    num_versions: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 1


class _Specific(msgspec.Struct, forbid_unknown_fields=True):
    versions: list[Annotated[int, Meta(ge=1)] | str]


class _Policy(msgspec.Struct, forbid_unknown_fields=True):
    latest: _Latest | None = None
    all: dict[str, str] | None = None
    specific: _Specific | None = None


class _Config(msgspec.Struct, forbid_unknown_fields=True):
    """Only what has an effect, and what Triton's own answer holds without one."""

    name: str = ""
    platform: str = ""
    backend: str = ""
    runtime: str = ""
    max_batch_size: _Count = 0
    input: list[_Tensor] = []
    output: list[_Tensor] = []
    instance_group: list[_Group] = []
    dynamic_batching: _Batching | None = None
    version_policy: _Policy | None = None
    default_model_filename: str = ""
    optimization: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    metric_tags: dict[str, str] = {}
    cc_model_filenames: dict[str, str] = {}
    batch_input: Annotated[list[Any], Meta(max_length=0)] = []
    batch_output: Annotated[list[Any], Meta(max_length=0)] = []
    model_warmup: Annotated[list[Any], Meta(max_length=0)] = []


_decoder = msgspec.json.Decoder(_Config)


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
        "input": [_write_tensor(spec, config) for spec in face.inputs],
        "output": [_write_tensor(spec, config) for spec in face.outputs],
        "instance_group": [],
        "default_model_filename": "",
    }
    if config.steps:
        return written | {"ensemble_scheduling": {"step": [_write_step(step) for step in config.steps]}}
    kind = "KIND_GPU" if "cuda" in face.providers else "KIND_CPU"
    written["instance_group"] = [{"name": model.name, "kind": kind, "count": config.instances}]
    if OPENVINO in face.providers:
        accelerator = {"cpu_execution_accelerator": [{"name": OPENVINO}]}
        written["optimization"] = {"execution_accelerators": accelerator}
    written["default_model_filename"] = model.manifest.model_path
    if config.max_batch_size and config.batching != "off":
        written["dynamic_batching"] = _write_batching(config)
    return written


def read_config(text: bytes, *, name: str) -> ServingConfig:
    """What a configuration of the model `name` means here.

    Raises:
        InvalidInputError: no configuration, of another model, or one that this server cannot honour.
    """
    check_depth(memoryview(text))
    message = decode_json(_decoder, text, "the parameter `config`")
    _require(message.name in ("", name), "name is not that of the model in the path")
    _require(message.platform in _PLATFORMS, "platform is onnxruntime_onnx here")
    _require(message.backend in ("", BACKEND), "backend is onnxruntime here")
    _require(not message.runtime, "runtime is foreign code, which this server never loads")
    batching = message.dynamic_batching
    return ServingConfig(
        max_batch_size=message.max_batch_size,
        batching="off" if message.max_batch_size and batching is None else "auto",
        preferred_batch_sizes=tuple(batching.preferred_batch_size) if batching else (),
        max_queue_delay_us=_number(batching.max_queue_delay_microseconds) if batching else 0,
        instances=max(1, sum(group.count or 1 for group in message.instance_group)),
        queue=_read_queue(batching) if batching else QueuePolicy(),
        inputs=_read_tensors(message.input, message),
        outputs=_read_tensors(message.output, message),
        version_policy=_read_policy(message.version_policy),
    )


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


def _read_policy(policy: _Policy | None) -> str:
    if policy is None:
        return ServingConfig().version_policy
    _require(
        [policy.latest, policy.all, policy.specific].count(None) == 2,  # noqa: PLR2004  # one of three
        "version_policy has exactly one of latest, all and specific",
    )
    if policy.specific is not None:
        return " ".join(["specific", *(str(_number(version)) for version in policy.specific.versions)])
    return "all" if policy.latest is None else f"latest {policy.latest.num_versions}"


def _read_queue(batching: _Batching) -> QueuePolicy:
    levels, default = _number(batching.priority_levels), _number(batching.default_priority_level)
    _require(not levels or 1 <= default <= levels, "default_priority_level is from 1 to priority_levels")
    policy = batching.default_queue_policy
    if policy is None:
        return QueuePolicy(priority_levels=levels, default_priority_level=default)
    _require(policy.timeout_action == "REJECT", "timeout_action is REJECT here")
    return QueuePolicy(
        max_queue_size=policy.max_queue_size or QueuePolicy().max_queue_size,
        default_timeout_us=_number(policy.default_timeout_microseconds),
        allow_timeout_override=policy.allow_timeout_override,
        priority_levels=levels,
        default_priority_level=default,
    )


def _read_tensors(entries: Sequence[_Tensor], message: _Config) -> tuple[TensorSpec, ...]:
    batch = (-1,) if message.max_batch_size else ()
    specs = tuple(
        TensorSpec(
            name=entry.name,
            datatype=_read_datatype(entry.data_type),
            shape=batch + tuple(_number(axis, least=-1) for axis in entry.dims),
        )
        for entry in entries
    )
    _require(len({spec.name for spec in specs}) == len(specs), "an input or output stands there twice")
    return specs


def _read_datatype(text: str) -> Datatype:
    name = text.removeprefix("TYPE_")
    known = {"STRING" if datatype is Datatype.BYTES else datatype.value: datatype for datatype in Datatype}
    _require(text.startswith("TYPE_") and name in known, "data_type is TYPE_FP32, TYPE_STRING and so on")
    return known[name]


def _number(value: int | str, *, least: int = 0) -> int:
    """Protobuf writes its 64-bit numbers as text."""
    if isinstance(value, str):
        digits = value.removeprefix("-") if least < 0 else value
        _require(digits.isascii() and digits.isdigit() and len(digits) < 20, "a number is written in digits")  # noqa: PLR2004  # of a 64-bit number
        value = int(value)
    _require(least <= value <= MAX_AXIS, "a number is out of its range")
    return value


def _require(fact: bool, words: str) -> None:  # noqa: FBT001  # reads as a sentence
    if not fact:
        raise InvalidInputError(f"the parameter `config`: {words}")
