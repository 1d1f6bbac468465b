"""A Triton ModelConfig becomes a `ServingConfig`, session options and a choice of versions.

Whether it was written as config.pbtxt in a repository or as JSON in a load request (`model_config_json`), it means
the same.
Every field has an effect here, is refused, or is named in a warning (`triton_fields`). Where Triton's default would be
without a bound (a queue's length), ours stays.
Leaves out: the files beside it (`triton_repository`), warm-up data (`triton_warmup`), and whether the declaration is
true of the model (`model_fit`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.bundle import FILE_PATH, SessionOptions
from blindai.errors import InvalidInputError
from blindai.oip.datatypes import MAX_RANK, Datatype, element_count
from blindai.oip.grpc.schema import ModelConfig, from_text
from blindai.oip.tensors import TensorSpec
from blindai.server.model_config import EnsembleStep, QueuePolicy, ServingConfig
from blindai.server.triton_fields import judge_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blindai.oip.grpc.schema import Message
    from blindai.server.triton_files import Findings

CONFIG_FILE = "config.pbtxt"
MAX_CONFIG_BYTES = 1024 * 1024
DEFAULT_MODEL_FILE = "model.onnx"
BATCHING_PARAMETER = "blindai_batching"
THREADS_PARAMETER = "intra_op_thread_count"
MAX_STEPS = 256
MAX_INSTANCES = 64
_BACKENDS = ("", "onnxruntime")
_PLATFORMS = ("", "onnxruntime_onnx")
_BATCHINGS = ("auto", "on", "off")
OPTIMIZATIONS = {0: "all", -1: "basic", 1: "extended", 2: "disabled"}
_AS_WE_DO = {("execution_mode", "0")}
_KIND_GPU = 1
_DATATYPES = {datatype.value: datatype for datatype in Datatype}


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPolicy:
    """Which of a model's versions are served.

    Attributes:
        latest: the highest so many; 0 for all.
        specific: these, if any are named.
    """

    latest: int = 1
    specific: tuple[int, ...] = ()

    def chosen(self, versions: Sequence[int]) -> tuple[int, ...]:
        """Of those that are there, ascending."""
        if self.specific:
            return tuple(sorted(set(versions).intersection(self.specific)))
        ascending = sorted(versions)
        return tuple(ascending[-self.latest :] if self.latest else ascending)

    @property
    def text(self) -> str:
        """As `ServingConfig.version_policy` says it."""
        if self.specific:
            return " ".join(["specific", *map(str, self.specific)])
        return f"latest {self.latest}" if self.latest else "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What a ModelConfig says; all of a plan without one.

    Attributes:
        serving: how the model is served; without labels and warm-up, which lie in files, and with steps that name
            neither version nor digest if they take the latest.
        session: how the engine runs it; part of the model's digest.
        model_file: name of the model's file in each version's folder.
        versions: which are served.
        label_files: by output.
        warmup: the requests as they are written.
    """

    serving: ServingConfig = field(default_factory=ServingConfig)
    session: SessionOptions = field(default_factory=SessionOptions)
    model_file: str = DEFAULT_MODEL_FILE
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    label_files: tuple[tuple[str, str], ...] = ()
    warmup: tuple[Any, ...] = ()


def parse_config(content: bytes, where: str, findings: Findings) -> Message | None:
    """The message that a config.pbtxt writes, or `None` and a problem with its line."""
    try:
        return from_text(content.decode("utf-8"), ModelConfig)
    except UnicodeDecodeError:
        findings.refuse(where, "not a text in UTF-8")
    except InvalidInputError as error:
        findings.refuse(where, str(error))
    return None


def read_plan(message: Any, name: str, where: str, findings: Findings) -> ModelPlan:
    """What the message means for the model of this name; what is wrong with it goes to the findings."""
    judge_fields(message, where, findings)
    if message.name not in ("", name):
        findings.refuse(where, f"name: the model is called {name!r}, and its configuration must say so, or nothing")
    is_ensemble = message.HasField("ensemble_scheduling")
    _check_backend(message, where, findings, is_ensemble=is_ensemble)
    if message.max_batch_size < 0:
        findings.refuse(where, "max_batch_size is 0 or more")
    declared = _Declared(message, where, findings, is_ensemble=is_ensemble)
    parameters = {key: value.string_value for key, value in message.parameters.items()}
    versions = _version_policy(message, where, findings)
    return ModelPlan(
        serving=ServingConfig(
            max_batch_size=max(0, message.max_batch_size),
            batching=_batching(message, parameters, where, findings),
            preferred_batch_sizes=_preferred(message, where, findings),
            max_queue_delay_us=message.dynamic_batching.max_queue_delay_microseconds,
            instances=_instances(message, where, findings, is_ensemble=is_ensemble),
            intra_op_threads=_threads(parameters, where, findings),
            queue=_queue(message, where, findings),
            inputs=declared.inputs,
            outputs=declared.outputs,
            optional=tuple(tensor.name for tensor in message.input if tensor.optional),
            reshapes=declared.reshapes,
            steps=_steps(message, where, findings),
            version_policy=versions.text,
        ),
        session=SessionOptions(graph_optimization=_optimization(message, where, findings)),
        model_file=_model_file(message, where, findings),
        versions=versions,
        label_files=tuple((output.name, output.label_filename) for output in message.output if output.label_filename),
        warmup=tuple(message.model_warmup),
    )


