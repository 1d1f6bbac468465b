"""Small ONNX models, made without any training: each shows one thing that a client may meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Face = Mapping[str, tuple[int, Sequence[int | str]]]


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Face,
    outputs: Face,
    initialisers: Sequence[onnx.TensorProto] = (),
) -> Path:
    """Write a model; inputs and outputs are (element type, shape) by name."""
    takes, gives = (
        [helper.make_tensor_value_info(name, element, shape) for name, (element, shape) in face.items()]
        for face in (inputs, outputs)
    )
    graph = helper.make_graph(list(nodes), "g", takes, gives, list(initialisers))
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(path))
    return path


def identity(path: Path, element: int, shape: Sequence[int | str] = ("n", 2)) -> Path:
    """Y = x."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], inputs={"x": (element, shape)}, outputs={"y": (element, shape)})


def times(path: Path, factor: float, *, shape: Sequence[int | str] = ("n", 3)) -> Path:
    """Y = factor · x, in FP32; another factor is another model with the same face."""
    node = helper.make_node("Mul", ["x", "k"], ["y"])
    constant = numpy_helper.from_array(np.array(factor, np.float32), "k")
    face = (TensorProto.FLOAT, shape)
    return save(path, [node], inputs={"x": face}, outputs={"y": face}, initialisers=[constant])


def plus(path: Path, default: float = 10, *, ir_version: int = 9) -> Path:
    """Y = x + b over FP32 [n, 2], where b of shape [1] has a default."""
    node = helper.make_node("Add", ["x", "b"], ["y"])
    face = (TensorProto.FLOAT, ("n", 2))
    constant = numpy_helper.from_array(np.array([default], np.float32), "b")
    save(path, [node], inputs={"x": face, "b": (TensorProto.FLOAT, (1,))}, outputs={"y": face}, initialisers=[constant])
    model = onnx.load(str(path))
    model.ir_version = ir_version
    onnx.save(model, str(path))
    return path


def dense(path: Path, *, external: str = "", size: int = 64) -> Path:
    """Y = softmax(x · w + b) with weights of a fixed seed; `external` names the file that they go to."""
    random = np.random.default_rng(7)
    weights = numpy_helper.from_array(random.standard_normal((size, 4)).astype(np.float32), "w")
    bias = numpy_helper.from_array(random.standard_normal(4).astype(np.float32), "b")
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])]
    takes: Face = {"x": (TensorProto.FLOAT, ["n", size])}
    gives: Face = {"y": (TensorProto.FLOAT, ["n", 4])}
    save(path, nodes, inputs=takes, outputs=gives, initialisers=[weights, bias])
    if external:
        model = onnx.load(str(path))
        onnx.save(
            model, str(path), save_as_external_data=True, location=external, size_threshold=0, convert_attribute=False
        )
    return path


def sum_and_difference(path: Path) -> Path:
    """Two inputs and two outputs: y = a + b, z = a - b, over FP32 [n, 2]."""
    nodes = [helper.make_node("Add", ["a", "b"], ["y"]), helper.make_node("Sub", ["a", "b"], ["z"])]
    face = (TensorProto.FLOAT, ("n", 2))
    return save(path, nodes, inputs={"a": face, "b": face}, outputs={"y": face, "z": face})


def lookup(path: Path, table: Sequence[float]) -> Path:
    """Y = table[x]: an index past the end makes the model itself fail."""
    values = numpy_helper.from_array(np.array(table, np.float32), "t")
    node = helper.make_node("Gather", ["t", "x"], ["y"])
    takes, gives = (TensorProto.INT64, ("n",)), (TensorProto.FLOAT, ("n",))
    return save(path, [node], inputs={"x": takes}, outputs={"y": gives}, initialisers=[values])


def text_labels(path: Path) -> Path:
    """Text to text: each word to its label."""
    node = helper.make_node(
        "LabelEncoder",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        keys_strings=["chat", "chien", "œuf"],
        values_strings=["cat", "dog", "egg"],
        default_string="?",
    )
    face = (TensorProto.STRING, ("n",))
    return save(path, [node], inputs={"x": face}, outputs={"y": face})


def in_process(path: Path, feed: Mapping[str, Any]) -> list[Any]:
    """What ONNX Runtime answers in this very process: the truth that a server's answer must equal."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feed)))


def size(path: Path) -> int:
    """Bytes of a model and all files beside it: each test has a folder of its own."""
    return sum(file.stat().st_size for file in path.parent.iterdir())
