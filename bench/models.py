"""The benchmark's models, each with one row of input; what is slow to make is kept in `bench/.cache`.

MLP and forest are trained on nothing; DistilBERT and ResNet-50 have their real architecture with weights of no meaning,
which cost the same time. DistilBERT needs `.seed-venv` (torch, transformers) once, and is left out without it.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
CACHE.mkdir(exist_ok=True)
_TRITON_TYPES = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchModel:
    """A model file and one request to it.

    Attributes:
        inputs: by name, with a first axis of 1.
        outputs: (name, Triton's type, size of its one further axis).
    """

    name: str
    path: Path
    inputs: dict[str, np.ndarray[Any, Any]]
    outputs: tuple[tuple[str, str, int], ...]

    def triton_config(self, *, joined: bool, max_batch_size: int = 64) -> str:
        """Its config.pbtxt, with or without dynamic batching."""
        lines = [f"max_batch_size: {max_batch_size}"]
        for name, array in self.inputs.items():
            dims = ", ".join(map(str, array.shape[1:]))
            lines.append(f'input {{ name: "{name}" data_type: {_TRITON_TYPES[str(array.dtype)]} dims: [{dims}] }}')
        lines += [f'output {{ name: "{name}" data_type: {kind} dims: [{size}] }}' for name, kind, size in self.outputs]
        return "\n".join([*lines, *(["dynamic_batching { }"] if joined else []), ""])


def tiny_mlp() -> BenchModel:
    """16 → 32 → 8 in FP32."""
    path = CACHE / "mlp.onnx"
    if not path.exists():
        random = np.random.default_rng(1)
        weights = [
            numpy_helper.from_array((0.2 * random.standard_normal(shape)).astype(np.float32), name)
            for name, shape in (("w0", (16, 32)), ("w1", (32, 8)))
        ]
        nodes = [
            helper.make_node("MatMul", ["x", "w0"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w1"], ["y"]),
        ]
        x, y = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 16), ("y", 8))
        )
        graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    inputs = {"x": np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 16)}
    return BenchModel(name="mlp", path=path, inputs=inputs, outputs=(("y", "TYPE_FP32", 8),))


def forest() -> BenchModel:
    """100 trees over 30 features, exported with skl2onnx."""
    path = CACHE / "forest.onnx"
    if not path.exists():
        from skl2onnx import to_onnx
        from sklearn.datasets import load_breast_cancer
        from sklearn.ensemble import RandomForestClassifier

        data, target = load_breast_cancer(return_X_y=True)
        model = RandomForestClassifier(n_estimators=100, random_state=0).fit(data.astype(np.float32), target)
        exported = to_onnx(model, data[:1].astype(np.float32), options={"zipmap": False}, target_opset=17)
        exported.graph.output.pop(0)  # the label: its rank differs between servers
        path.write_bytes(exported.SerializeToString())
    graph = onnx.load(str(path)).graph
    inputs = {graph.input[0].name: np.linspace(0, 20, 30, dtype=np.float32).reshape(1, 30)}
    outputs = ((graph.output[0].name, "TYPE_FP32", 2),)
    return BenchModel(name="forest", path=path, inputs=inputs, outputs=outputs)


def distilbert(tokens: int) -> BenchModel | None:
    """DistilBERT's real architecture (66 million weights), one sentence of so many tokens."""
    path = CACHE / "distilbert.onnx"
    python = HERE.parent / ".seed-venv/bin/python"
    if not path.exists():
        if not python.exists():
            return None
        subprocess.run([python, HERE / "export_distilbert.py", path], check=True, capture_output=True)
    ids = np.arange(1000, 1000 + tokens, dtype=np.int64).reshape(1, tokens)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return BenchModel(name=f"distilbert{tokens}", path=path, inputs=inputs, outputs=(("logits", "TYPE_FP32", 2),))


def resnet50() -> BenchModel:
    """The ONNX project's ResNet-50: real architecture, constant weights, made dynamic in its first axis."""
    path = CACHE / "resnet50.onnx"
    if not path.exists():
        model = onnx.load(str(Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"))
        _write_weights(model)
        path.write_bytes(model.SerializeToString())
    graph = onnx.load(str(path)).graph
    weights = {weight.name for weight in graph.initializer}
    (name,) = [value.name for value in graph.input if value.name not in weights]
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    outputs = ((graph.output[0].name, "TYPE_FP32", 1000),)
    return BenchModel(name="resnet50", path=path, inputs={name: image}, outputs=outputs)


def _write_weights(model: onnx.ModelProto) -> None:
    """The light models make their weights with ConstantOfShape: write them out, small and different."""
    graph, random = model.graph, np.random.default_rng(0)
    shapes = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    made = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in made:
        shape = shapes[node.input[0]]
        spread = np.sqrt(2 / max(1, int(np.prod(shape[1:])))) if len(shape) > 1 else 0.0
        values = (random.standard_normal(shape) * spread + (0.0 if len(shape) > 1 else 1.0)).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for weight in [weight for weight in graph.initializer if weight.name not in used]:
        graph.initializer.remove(weight)
    for value in [value for value in graph.input if value.name not in used]:
        graph.input.remove(value)
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    del graph.value_info[:]
