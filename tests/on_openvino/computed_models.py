"""Models for the comparison: layers, convolutions, attention; with weights of a fixed seed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORDS, WIDTH, HEADS = 50, 32, 2


def weights(rng: np.random.Generator, **shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    """Normal numbers over the square root of their rows, so that nothing grows."""
    return [
        numpy_helper.from_array(
            (rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) > 1 else 1)).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]


def saved(path: Path, nodes: list[Any], faces: list[Any], constants: list[onnx.TensorProto], **how: Any) -> Path:
    """Of the faces the first is the input, the second the output."""
    graph = helper.make_graph(nodes, "g", faces[:1], faces[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, path, **how)
    return path


def floats(name: str, *shape: str | int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def layers(path: Path, **how: Any) -> Path:
    """Two layers, [n, 64] to [n, 64]."""
    constants = weights(np.random.default_rng(1), a=(64, 128), b=(128,), c=(128, 64))
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "c"], ["y"]),
    ]
    return saved(path, nodes, [floats("x", "n", 64), floats("y", "n", 64)], constants, **how)


def layers_beside_their_weights(path: Path) -> Path:
    """The same, its weights in a file of their own."""
    return layers(
        path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0, all_tensors_to_one_file=True
    )


def convolutions(path: Path) -> Path:
    """Two convolutions and a mean, [n, 3, 24, 24] to [n, 16]."""
    constants = weights(np.random.default_rng(2), a=(8, 3, 3, 3), b=(16, 8, 3, 3))
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "b"], ["q"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["q"], ["m"]),
        helper.make_node("Flatten", ["m"], ["y"]),
    ]
    return saved(path, nodes, [floats("x", "n", 3, 24, 24), floats("y", "n", 16)], constants)


def attention(path: Path) -> Path:
    """Words to logits by one block of a transformer's encoder, [n, s] to [n, 2]."""
    rng = np.random.default_rng(3)
    square, wide = (WIDTH, WIDTH), (WIDTH, 4 * WIDTH)
    constants = weights(rng, e=(WORDS, WIDTH), q=square, k=square, v=square, o=square, u=wide, d=wide[::-1])
    constants += weights(rng, g=(WIDTH,), b=(WIDTH,), last=(WIDTH, 2))
    numbers = {"split": [0, 0, HEADS, WIDTH // HEADS], "join": [0, 0, WIDTH]}
    constants += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    scalars = {"scale": (WIDTH / HEADS) ** -0.5, "root": 2**-0.5, "half": 0.5, "unit": 1.0}
    constants += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in scalars.items()]
    make = helper.make_node
    nodes = [make("Gather", ["e", "x"], ["t"])]
    for name in "qkv":
        nodes += [
            make("MatMul", ["t", name], [f"{name}1"]),
            make("Reshape", [f"{name}1", "split"], [f"{name}2"]),
            make("Transpose", [f"{name}2"], [f"{name}3"], perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]),
        ]
    nodes += [
        make("MatMul", ["q3", "k3"], ["s1"]),
        make("Mul", ["s1", "scale"], ["s2"]),
        make("Softmax", ["s2"], ["s3"], axis=-1),
        make("MatMul", ["s3", "v3"], ["c1"]),
        make("Transpose", ["c1"], ["c2"], perm=[0, 2, 1, 3]),
        make("Reshape", ["c2", "join"], ["c3"]),
        make("MatMul", ["c3", "o"], ["c4"]),
        make("Add", ["c4", "t"], ["c5"]),
        make("LayerNormalization", ["c5", "g", "b"], ["n1"], axis=-1),
        make("MatMul", ["n1", "u"], ["f1"]),
        make("Mul", ["f1", "root"], ["f2"]),
        make("Erf", ["f2"], ["f3"]),
        make("Add", ["f3", "unit"], ["f4"]),
        make("Mul", ["f1", "f4"], ["f5"]),
        make("Mul", ["f5", "half"], ["f6"]),
        make("MatMul", ["f6", "d"], ["f7"]),
        make("Add", ["f7", "n1"], ["f8"]),
        make("LayerNormalization", ["f8", "g", "b"], ["n2"], axis=-1),
        make("ReduceMean", ["n2"], ["m"], axes=[1], keepdims=0),
        make("MatMul", ["m", "last"], ["y"]),
    ]
    words = helper.make_tensor_value_info("x", TensorProto.INT64, ["n", "s"])
    return saved(path, nodes, [words, floats("y", "n", 2)], constants)


def partly(path: Path) -> Path:
    """Two products with a Hardmax between, which OpenVINO's provider does not take."""
    constants = weights(np.random.default_rng(1), a=(64, 64), b=(64, 64))
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Hardmax", ["h"], ["k"]),
        helper.make_node("MatMul", ["k", "b"], ["y"]),
    ]
    return saved(path, nodes, [floats("x", "n", 64), floats("y", "n", 64)], constants)


def without_what_is_no_number(path: Path) -> Path:
    """A product and its NaN as 0; OpenVINO's provider takes what stands around IsNaN, and so makes a cycle of it."""
    constants = weights(np.random.default_rng(1), a=(64, 64))
    constants.append(numpy_helper.from_array(np.array(0, np.float32), "zero"))
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("IsNaN", ["h"], ["n"]),
        helper.make_node("Where", ["n", "zero", "h"], ["y"]),
    ]
    return saved(path, nodes, [floats("x", "n", 64), floats("y", "n", 64)], constants)


def endless(path: Path) -> Path:
    """A square matrix times itself, 100 times: with 2,000 rows this takes a minute."""
    names = ["x", *(f"h{index}" for index in range(99)), "y"]
    nodes = [helper.make_node("MatMul", [name, "x"], [product]) for name, product in itertools.pairwise(names)]
    return saved(path, nodes, [floats("x", "n", "n"), floats("y", "n", "n")], [])


def text(path: Path) -> Path:
    """Text to the same text, which OpenVINO has no type for."""
    faces = [helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in "xy"]
    return saved(path, [helper.make_node("Identity", ["x"], ["y"])], faces, [])


def constant(path: Path) -> Path:
    """A sum of constants, which is worked out when the model is loaded."""
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    return saved(path, nodes, [floats("x", "n"), floats("y", 2)], weights(np.random.default_rng(1), a=(2,), b=(2,)))


def rows_of(kind: str, rows: int) -> np.ndarray[Any, Any]:
    """Input for one of `MODELS`."""
    rng = np.random.default_rng(rows)
    if kind == "attention":
        return rng.integers(0, WORDS, (rows, 12))
    shape = (rows, 3, 24, 24) if kind == "convolutions" else (rows, 64)
    return rng.standard_normal(shape).astype(np.float32)


MODELS: dict[str, Callable[[Path], Path]] = {
    "layers": layers,
    "layers-beside-their-weights": layers_beside_their_weights,
    "convolutions": convolutions,
    "attention": attention,
}
