"""Runs one model with ONNX Runtime; imported in a model's own process (`worker`), or by `engine_thread`.

`model_guard` reads the model first. Requests are checked against the model's inputs before ONNX Runtime sees them, so
that the messages are ours and say what the model expects; ONNX Runtime's own words may quote data, and go nowhere.
Leaves out: joining requests (`scheduler`), when a run is broken off (`worker`), the limit of its memory (the sandbox).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from blindai.bundle import SessionOptions
from blindai.errors import InternalError, InvalidInputError, InvalidModelError
from blindai.model_guard import check_model
from blindai.oip.datatypes import MAX_RANK
from blindai.oip.tensors import Datatype, Tensor, TensorSpec
from blindai.server.execution_providers import CPU, OPENVINO, PROVIDERS
from blindai.server.precision import precision_of
from blindai.server.row_independence import judge_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blindai.oip.metadata import Precision

_MAX_OPTIONAL = 64
_FATAL = 4  # ONNX Runtime's log severity: everything below may quote names, shapes and values
_DATATYPES = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(bfloat16)": Datatype.BF16,
    "tensor(string)": Datatype.BYTES,
}
_OPTIMIZATIONS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class RunSwitch:
    """Breaks one run off, from another thread; belongs to that run only."""

    __slots__ = ("options",)

    def __init__(self) -> None:
        self.options = ort.RunOptions()

    def break_off(self) -> None:
        """ONNX Runtime looks before each operator: one that never ends is not reached."""
        self.options.terminate = True


class Engine:
    """One loaded model.

    Args:
        session: how the model is run; part of its digest.
        threads: of one operator.
        providers: names of `PROVIDERS`, in order: each takes what it can, and the rest goes to the next;
            what one cannot load at all, those behind it load.

    Attributes:
        inputs: what `run` expects, known after `load`.
        optional: inputs with a default in the model, which `run` takes if they are given.
        outputs: what it answers.
        rows_independent: whether requests may be joined along their first axis without changing an answer.
        precision: of its numbers, by its graph.
        providers: those that compute some of it.
    """

    def __init__(
        self, session: SessionOptions | None = None, *, threads: int = 1, providers: tuple[str, ...] = (CPU,)
    ) -> None:
        self._options = session or SessionOptions()
        self._threads = threads
        self._wished = providers
        self.providers: tuple[str, ...] = ()
        self._session: Any = None
        self._run: Any = None
        self.rows_independent = False
        self.precision: Precision = "mixed"
        self.inputs: tuple[TensorSpec, ...] = ()
        self.optional: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()

    def load(self, files: Mapping[str, bytes | memoryview], *, rows_wanted: bool = False) -> None:
        """Check and load a bundle; the buffers may go afterwards.

        Args:
            files: content by flat name; exactly one name ends in `.onnx`.
            rows_wanted: find out `rows_independent`, too; else it stays false.

        Raises:
            InvalidModelError: it must not or cannot be run.
        """
        model_path = next(path for path in files if path.endswith(".onnx"))
        external = {path: data for path, data in files.items() if path != model_path}
        model = bytes(files[model_path])
        graph = check_model(model, {path: len(data) for path, data in external.items()})
        self.rows_independent = rows_wanted and judge_rows(graph).independent
        self.precision = precision_of(graph)
        self._session = self._create_session(model, external)
        self._run = self._session._sess.run  # noqa: SLF001  # `run` checks again what `check_inputs` has checked
        self.inputs = _specs(self._session.get_inputs())
        self.optional = _optional(self._session.get_overridable_initializers())
        self.outputs = _specs(self._session.get_outputs())

    def run(
        self, inputs: tuple[Tensor, ...], outputs: tuple[str, ...], switch: RunSwitch | None = None
    ) -> tuple[Tensor, ...]:
        """Predict.

        Args:
            inputs: one tensor for each input of the model, and for any optional one, in any order.
            outputs: names of the wished outputs, in the order wished; empty means all.
            switch: breaks the run off; this run's own.

        Raises:
            InvalidInputError: they do not fit the model; says what it expects.
            InternalError: the model failed on them, or the run was broken off.
        """
        check_inputs(inputs, self.inputs, self.optional)
        wished = wished_outputs(outputs, self.outputs)
        datatypes = {tensor.datatype for tensor in inputs} | {spec.datatype for spec in wished}
        predict = self._run_ort_values if Datatype.BF16 in datatypes else self._run_arrays
        return predict(inputs, wished, switch.options if switch else None)

    def _create_session(self, model: bytes, external: Mapping[str, bytes | memoryview]) -> Any:
        _prepare_runtime()
        *preferred, last = self._wished
        for index in range(len(preferred)):
            with contextlib.suppress(InvalidModelError):
                return self._session_on(self._wished[index:], model, external)
        return self._session_on((last,), model, external)

    def _session_on(self, names: tuple[str, ...], model: bytes, external: Mapping[str, bytes | memoryview]) -> Any:
        options = self._session_options(names)
        if external:
            options.add_external_initializers_from_files_in_memory(
                list(external), list(external.values()), [len(data) for data in external.values()]
            )
        providers = [provider_options(name, self._threads) for name in names]
        try:
            session = ort.InferenceSession(
                model, options, providers=providers, enable_fallback=0, read_config_from_model=0
            )
        except Exception as problem:  # noqa: BLE001  # ONNX Runtime raises a dozen unrelated classes
            raise _load_error(names, type(problem).__name__) from None
        if not {name for name, _ in providers} <= set(session.get_providers()):
            raise InternalError("an execution provider could not start")  # ONNX Runtime would go on without it
        session._model_bytes = None  # noqa: SLF001  # else the whole file stays in memory beside the loaded weights
        self.providers = names if names == (CPU,) else _assigned(session, names)
        return session

    def _session_options(self, names: tuple[str, ...]) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL
        options.graph_optimization_level = _OPTIMIZATIONS[self._options.graph_optimization]
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        # Never guess: a file in ONNX Runtime's own format would pass by the guard.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        if names != (CPU,):
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if CPU not in names:  # which ONNX Runtime gives the rest to otherwise
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def _run_arrays(self, inputs: Sequence[Tensor], wished: Sequence[TensorSpec], options: Any) -> tuple[Tensor, ...]:
        feed = {tensor.name: _to_onnx(tensor) for tensor in inputs}
        try:
            arrays = self._run([spec.name for spec in wished], feed, options)
        except Exception:  # noqa: BLE001  # as above; the words may quote data
            raise _run_error() from None
        return tuple(_from_onnx(array, spec) for array, spec in zip(arrays, wished, strict=True))

    def _run_ort_values(
        self, inputs: Sequence[Tensor], wished: Sequence[TensorSpec], options: Any
    ) -> tuple[Tensor, ...]:
        """The slower way, for BF16, which numpy lacks; strings cannot go it."""
        feed = {tensor.name: _to_ort_value(tensor) for tensor in inputs}
        try:
            values = self._session.run_with_ort_values([spec.name for spec in wished], feed, options)
        except Exception:  # noqa: BLE001  # as above
            raise _run_error() from None
        return tuple(_from_ort_value(value, spec) for value, spec in zip(values, wished, strict=True))


def provider_options(name: str, threads: int) -> tuple[str, dict[str, str]]:
    """What ONNX Runtime is told of a provider.

    OpenVINO computes in the precision that the model is written in: left alone it takes bf16 where the processor has
    it, and quantises at run time.
    """
    options = {"device_type": "CPU", "precision": "ACCURACY", "num_of_threads": str(threads), "num_streams": "1"}
    return PROVIDERS[name].onnx_name, options if name == OPENVINO else {}


def _assigned(session: Any, wished: Sequence[str]) -> tuple[str, ...]:
    """Those to which ONNX Runtime has given a part of the graph; the last, if it has worked all of it out by now."""
    found = {part.ep_name for part in session.get_provider_graph_assignment_info()}
    return tuple(name for name in wished if PROVIDERS[name].onnx_name in found) or tuple(wished[-1:])


@functools.cache
def _prepare_runtime() -> None:
    """Once for a process: nothing is sent or logged, and memory grows by what is asked for, not by doubling."""
    ort.disable_telemetry_events()
    ort.set_default_logger_severity(_FATAL)
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({"arena_extend_strategy": 1}))


def check_inputs(inputs: Sequence[Tensor], specs: Sequence[TensorSpec], optional: Sequence[TensorSpec] = ()) -> None:
    """Whether the tensors are what the model expects: each input once, its datatype, rank and fixed axes.

    Optional ones may be missing.

    Raises:
        InvalidInputError: what the model expects.
    """
    expected = {spec.name: spec for spec in (*specs, *optional)}
    names = [tensor.name for tensor in inputs]
    if len(set(names)) != len(names):
        raise InvalidInputError("an input is given twice", hint=_listed(specs))
    if not expected.keys() >= set(names):
        raise InvalidInputError("an input is given that the model does not have", hint=_listed(specs))
    missing = [spec.name for spec in specs if spec.name not in names]
    if missing:
        raise InvalidInputError(f"input {missing[0]!r} is missing", hint=_listed(specs))
    for tensor in inputs:
        _check_input(tensor, expected[tensor.name])


def _check_input(tensor: Tensor, spec: TensorSpec) -> None:
    if tensor.datatype is not spec.datatype:
        raise InvalidInputError(
            f"input {spec.name!r} has datatype {tensor.datatype.value}, the model expects {spec.datatype.value}"
        )
    fits = len(tensor.shape) == len(spec.shape) and all(
        expected in (-1, size) for size, expected in zip(tensor.shape, spec.shape, strict=True)
    )
    if not fits:
        raise InvalidInputError(
            f"the shape of input {spec.name!r} does not fit, the model expects {list(spec.shape)}",
            hint="-1 is an axis of any size." if -1 in spec.shape else "",
        )


def wished_outputs(names: Sequence[str], specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """What these names mean; all for none.

    Raises:
        InvalidInputError: one that the model does not have, or twice.
    """
    if not names:
        return specs
    known = {spec.name: spec for spec in specs}
    if len(set(names)) != len(names) or not known.keys() >= set(names):
        raise InvalidInputError("an output is asked for that the model does not have, or twice", hint=_listed(specs))
    return tuple(known[name] for name in names)


def _listed(specs: Sequence[TensorSpec]) -> str:
    described = (f"{spec.name} {spec.datatype.value} {list(spec.shape)}" for spec in specs)
    return f"The model has {', '.join(described)}."


def _specs(arguments: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(_spec(argument) for argument in arguments)


def _optional(arguments: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """Graph inputs with an initializer, which a request may override; those outside the protocol keep their default.

    Old exporters list every weight there, and nobody means to send those.
    """
    if len(arguments) > _MAX_OPTIONAL:
        return ()
    return _specs([one for one in arguments if one.type in _DATATYPES and len(one.shape) <= MAX_RANK])


def _spec(argument: Any) -> TensorSpec:
    datatype = _DATATYPES.get(argument.type)
    if datatype is None:
        is_tensor = argument.type.startswith("tensor(")
        raise InvalidModelError(
            "an input or output of the model has an element type outside the Open Inference Protocol"
            if is_tensor
            else "an input or output of the model is not a tensor",
            hint="Export with 8- to 64-bit elements."
            if is_tensor
            else "A scikit-learn classifier: export with zipmap=False.",
        )
    if len(argument.shape) > MAX_RANK:
        raise InvalidModelError(f"an input or output of the model has more than {MAX_RANK} axes")
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else -1 for axis in argument.shape)
    return TensorSpec(name=argument.name, datatype=datatype, shape=shape)


def _to_onnx(tensor: Tensor) -> Any:
    """The array that ONNX Runtime takes; it knows strings, not bytes."""
    if tensor.datatype is not Datatype.BYTES:
        return tensor.data
    texts = np.empty(tensor.data.size, dtype=object)
    try:
        texts[:] = [item.decode("utf-8") for item in tensor.data.flat]
    except UnicodeDecodeError:
        raise InvalidInputError(f"input {tensor.name!r} is text for this model, and not all of it is UTF-8") from None
    return texts.reshape(tensor.shape)


def _from_onnx(array: Any, spec: TensorSpec) -> Tensor:
    if spec.datatype is Datatype.BYTES:
        data = np.empty(array.size, dtype=object)
        data[:] = [item.encode("utf-8") for item in array.flat]
        data = data.reshape(array.shape)
    else:
        data = np.ascontiguousarray(array).reshape(array.shape)
    return Tensor(name=spec.name, datatype=spec.datatype, shape=tuple(array.shape), data=data)


def _to_ort_value(tensor: Tensor) -> Any:
    if tensor.datatype is Datatype.BF16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(tensor.data, TensorProto.BFLOAT16)
    if tensor.datatype is Datatype.BYTES:
        raise InternalError("a model that mixes BF16 and text cannot be run")
    return ort.OrtValue.ortvalue_from_numpy(tensor.data)


def _from_ort_value(value: Any, spec: TensorSpec) -> Tensor:
    if spec.datatype is not Datatype.BF16:
        return _from_onnx(value.numpy(), spec)
    shape = tuple(value.shape())
    size = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return Tensor(
        name=spec.name, datatype=spec.datatype, shape=shape, data=np.frombuffer(raw, dtype=np.uint16).reshape(shape)
    )


def _load_error(providers: tuple[str, ...], reason: str) -> InvalidModelError:
    if CPU in providers:
        return InvalidModelError(
            f"ONNX Runtime cannot load the model ({reason})",
            hint="Check it with onnx.checker.check_model, and load it once with onnxruntime on your machine.",
        )
    return InvalidModelError(
        f"the model does not run whole on {', '.join(providers)} ({reason})",
        hint="Where the operator lists cpu behind it, the rest of such a model runs there.",
    )


def _run_error() -> InternalError:
    return InternalError(
        "the model failed on this input",
        hint="A value or a size may not fit inside the model, for example an index past the end of a table.",
    )
