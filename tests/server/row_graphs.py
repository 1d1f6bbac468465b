"""Graphs of one or a few nodes, and how to compare a joined run with the runs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from blindai.server.row_independence import RowVerdict, judge_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Array = np.ndarray[Any, Any]

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Sizes = "Sequence[int | str | None]"


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node; names are separated by spaces, `_` leaves one out."""
    taken, made = (["" if name == "_" else name for name in names.split()] for names in (inputs, outputs))
    return helper.make_node(operator, taken, made, **attributes)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Sequence[str] = ("y",),
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    output_type: int = FLOAT,
) -> onnx.ModelProto:
    """A model; its outputs have a type, and no shape."""
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, element, shape) for name, (element, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


def verdict(model: onnx.ModelProto) -> RowVerdict:
    """What the analysis says."""
    return judge_rows(model)


def session(model: onnx.ModelProto) -> Any:
    """ONNX Runtime with one thread and nothing to say."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def alone(model: onnx.ModelProto, requests: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
    """What each request is answered by itself."""
    running = session(model)
    return [running.run(None, dict(request)) for request in requests]


def runs(model: onnx.ModelProto, requests: Sequence[Mapping[str, Array]]) -> tuple[list[Array], list[Array]]:
    """The outputs of the joined run, and those of the runs alone one after another."""
    apart = [np.concatenate(parts) for parts in zip(*alone(model, requests), strict=True)]
    joined = {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
    return session(model).run(None, joined), apart