def read_labels(content: bytes) -> tuple[str, ...]:
    """The names of classes that a label file has.

    Raises:
        InvalidInputError: it is no text.
    """
    try:
        return tuple(content.decode("utf-8").splitlines())
    except UnicodeDecodeError:
        raise InvalidInputError("labels are text in UTF-8, one a line") from None


def datatype_of(tensor: Any) -> Datatype | None:
    """The datatype of a message with `data_type`, or `None` if it names none."""
    values = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    number = tensor.data_type
    name = values[number].name.removeprefix("TYPE_") if number in values else ""
    return _DATATYPES.get("BYTES" if name == "STRING" else name)


def shape_of(dims: Sequence[int], *, wildcard: bool) -> tuple[int, ...] | None:
    """Axes that a tensor can have, or `None`."""
    shape = tuple(dims)
    if len(shape) >= MAX_RANK or any(axis < 1 and not (wildcard and axis == -1) for axis in shape):
        return None
    try:
        element_count(tuple(axis for axis in shape if axis != -1))
    except InvalidInputError:
        return None
    return shape


class _Declared:
    """The inputs and outputs of a ModelConfig."""

    def __init__(self, message: Any, where: str, findings: Findings, *, is_ensemble: bool) -> None:
        self._where = where
        self._findings = findings
        self._batch = (-1,) if message.max_batch_size > 0 else ()
        self._reshapes: dict[str, tuple[int, ...]] = {}
        self._is_ensemble = is_ensemble
        self.inputs = self._side("input", message.input)
        self.outputs = self._side("output", message.output)
        self.reshapes = tuple(sorted(self._reshapes.items()))
        if is_ensemble and not (message.input and message.output):
            findings.refuse(where, "an ensemble declares its inputs and outputs")

    def _side(self, side: str, tensors: Sequence[Any]) -> tuple[TensorSpec, ...]:
        specs = []
        for tensor in tensors:
            try:
                specs.append(self._spec(tensor))
            except InvalidInputError as error:
                self._findings.refuse(self._where, f"{side} {tensor.name!r}: {error}", error.hint)
        if len({spec.name for spec in specs}) != len(specs):
            self._findings.refuse(self._where, f"{side}: a name stands there twice")
        return tuple(specs)

    def _spec(self, tensor: Any) -> TensorSpec:
        if not tensor.name:
            raise InvalidInputError("its name is missing")
        datatype = datatype_of(tensor)
        if datatype is None:
            raise InvalidInputError("data_type is missing")
        shape = shape_of(tensor.dims, wildcard=True)
        if shape is None:
            raise InvalidInputError("dims are sizes of 1 or more, or -1")
        if tensor.HasField("reshape"):
            self._reshape(tensor, shape)
        return TensorSpec(name=tensor.name, datatype=datatype, shape=self._batch + shape)

    def _reshape(self, tensor: Any, shape: tuple[int, ...]) -> None:
        inner = shape_of(tensor.reshape.shape, wildcard=True)
        if self._is_ensemble:
            raise InvalidInputError("reshape: an ensemble's models do that themselves")
        if inner is None or inner.count(-1) > 1 or (-1 in inner) != (-1 in shape):
            raise InvalidInputError("reshape: at most one axis is -1, and only if dims has one")
        if -1 not in inner and element_count(inner) != element_count(shape):
            raise InvalidInputError("reshape has another number of elements than dims")
        if self._reshapes.setdefault(tensor.name, inner) != inner:
            raise InvalidInputError("reshape: an input and an output of one name have two shapes")


def _check_backend(message: Any, where: str, findings: Findings, *, is_ensemble: bool) -> None:
    if is_ensemble:
        if message.platform != "ensemble" or message.backend:
            findings.refuse(where, 'an ensemble has platform: "ensemble" and no backend')
        return
    if message.backend not in _BACKENDS or message.platform not in _PLATFORMS:
        findings.refuse(
            where,
            f"backend {message.backend!r}, platform {message.platform!r}: only ONNX models and ensembles are served",
            'export to ONNX, and write backend: "onnxruntime"',
        )


