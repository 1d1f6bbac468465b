"""The cases of the ONNX backend suite that the Open Inference Protocol can say, from the onnx package itself.

Node cases are made by the package, `simple` and `pytorch-*` lie in it with their inputs, and the nine `light` models
get seeded inputs of their declared shapes. Left out: sequences, optionals, and element types outside the protocol.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.version_converter
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST = 7
_UPGRADE_TO = 13
_FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")
_TYPES = frozenset(
    {
        TensorProto.BOOL,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.BFLOAT16,
        TensorProto.STRING,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BackendCase:
    """One model and inputs for it."""

    name: str
    model: bytes
    inputs: dict[str, np.ndarray[Any, Any]]


def backend_cases() -> Iterator[BackendCase]:
    """Every case that the protocol can say."""
    yield from _node_cases()
    for folder in _FOLDERS:
        yield from _stored_cases(folder)
    yield from _light_cases()


def is_older_than_7(case: BackendCase) -> bool:
    """Whether the model's operator set is one that the server's guard does not let through."""
    sets = onnx.load_model_from_string(case.model).opset_import
    return any(one.domain == "" and one.version < OLDEST for one in sets)


def upgraded(case: BackendCase) -> BackendCase | None:
    """The case in a newer operator set, as the refusal's hint advises; None where onnx cannot convert it."""
    try:
        model = onnx.version_converter.convert_version(onnx.load_model_from_string(case.model), _UPGRADE_TO)
    except (RuntimeError, onnx.version_converter.ConvertError):
        return None
    return BackendCase(name=f"{case.name} upgraded", model=model.SerializeToString(), inputs=case.inputs)


def _data() -> Path:
    return Path(onnx.__file__).parent / "backend/test/data"


def _node_cases() -> Iterator[BackendCase]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package computes overflows and divisions by zero on purpose
        cases = load_model_tests(kind="node")
    for case in cases:
        if case.model is None or not case.data_sets or not _can_be_said(case.model):
            continue
        yield from _case(case.name, case.model, list(case.data_sets[0][0]))


def _stored_cases(folder: str) -> Iterator[BackendCase]:
    for directory in sorted((_data() / folder).iterdir()):
        model = onnx.load(str(directory / "model.onnx"))
        if not _can_be_said(model):
            continue
        files = sorted(directory.glob("test_data_set_0/input_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
        tensors = [TensorProto.FromString(path.read_bytes()) for path in files]
        yield from _case(f"{folder}/{directory.name}", model, [numpy_helper.to_array(tensor) for tensor in tensors])


def _light_cases() -> Iterator[BackendCase]:
    random = np.random.default_rng(2026)
    for path in sorted((_data() / "light").glob("*.onnx")):
        model = onnx.load(str(path))
        inputs = []
        for value in _true_inputs(model):
            shape = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
            inputs.append(random.random(shape, dtype=np.float32))
        yield from _case(f"light/{path.stem}", model, inputs)


def _case(name: str, model: onnx.ModelProto, values: list[Any]) -> Iterator[BackendCase]:
    names = [value.name for value in _true_inputs(model)]
    if len(names) != len(values) or any(not isinstance(value, np.ndarray | np.generic) for value in values):
        return  # an optional input that is left out
    arrays = {given: np.asarray(value) for given, value in zip(names, values, strict=True)}
    yield BackendCase(name=name, model=model.SerializeToString(), inputs=arrays)


def _true_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Old models list their weights among the inputs."""
    initialisers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initialisers]


def _can_be_said(model: onnx.ModelProto) -> bool:
    values = [*_true_inputs(model), *model.graph.output]
    return all(value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in _TYPES for value in values)
