"""Four models of different kinds, inputs for them, and the right answers, computed in this process.

Leaves out: how near an answer must be (`tally`); the sums of joined requests may be added up in another order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from e2e.tiny_models import save, times
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Array = np.ndarray[Any, Any]
Shape = tuple[str | int, ...]
_FLOAT = TensorProto.FLOAT
_MAX_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakModel:
    """One model.

    Attributes:
        path: its file; the stem is its name.
        row: the shape of one row of its input `x`.
        is_exact: whether its answer to a row is the same bit for bit in whatever company it runs.
    """

    path: Path
    row: tuple[int, ...]
    is_exact: bool
    _session: Any = field(repr=False)

    @property
    def name(self) -> str:
        """As it is uploaded."""
        return self.path.stem

    def draw(self, random: np.random.Generator) -> Array:
        """An input that nobody else has."""
        return random.standard_normal((int(random.integers(1, _MAX_ROWS + 1)), *self.row)).astype(np.float32)

    def right_answer(self, x: Array) -> Array:
        """Its output `y`."""
        (answer,) = self._session.run(["y"], {"x": x})
        return np.asarray(answer)


def soak_models(folder: Path) -> tuple[SoakModel, ...]:
    """Elementwise, dense, a forest, and attention with a convolution."""
    return (
        _model(times(folder / "scale.onnx", 3.5, shape=("n", 16)), (16,), is_exact=True),
        _model(_mlp(folder / "mlp.onnx"), (32,)),
        _model(_forest(folder / "forest.onnx"), (8,)),
        _model(_attention(folder / "attention.onnx"), (12, 24)),
    )


def _model(path: Path, row: tuple[int, ...], *, is_exact: bool = False) -> SoakModel:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return SoakModel(path=path, row=row, is_exact=is_exact, _session=session)


def _weights() -> Callable[..., Any]:
    random = np.random.default_rng(2026)

    def make(name: str, *shape: int) -> Any:
        scale = 1 / np.sqrt(shape[0])
        return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)

    return make


def _mlp(path: Path) -> Path:
    weight = _weights()
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "c", "d"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    initialisers = [weight("a", 32, 64), weight("b", 64), weight("c", 64, 10), weight("d", 10)]
    return _saved(path, nodes, ("n", 32), ("n", 10), weights=initialisers)


def _forest(path: Path) -> Path:
    """Trained on nothing in particular; it has 20 trees of depth 5."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(5)
    x = random.standard_normal((400, 8)).astype(np.float32)
    forest = RandomForestRegressor(n_estimators=20, max_depth=5, random_state=0).fit(x, x @ random.standard_normal(8))
    exported = to_onnx(forest, x[:1], target_opset=17, initial_types=None)
    graph = exported.graph
    for node in graph.node:
        node.input[:] = ["x" if name == graph.input[0].name else name for name in node.input]
        node.output[:] = ["y" if name == graph.output[0].name else name for name in node.output]
    graph.input[0].name, graph.output[0].name = "x", "y"
    path.write_bytes(exported.SerializeToString())
    return path


def _attention(path: Path) -> Path:
    """One head over 12 places of 24 numbers, behind a convolution along the places."""
    weight = _weights()
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["t", "k"], ["v"], kernel_shape=[3], pads=[1, 1]),
        helper.make_node("Transpose", ["v"], ["e"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["e", "wq"], ["q"]),
        helper.make_node("MatMul", ["e", "wk"], ["kk"]),
        helper.make_node("Transpose", ["kk"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "e"], ["y"]),
    ]
    initialisers = [weight("k", 24, 24, 3), weight("wq", 24, 24), weight("wk", 24, 24)]
    return _saved(path, nodes, ("n", 12, 24), ("n", 12, 24), weights=initialisers)


def _saved(path: Path, nodes: Any, takes: Shape, gives: Shape, *, weights: Any) -> Path:
    inputs, outputs = {"x": (int(_FLOAT), takes)}, {"y": (int(_FLOAT), gives)}
    return save(path, nodes, inputs=inputs, outputs=outputs, initialisers=weights)