def _version_policy(message: Any, where: str, findings: Findings) -> VersionPolicy:
    policy = message.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(latest=0)
    if choice == "specific":
        versions = tuple(policy.specific.versions)
        if not versions or any(version < 1 for version in versions):
            findings.refuse(where, "version_policy: specific names versions from 1 on")
        return VersionPolicy(specific=versions)
    return VersionPolicy(latest=policy.latest.num_versions or 1)


def _batching(message: Any, parameters: Mapping[str, str], where: str, findings: Findings) -> str:
    """As in Triton, requests are joined only if `dynamic_batching` is there; here also only where rows keep apart.

    A configuration that declares neither batches nor shapes leaves it to the graph, as a model without one does.
    """
    wished = parameters.get(BATCHING_PARAMETER)
    if wished is not None and wished not in _BATCHINGS:
        findings.refuse(where, f"parameters: {BATCHING_PARAMETER} is {', '.join(_BATCHINGS)}")
    if wished in _BATCHINGS:
        return str(wished)
    if message.max_batch_size > 0:
        return "auto" if message.HasField("dynamic_batching") else "off"
    return "off" if message.input or message.output else "auto"


def _preferred(message: Any, where: str, findings: Findings) -> tuple[int, ...]:
    sizes = tuple(message.dynamic_batching.preferred_batch_size)
    if any(not 1 <= size <= message.max_batch_size for size in sizes):
        findings.refuse(where, "dynamic_batching: preferred_batch_size is from 1 to max_batch_size")
    return sizes


def _instances(message: Any, where: str, findings: Findings, *, is_ensemble: bool) -> int:
    groups = message.instance_group
    if groups and is_ensemble:
        findings.refuse(where, "instance_group: an ensemble has none, its models have")
    if any(group.count < 0 for group in groups):
        findings.refuse(where, "instance_group: count is 1 or more")
    if any(group.kind == _KIND_GPU for group in groups):
        findings.warnings.append(f"{where}: instance_group: KIND_GPU: what computes is the setting execution_providers")
    count = sum(group.count or 1 for group in groups)
    if count > MAX_INSTANCES:
        findings.refuse(where, f"instance_group: at most {MAX_INSTANCES} instances, these are {count}")
    return max(1, count)


def _threads(parameters: Mapping[str, str], where: str, findings: Findings) -> int:
    for item in parameters.items():
        if item[0] not in (THREADS_PARAMETER, BATCHING_PARAMETER) and item not in _AS_WE_DO:
            findings.ignore(where, f"parameters {item[0]!r}")
    text = parameters.get(THREADS_PARAMETER, "0")
    if not text.isascii() or not text.isdigit() or int(text) > 1024:  # noqa: PLR2004  # more than any machine has
        findings.refuse(where, "parameters: intra_op_thread_count is a whole number, 0 for the server's choice")
        return 0
    return int(text)


def _queue(message: Any, where: str, findings: Findings) -> QueuePolicy:
    batching = message.dynamic_batching
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        findings.refuse(where, "dynamic_batching: default_priority_level is from 1 to priority_levels")
    ours = QueuePolicy()
    if not batching.HasField("default_queue_policy"):
        return QueuePolicy(priority_levels=levels, default_priority_level=default)
    policy = batching.default_queue_policy
    return QueuePolicy(
        max_queue_size=policy.max_queue_size or ours.max_queue_size,
        default_timeout_us=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        priority_levels=levels,
        default_priority_level=default,
    )


def _optimization(message: Any, where: str, findings: Findings) -> str:
    level = message.optimization.graph.level
    if level not in OPTIMIZATIONS:
        findings.refuse(where, "optimization: graph: level is -1 (basic), 0 (all), 1 (extended) or 2 (none)")
    return OPTIMIZATIONS.get(level, "all")


def _model_file(message: Any, where: str, findings: Findings) -> str:
    name = str(message.default_model_filename) or DEFAULT_MODEL_FILE
    if not FILE_PATH.match(name) or not name.endswith(".onnx"):
        findings.refuse(where, "default_model_filename: a file name without folders that ends in .onnx")
        return DEFAULT_MODEL_FILE
    return name


def _steps(message: Any, where: str, findings: Findings) -> tuple[EnsembleStep, ...]:
    steps = message.ensemble_scheduling.step
    if message.HasField("ensemble_scheduling") and not 1 <= len(steps) <= MAX_STEPS:
        findings.refuse(where, f"ensemble_scheduling: an ensemble has 1 to {MAX_STEPS} steps")
    return tuple(
        EnsembleStep(
            model=step.model_name,
            version=str(step.model_version) if step.model_version > 0 else "",
            digest="",
            inputs=tuple(sorted(step.input_map.items())),
            outputs=tuple(sorted(step.output_map.items())),
        )
        for step in steps
    )
