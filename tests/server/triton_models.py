"""Model repositories on disk, as operators lay them out, and the small models inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def scaler(
    factor: float = 2.0, *, shape: Sequence[int | str] = ("rows", 2), names: tuple[str, str] = ("x", "y")
) -> onnx.ModelProto:
    """Y = factor * x, over float."""
    x, y = (helper.make_tensor_value_info(name, FLOAT, list(shape)) for name in names)
    value = numpy_helper.from_array(np.array([factor], dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("Mul", [names[0], "w"], [names[1]])], "g", [x], [y], [value])
    return _model(graph)


def adder() -> onnx.ModelProto:
    """Sum = a + b, and difference = a - b, over float [rows, 2]."""
    a, b, total, difference = (
        helper.make_tensor_value_info(name, FLOAT, ["rows", 2]) for name in ("a", "b", "sum", "difference")
    )
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    return _model(helper.make_graph(nodes, "g", [a, b], [total, difference]))


def shifter() -> onnx.ModelProto:
    """Y = x + b, over float [rows, 2], where b has a default of ten in one row."""
    x, b, y = (helper.make_tensor_value_info(name, FLOAT, [f"rows of {name}", 2]) for name in ("x", "b", "y"))
    default = numpy_helper.from_array(np.full((1, 2), 10, dtype=np.float32), "b")
    return _model(helper.make_graph([helper.make_node("Add", ["x", "b"], ["y"])], "g", [x, b], [y], [default]))


def lookup() -> onnx.ModelProto:
    """value[row] = the row'th of ten floats: one number in a row, so that its shape is [rows] and no more."""
    index = helper.make_tensor_value_info("index", INT64, ["rows"])
    value = helper.make_tensor_value_info("value", FLOAT, ["rows"])
    table = helper.make_tensor("table", FLOAT, [10], [float(number * number) for number in range(10)])
    return _model(
        helper.make_graph([helper.make_node("Gather", ["table", "index"], ["value"])], "g", [index], [value], [table])
    )


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def add_model(
    repository: Path,
    name: str,
    config: str | None = None,
    models: dict[int, onnx.ModelProto] | None = None,
    *,
    files: dict[str, bytes] | None = None,
) -> Path:
    """A model folder; without `models`, version 1 is a scaler."""
    folder = repository / name
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    for version, model in ({1: scaler()} if models is None else models).items():
        (folder / str(version)).mkdir()
        onnx.save_model(model, folder / str(version) / "model.onnx")
    for path, content in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


SCALER = """
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ] } ]
output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ] } ]
"""

PIPELINE = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "IN", data_type: TYPE_FP32, dims: [ 2 ] } ]
output [
  { name: "OUT", data_type: TYPE_FP32, dims: [ 2 ] },
  { name: "GAP", data_type: TYPE_FP32, dims: [ 2 ] }
]
ensemble_scheduling { step [
  { model_name: "join", model_version: -1,
    input_map { key: "a", value: "doubled" }, input_map { key: "b", value: "tripled" },
    output_map { key: "sum", value: "OUT" }, output_map { key: "difference", value: "GAP" } },
  { model_name: "double", model_version: -1,
    input_map { key: "x", value: "IN" }, output_map { key: "y", value: "doubled" } },
  { model_name: "triple", model_version: -1,
    input_map { key: "x", value: "IN" }, output_map { key: "y", value: "tripled" } }
] }
"""


def add_pipeline(repository: Path, pipeline: str = PIPELINE) -> None:
    """OUT = 2 IN + 3 IN, GAP = 2 IN - 3 IN, by four models."""
    add_model(repository, "double", SCALER)
    add_model(repository, "triple", SCALER, {1: scaler(3.0)})
    add_model(repository, "join", None, {1: adder()})
    add_model(repository, "pipeline", pipeline, {})
    (repository / "pipeline" / "1").mkdir()
