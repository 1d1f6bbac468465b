"""Random graphs: what the analysis accepts is run joined and alone, and must answer alike.

Graphs that it refuses are run too, only to count how many of them happened to answer alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import shape_inference
from server.row_graphs import FLOAT, INT64, alone, graph, node, runs, verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

INPUTS = {"x": (FLOAT, ("n", 4)), "z": (FLOAT, ("n", 2, 4)), "l": (FLOAT, ("n",)), "i": (INT64, ("n", 2))}
COUNTS = (1, 3, 2)
# One element at a time, or elements moved: these answer with the very same bits.
EXACT = frozenset(
    [
        "Abs",
        "Neg",
        "Relu",
        "Floor",
        "Add",
        "Sub",
        "Mul",
        "Max",
        "Min",
        "Where",
        "Greater",
        "Cast",
        "Identity",
        "Clip",
        "Reshape",
        "Transpose",
        "Concat",
        "Slice",
        "Gather",
        "GatherElements",
        "GatherND",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Expand",
        "Tile",
        "Pad",
        "Split",
        "Shape",
        "OneHot",
        "Range",
        "Trilu",
        "ConstantOfShape",
        "Size",
    ]
)


@dataclass
class Making:
    """A graph while it grows; `draw` is hypothesis's."""

    draw: Callable[[st.SearchStrategy[Any]], Any]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, tuple[int, list[int | None]]] = field(default_factory=dict)

    def pick(self, *elements: int) -> tuple[str, int]:
        """A tensor of one of these types, and its rank."""
        fitting = [name for name, (element, _) in self.shapes.items() if element in elements]
        name = self.draw(st.sampled_from(fitting))
        return name, len(self.shapes[name][1])

    def axis(self, rank: int) -> int:
        return int(self.draw(st.integers(-rank, max(rank - 1, 0))))

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def weights(self, rank: int) -> str:
        sizes = [self.draw(st.sampled_from([1, 1, 2, 3, 4])) for _ in range(rank)]
        count = int(np.prod(sizes)) if sizes else 1
        return self.constant((np.arange(count) % 5 - 2).reshape(sizes).astype(np.float32))

    def add(self, operator: str, inputs: str, outputs: int = 1, **attributes: Any) -> None:
        """Add a node, unless it cannot be."""
        names = [f"v{len(self.nodes)}_{place}" for place in range(outputs)]
        made = node(operator, inputs, " ".join(names), **attributes)
        try:
            inferred = shape_inference.infer_shapes(
                self.model([*self.nodes, made], names[:1]), check_type=True, strict_mode=True, data_prop=True
            )
        except (shape_inference.InferenceError, RuntimeError):
            return
        known = {value.name: value.type.tensor_type for value in [*inferred.graph.value_info, *inferred.graph.output]}
        if any(name not in known or not known[name].HasField("shape") for name in names):
            return
        self.nodes.append(made)
        for name in names:
            dims = known[name].shape.dim
            self.shapes[name] = (
                known[name].elem_type,
                [dim.dim_value if dim.HasField("dim_value") else None for dim in dims],
            )

    def model(self, nodes: list[onnx.NodeProto], outputs: list[str]) -> onnx.ModelProto:
        made = graph(nodes, INPUTS, outputs, self.constants)
        for output in made.graph.output:
            output.type.tensor_type.elem_type = self.shapes[output.name][0] if output.name in self.shapes else 0
        return made


def unary(making: Making) -> None:
    name, _ = making.pick(FLOAT)
    making.add(making.draw(st.sampled_from(["Abs", "Neg", "Relu", "Floor", "Sigmoid", "Tanh", "Identity"])), name)


def binary(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    other = (
        making.weights(making.draw(st.integers(0, rank + 1))) if making.draw(st.booleans()) else making.pick(FLOAT)[0]
    )
    pair = making.draw(st.permutations([name, other]))
    making.add(making.draw(st.sampled_from(["Add", "Sub", "Mul", "Max", "Min"])), " ".join(pair))


def choice(making: Making) -> None:
    (one, _), (other, _) = making.pick(FLOAT), making.pick(FLOAT)
    making.add("Greater", f"{one} {other}")
    conditions = [name for name, (element, _) in making.shapes.items() if element == onnx.TensorProto.BOOL]
    if conditions:
        making.add("Where", f"{making.draw(st.sampled_from(conditions))} {one} {other}")


def product(making: Making) -> None:
    name, _ = making.pick(FLOAT)
    other = making.weights(making.draw(st.integers(1, 3))) if making.draw(st.booleans()) else making.pick(FLOAT)[0]
    making.add("MatMul", " ".join(making.draw(st.permutations([name, other]))))


def dense(making: Making) -> None:
    name, _ = making.pick(FLOAT)
    weights, bias = making.weights(2), making.weights(making.draw(st.integers(0, 2)))
    flags = {flag: making.draw(st.integers(0, 1)) for flag in ("transA", "transB")}
    making.add("Gemm", f"{name} {weights} {bias}", **flags)


def over_axis(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    operator = making.draw(st.sampled_from(["Softmax", "LogSoftmax", "Hardmax", "ArgMax", "LpNormalization"]))
    making.add(operator, name, axis=making.axis(rank))


def reduce(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    axes = making.draw(st.lists(st.integers(-rank, max(rank - 1, 0)), max_size=2, unique=True))
    keep = making.draw(st.integers(0, 1))
    operator = making.draw(st.sampled_from(["ReduceSum", "ReduceMax", "ReduceMean"]))
    making.add(operator, f"{name} {making.constant(np.array(axes, np.int64))}", keepdims=keep)


def reshape(making: Making) -> None:
    name, _ = making.pick(FLOAT, INT64)
    known = [other for other, (element, sizes) in making.shapes.items() if element == INT64 and len(sizes) == 1]
    if known and making.draw(st.booleans()):
        making.add("Reshape", f"{name} {making.draw(st.sampled_from(known))}")
        return
    target = making.draw(st.lists(st.sampled_from([-1, 0, 1, 2, 4, 8]), min_size=1, max_size=4))
    making.add("Reshape", f"{name} {making.constant(np.array(target, np.int64))}")


def sizes(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    making.add("Shape", name, start=making.draw(st.integers(0, rank)))
    known = [other for other, (element, dims) in making.shapes.items() if element == INT64 and len(dims) == 1]
    chosen = making.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3)) if known else []
    extra = making.constant(np.array([making.draw(st.sampled_from([-1, 1, 2, 4]))], np.int64))
    if chosen:
        making.add("Concat", " ".join(making.draw(st.permutations([*chosen, extra]))), axis=0)


def axes_moved(making: Making) -> None:
    name, rank = making.pick(FLOAT, INT64)
    operator = making.draw(st.sampled_from(["Transpose", "Squeeze", "Unsqueeze", "Flatten"]))
    if operator == "Transpose" and rank:
        making.add(operator, name, perm=list(making.draw(st.permutations(range(rank)))))
    elif operator == "Flatten":
        making.add(operator, name, axis=making.axis(rank))
    elif operator != "Transpose":
        making.add(operator, f"{name} {making.constant(np.array([making.axis(rank + 1)], np.int64))}")


def cut(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    end = making.draw(st.sampled_from([1, 2, 2**62]))
    parts = [making.draw(st.integers(0, 1)), end, making.axis(rank)]
    making.add("Slice", " ".join([name, *(making.constant(np.array([part], np.int64)) for part in parts)]))


def look_up(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    other = making.weights(2) if making.draw(st.booleans()) else name
    if making.draw(st.booleans()):
        index = making.pick(INT64)[0]
    else:
        index = making.constant(np.array(making.draw(st.sampled_from([0, [0], [0, 0]])), np.int64))
    operator = making.draw(st.sampled_from(["Gather", "GatherElements", "GatherND"]))
    if operator == "GatherND":
        making.add(operator, f"{other} {index}", batch_dims=making.draw(st.integers(0, 1)))
    else:
        making.add(operator, f"{other} {index}", axis=making.axis(rank))


def joined(making: Making) -> None:
    names = [making.pick(FLOAT)[0] for _ in range(2)]
    making.add("Concat", " ".join(names), axis=making.axis(len(making.shapes[names[0]][1])))


def grown(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    operator = making.draw(st.sampled_from(["Expand", "Tile", "Pad", "Split"]))
    if operator == "Split":
        making.add("Split", name, 2, axis=making.axis(rank), num_outputs=2)
        return
    if operator == "Expand":
        known = [other for other, (element, dims) in making.shapes.items() if element == INT64 and len(dims) == 1]
        table = making.weights(making.draw(st.integers(1, 2))) if making.draw(st.booleans()) else name
        if known and making.draw(st.booleans()):
            making.add("Expand", f"{table} {making.draw(st.sampled_from(known))}")
            return
        numbers = making.draw(st.lists(st.sampled_from([1, 1, 2, 4]), min_size=1, max_size=3))
        making.add("Expand", f"{table} {making.constant(np.array(numbers, np.int64))}")
        return
    count = rank if operator == "Tile" else 2 * rank
    numbers = [making.draw(st.sampled_from([1, 1, 2] if operator == "Tile" else [0, 0, 0, 1])) for _ in range(count)]
    making.add(operator, f"{name} {making.constant(np.array(numbers, np.int64))}")


def numbered(making: Making) -> None:
    known = [name for name, (element, dims) in making.shapes.items() if element == INT64 and dims == [1]]
    if known:
        limit = making.draw(st.sampled_from(known))
        making.add("Squeeze", limit)
        scalars = [name for name, (element, dims) in making.shapes.items() if element == INT64 and not dims]
        if scalars:
            start, step = making.constant(np.array(0)), making.constant(np.array(1))
            making.add("Range", f"{start} {making.draw(st.sampled_from(scalars))} {step}")
            (one, _), (other, _) = making.pick(INT64), making.pick(INT64)
            making.add(making.draw(st.sampled_from(["Add", "Mul"])), f"{one} {other}")


def best(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    making.add("TopK", f"{name} {making.constant(np.array([1], np.int64))}", 2, axis=making.axis(rank))


def other(making: Making) -> None:
    name, rank = making.pick(FLOAT)
    operator = making.draw(st.sampled_from(["CumSum", "Trilu", "LayerNormalization", "Cast", "OneHot"]))
    if operator == "CumSum":
        making.add(operator, f"{name} {making.constant(np.array(making.axis(rank)))}")
    elif operator == "LayerNormalization":
        making.add(operator, f"{name} {making.weights(making.draw(st.integers(0, rank)))}", axis=making.axis(rank))
    elif operator == "Cast":
        making.add(operator, making.pick(FLOAT, INT64)[0], to=making.draw(st.sampled_from([FLOAT, INT64])))
    elif operator == "OneHot":
        index, rank = making.pick(INT64)
        depth, values = making.constant(np.array(3)), making.constant(np.array([0, 1], np.float32))
        making.add(operator, f"{index} {depth} {values}", axis=making.axis(rank + 1))
    else:
        making.add(operator, name)


OPERATORS = [
    unary, binary, choice, product, dense, over_axis, reduce, reshape, sizes, axes_moved, cut, look_up, joined, grown,
    numbered, best, other,
]  # fmt: skip


@st.composite
def models(draw: Callable[[st.SearchStrategy[Any]], Any]) -> onnx.ModelProto:
    """A graph of up to a dozen nodes, and one output: the tensor made last."""
    making = Making(draw)
    making.shapes = {name: (element, [None] * len(shape)) for name, (element, shape) in INPUTS.items()}
    for operator in draw(st.lists(st.sampled_from(OPERATORS), min_size=1, max_size=8)):
        operator(making)
    if not making.nodes:
        making.add("Relu", "x")
    return making.model(making.nodes, [making.nodes[-1].output[0]])


def requests() -> list[dict[str, Array]]:
    random = np.random.default_rng(11)
    made = []
    for count in COUNTS:
        shapes = {
            name: (count, *(size for size in shape if isinstance(size, int))) for name, (_, shape) in INPUTS.items()
        }
        made.append(
            {
                name: random.integers(-3, 4, shape).astype(np.float32) if name != "i" else random.integers(0, 2, shape)
                for name, shape in shapes.items()
            }
        )
    return made


def alike(model: onnx.ModelProto, *, exact: bool) -> bool | None:
    """Whether joining changes nothing; `None` if a request alone cannot be answered."""
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    errors = (failures.Fail, failures.InvalidArgument, failures.RuntimeException, failures.NotImplemented)
    unused = {value.name for value in model.graph.input} - {name for one in model.graph.node for name in one.input}
    asked = [{name: value for name, value in request.items() if name not in unused} for request in requests()]
    kept = [value for value in model.graph.input if value.name not in unused]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    if not kept:
        return None
    try:
        alone(model, asked)
    except (*errors, failures.InvalidGraph):
        return None
    try:
        together, apart = runs(model, asked)
    except (*errors, ValueError):  # what came out cannot even be joined
        return False
    pairs = zip(together, apart, strict=True)
    if exact:
        return all(np.array_equal(one, other, equal_nan=True) for one, other in pairs)
    return all(one.shape == other.shape and np.allclose(one, other, 1e-4, 1e-4, equal_nan=True) for one, other in pairs)


def test_what_is_accepted_answers_alike(tell: Callable[[str], None]) -> None:
    counted = {"accepted": 0, "accepted, and not runnable": 0, "refused": 0, "refused, yet alike": 0}

    @settings(max_examples=600, suppress_health_check=list(HealthCheck))
    @given(models())
    def check(model: onnx.ModelProto) -> None:
        accepted = verdict(model).independent
        exact = {one.op_type for one in model.graph.node} <= EXACT
        same = alike(model, exact=exact)
        if accepted:
            assert same is not False, onnx.printer.to_text(model)
            counted["accepted"] += 1
            counted["accepted, and not runnable"] += same is None
        else:
            counted["refused"] += 1
            counted["refused, yet alike"] += same is True

    check()
    tell(f"{sum((counted['accepted'], counted['refused']))} random graphs: {counted}")
    assert counted["accepted"] > 20
    assert counted["refused"] > 20
