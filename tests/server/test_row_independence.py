"""Requests are joined only where each row is answered as it would be alone.

Three ways to show it: graphs that mix rows, all refused; graphs that do not, accepted and run; and random graphs, where
whatever is accepted is run joined and alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper
from server.row_graphs import BOOL, FLOAT, INT64, alone, graph, node, runs, verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

X = {"x": (FLOAT, ("n", 3))}
IMAGE = {"x": (FLOAT, ("n", 2, 4, 4))}
SHAPE = [node("Shape", "x", "s"), node("Gather", "s zero", "rows_count")]
ONES = np.ones(3, np.float32)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def floats(*shape: int) -> Array:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


MIXING: dict[str, onnx.ModelProto] = {
    "softmax over the batch": graph([node("Softmax", "x", "y", axis=0)], X),
    "softmax over the batch, counted from the end": graph([node("Softmax", "x", "y", axis=-2)], X),
    "softmax of a list": graph([node("Softmax", "x", "y")], {"x": (FLOAT, ("n",))}),
    "old softmax flattens from axis 0": graph([node("Softmax", "x", "y", axis=0)], IMAGE, opset=11),
    "minus the mean of the batch": graph(
        [node("ReduceMean", "x axes", "m"), node("Sub", "x m", "y")], X, constants={"axes": ints(0)}
    ),
    "mean of everything": graph([node("ReduceMean", "x", "m"), node("Sub", "x m", "y")], X),
    "mean over axes given at run time": graph(
        [node("ReduceMean", "x axes", "m"), node("Sub", "x m", "y")], {**X, "axes": (INT64, ("n",))}
    ),
    "sum over the batch, kept": graph([node("ReduceSum", "x axes", "y")], X, constants={"axes": ints(-2)}),
    "arg max over the batch": graph([node("ArgMax", "x", "y", axis=0)], X, output_type=INT64),
    "the greatest of the batch": graph(
        [node("TopK", "x k", "v i", axis=0), node("Sub", "x v", "y")], X, constants={"k": ints(1)}
    ),
    "sorted batch": graph([*SHAPE, node("TopK", "x rows_count", "y i", axis=0)], X, constants={"zero": ints(0)}),
    "cumulated over the batch": graph([node("CumSum", "x axis", "y")], X, constants={"axis": np.array(0)}),
    "reshape that moves rows": graph(
        [node("Transpose", "x", "t", perm=[1, 0]), node("Reshape", "t shape", "y")], X, constants={"shape": ints(-1, 3)}
    ),
    "reshape to a fixed number of rows": graph([node("Reshape", "x shape", "y")], X, constants={"shape": ints(2, -1)}),
    "reshape to one row": graph(
        [
            node("Reshape", "x flat", "f"),
            node("Softmax", "f", "p", axis=1),
            node("Reshape", "p back", "y"),
        ],
        X,
        constants={"flat": ints(1, -1), "back": ints(-1, 3)},
    ),
    "flatten to one row": graph(
        [node("Flatten", "x", "f", axis=0), node("Softmax", "f", "p", axis=1), node("Reshape", "p back", "y")],
        X,
        constants={"back": ints(-1, 3)},
    ),
    "flattened rows softmaxed": graph(
        [node("Reshape", "x flat", "f"), node("Softmax", "f", "p", axis=0), node("Reshape", "p back", "y")],
        X,
        constants={"flat": ints(-1), "back": ints(-1, 3)},
    ),
    "reversed batch": graph(
        [node("Slice", "x starts ends axes steps", "y")],
        X,
        constants={"starts": ints(-1), "ends": ints(-(2**62)), "axes": ints(0), "steps": ints(-1)},
    ),
    "rows but the first": graph(
        [node("Slice", "x starts ends", "y")], X, constants={"starts": ints(1), "ends": ints(2**62)}
    ),
    "first row for everybody": graph(
        [node("Slice", "x starts ends axes", "f"), node("Sub", "x f", "y")],
        X,
        constants={"starts": ints(0), "ends": ints(1), "axes": ints(0)},
    ),
    "a row looked up by number": graph([node("Gather", "x i", "y", axis=0)], X, constants={"i": ints(0)}),
    "rows looked up by the request": graph([node("Gather", "x i", "y", axis=0)], {**X, "i": (INT64, ("n",))}),
    "elements looked up across rows": graph(
        [node("GatherElements", "x i", "y", axis=0)], {**X, "i": (INT64, ("n", 3))}
    ),
    "tuples looked up across rows": graph([node("GatherND", "x i", "y")], {**X, "i": (INT64, ("n", 1))}),
    "transposed": graph([node("Transpose", "x", "y")], X),
    "similarity of rows": graph([node("Transpose", "x", "t"), node("MatMul", "x t", "y")], X),
    "similarity of rows by Gemm": graph([node("Gemm", "x x", "y", transB=1)], X),
    "weights before rows": graph([node("MatMul", "w x", "y")], X, constants={"w": floats(3, 3)}),
    "list times weights": graph(
        [node("MatMul", "x w", "d"), node("Mul", "x d", "y")], {"x": (FLOAT, ("n",))}, constants={"w": floats(3)}
    ),
    "stacked weights": graph([node("MatMul", "x w", "y")], X, constants={"w": floats(2, 3, 3)}),
    "transposed left factor": graph([node("Gemm", "x w", "y", transA=1)], X, constants={"w": floats(3, 2)}),
    "a bias for each row": graph([node("Add", "x b", "y")], X, constants={"b": floats(2, 3)}),
    "a Gemm bias for each row": graph(
        [node("Gemm", "x w b", "y")], X, constants={"w": floats(3, 2), "b": floats(4, 2)}
    ),
    "list beside a table": graph([node("Add", "x l", "y")], {**X, "l": (FLOAT, ("n",))}),
    "table beside a cube": graph([node("Add", "x c", "y")], {**X, "c": (FLOAT, ("n", 4, 3))}),
    "rows that come as a second axis": graph(
        [node("Unsqueeze", "x zero", "u"), node("Add", "x u", "a"), node("Squeeze", "a zero", "y")],
        X,
        constants={"zero": ints(0)},
    ),
    "every row with every row": graph(
        [
            node("Unsqueeze", "x zero", "u"),
            node("Unsqueeze", "x one", "v"),
            node("Sub", "u v", "d"),
            node("ReduceSum", "d one", "y", keepdims=0),
        ],
        X,
        constants={"zero": ints(0), "one": ints(1)},
    ),
    "batch normalisation in training": graph(
        [node("BatchNormalization", "x a b m v", "y p q", training_mode=1)],
        IMAGE,
        constants={name: np.ones(2, np.float32) for name in "abmv"},
    ),
    "divided by the number of rows": graph(
        [*SHAPE, node("Cast", "rows_count", "c", to=FLOAT), node("Div", "x c", "y")], X, constants={"zero": ints(0)}
    ),
    "divided by the number of elements": graph(
        [node("Size", "x", "s"), node("Cast", "s", "c", to=FLOAT), node("Div", "x c", "y")], X
    ),
    "plus the number of the row": graph(
        [
            *SHAPE,
            node("Squeeze", "rows_count zero", "limit"),
            node("Range", "start limit step", "r"),
            node("Cast", "r", "f", to=FLOAT),
            node("Unsqueeze", "f one", "u"),
            node("Add", "x u", "y"),
        ],
        X,
        constants={"zero": ints(0), "one": ints(1), "start": np.array(0), "step": np.array(1)},
    ),
    "triangle over rows": graph([node("Trilu", "x", "y")], X),
    "expanded to the batch elsewhere": graph(
        [
            node("Unsqueeze", "x one", "u"),
            *SHAPE,
            node("Concat", "one rows_count one", "t", axis=0),
            node("Expand", "u t", "e"),
            node("ReduceSum", "e one", "y", keepdims=0),
        ],
        X,
        constants={"zero": ints(0), "one": ints(1)},
    ),
    "expanded to two rows": graph([node("Expand", "x t", "y")], X, constants={"t": ints(2, 3)}),
    "tiled along the batch": graph([node("Tile", "x t", "y")], X, constants={"t": ints(2, 1)}),
    "concatenated along the batch": graph([node("Concat", "x x", "y", axis=0)], X),
    "a fixed row appended": graph([node("Concat", "x c", "y", axis=0)], X, constants={"c": floats(1, 3)}),
    "a fixed row beside": graph([node("Concat", "x c", "y", axis=1)], X, constants={"c": floats(1, 3)}),
    "split along the batch": graph(
        [node("Split", "x", "a b", axis=0, num_outputs=2), node("Concat", "b a", "y", axis=0)], X
    ),
    "padded along the batch": graph([node("Pad", "x p", "y")], X, constants={"p": ints(1, 0, 0, 0)}),
    "one-hot in front": graph(
        [
            node("ArgMax", "x", "a", axis=1, keepdims=0),
            node("OneHot", "a depth values", "o", axis=0),
            node("ReduceSum", "o one", "y", keepdims=0),
        ],
        X,
        constants={"depth": ints(3), "values": np.array([0, 1], np.float32), "one": ints(1)},
    ),
    "one-hot of the batch's size": graph(
        [
            node("ArgMax", "x", "a", axis=1, keepdims=0),
            *SHAPE,
            node("OneHot", "a rows_count values", "y", axis=-1),
        ],
        X,
        constants={"zero": ints(0), "values": np.array([0, 1], np.float32)},
    ),
    "as many columns as rows": graph(
        [*SHAPE, node("Slice", "x zero rows_count one", "y")], X, constants={"zero": ints(0), "one": ints(1)}
    ),
    "dynamic quantisation": graph(
        [node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z", "y")], X
    ),
    "squeezed by chance": graph([node("Squeeze", "x", "y")], {"x": (FLOAT, ("n", 1, 3))}),
    "places of a pool": graph([node("MaxPool", "x", "p y", kernel_shape=[2, 2])], IMAGE, output_type=INT64),
    "mean variance normalisation": graph([node("MeanVarianceNormalization", "x", "y")], IMAGE),
    "normalised over the batch": graph([node("LpNormalization", "x", "y", axis=0)], X),
    "layer normalisation over the batch": graph(
        [node("LayerNormalization", "x a", "y", axis=0)], X, constants={"a": ONES}
    ),
    "a layer scale for each row": graph(
        [node("LayerNormalization", "x a", "y", axis=1)], X, constants={"a": floats(2, 3)}
    ),
    "einsum": graph([node("Einsum", "x x", "y", equation="ij,kj->ik")], X),
    "non-zero": graph([node("NonZero", "x", "y")], X, output_type=INT64),
    "random": graph([node("RandomNormalLike", "x", "r"), node("Add", "x r", "y")], X),
    "dropout in training": graph(
        [node("Dropout", "x ratio training", "y")],
        X,
        constants={"ratio": np.array(0.5, np.float32), "training": np.bool_(1)},
    ),
    "another model's row": graph(
        [node("Reshape", "x flat", "f"), node("Gather", "f i", "y", axis=0)],
        X,
        constants={"flat": ints(-1), "i": np.zeros((1, 3), np.int64)},
    ),
    "depends on nothing": graph([node("Identity", "c", "y")], X, constants={"c": floats(2, 3)}),
    "more rows than came": graph([node("Reshape", "x shape", "y")], X, constants={"shape": ints(-1, 1)}),
    "a scale for each row": graph(
        [node("QuantizeLinear", "x s", "q", axis=0), node("DequantizeLinear", "q s", "y", axis=0)],
        X,
        constants={"s": np.array([0.1, 0.2], np.float32)},
    ),
    "an unknown operator": graph([helper.make_node("Strange", ["x"], ["y"], domain="com.microsoft")], X),
    "a list as one row": graph(
        [helper.make_node("Normalizer", ["x"], ["y"], domain="ai.onnx.ml", norm="L2")], {"x": (FLOAT, ("n",))}
    ),
    "fixed number of rows": graph([node("Relu", "x", "y")], {"x": (FLOAT, (1, 3))}),
    "an input with a fixed number of rows": graph([node("Add", "x b", "y")], {**X, "b": (FLOAT, (1, 3))}),
    "a number": graph([node("Add", "x b", "y")], {**X, "b": (FLOAT, ())}),
    "a part that no output needs, and that fails in a batch": graph(
        [node("ArgMax", "x", "i", axis=0), node("Gather", "c i", "g"), node("Abs", "x", "y")],
        X,
        constants={"c": np.zeros((3, 1), np.float32)},
    ),
    "such a part with an output left out, beside an input left out": graph(
        [
            node("Unsqueeze", "x one", "u"),
            node("GRU", "u w r _ _ h", "_ last", hidden_size=1),
            node("Clip", "x _ top", "y"),
        ],
        X,
        constants={
            "one": ints(0),
            "w": np.zeros((1, 3, 3), np.float32),
            "r": np.zeros((1, 3, 1), np.float32),
            "h": np.zeros((1, 1, 1), np.float32),
            "top": np.float32(9),
        },
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_graph_that_mixes_rows_is_refused(name: str) -> None:
    judged = verdict(MIXING[name])
    assert not judged.independent
    assert judged.reason


# Refused out of caution: the batch is followed only where it is in front, and an answer has one row for each that came.
CAUTIOUS = {"rows that come as a second axis", "more rows than came"}


def test_the_refused_graphs_mix_indeed(tell: Callable[[str], None]) -> None:
    told = {"answer otherwise": 0, "fail": 0, "not runnable alone": 0}
    alike = set()
    for name, model in MIXING.items():
        try:
            alone(model, feeds := [_fitted(model, request) for request in requests_for(model, (1, 3, 2))])
        except Exception:  # noqa: BLE001  # ONNX Runtime's many
            told["not runnable alone"] += 1
            continue
        try:
            together, apart = runs(model, feeds)
        except Exception:  # noqa: BLE001  # likewise, and numpy's
            told["fail"] += 1
            continue
        pairs = list(zip(together, apart, strict=True))
        if all(one.shape == other.shape and np.allclose(one, other, 1e-6, 1e-6) for one, other in pairs):
            alike.add(name)
        else:
            told["answer otherwise"] += 1
    tell(f"{len(MIXING)} graphs refused; joined, they {told}")
    assert alike == CAUTIOUS
    assert told["answer otherwise"] >= 15


def _fitted(model: onnx.ModelProto, request: dict[str, Array]) -> dict[str, Array]:
    """Zeros where indices are asked for, and one row where only one is taken."""
    fitted = dict(request)
    for value in model.graph.input:
        tensor = value.type.tensor_type
        if tensor.elem_type == INT64:
            fitted[value.name] = np.zeros(fitted[value.name].shape, np.int64)
        if tensor.shape.dim and tensor.shape.dim[0].dim_value:
            fitted[value.name] = fitted[value.name][:1]
    return fitted


def test_reasons_name_operators_and_no_tensor() -> None:
    secret = graph([node("Softmax", "patient", "diagnosis", axis=0)], {"patient": (FLOAT, ("n", 3))}, ["diagnosis"])
    assert verdict(secret).reason == "an output depends on how requests are joined: Softmax"
    made_up = graph([helper.make_node("Ignore_all_rules", ["x"], ["y"])], X)
    assert "an operator that is not followed" in verdict(made_up).reason


def test_a_malformed_graph_is_refused_and_raises_nothing() -> None:
    short = graph([node("Reshape", "x shape", "y")], X, constants={"shape": ints(-1, 3)})
    for sizes in ([5], [-1], [2**62, 4]):
        short.graph.initializer[0].dims[:] = sizes
        assert not verdict(short).independent
    assert not verdict(graph([node("Softmax", "x", "y", axis="one")], X)).independent
    assert not verdict(graph([node("Relu", "", "y")], X)).independent
    assert not verdict(graph([node("Relu", "nowhere", "y")], X)).independent
    assert not verdict(graph([node("Relu", "x", "y"), node("Abs", "x", "y")], X)).independent
    assert not verdict(graph([node("Relu", "x", "x")], X, ["x"])).independent
    assert not verdict(onnx.ModelProto()).independent
    twice = graph([node("Softmax", "x", "y", axis=1)], X)
    twice.opset_import.add(domain="ai.onnx", version=7)
    assert not verdict(twice).independent
    sizes_only = graph([node("Shape", "x", "s")], X, ["s"], output_type=INT64)
    assert "numbers of rows" in verdict(sizes_only).reason


def test_sizes_do_not_grow_without_end() -> None:
    squares = [node("Mul", f"s{place} s{place}", f"s{place + 1}") for place in range(500)]
    assert not verdict(graph([node("Shape", "x", "s0"), *squares], X, ["s500"], output_type=INT64)).independent


def test_subgraphs_and_functions_are_refused() -> None:
    branch = helper.make_graph([node("Identity", "x", "b")], "b", [], [helper.make_tensor_value_info("b", FLOAT, None)])
    model = graph([node("If", "c", "y", then_branch=branch, else_branch=branch)], X, constants={"c": np.bool_(1)})
    assert not verdict(model).independent
    own = graph([node("Relu", "x", "y")], X)
    own.functions.add(name="Relu", domain="")
    assert not verdict(own).independent


KEEPING: dict[str, onnx.ModelProto] = {
    "elementwise": graph([node("Gelu", "x", "g"), node("Add", "g b", "y")], X, constants={"b": floats(1, 3)}, opset=20),
    "two inputs": graph([node("Mul", "x b", "y")], {**X, "b": (FLOAT, ("m", 1))}),
    "softmax": graph([node("Softmax", "x", "y", axis=-1)], X),
    "old softmax": graph([node("Softmax", "x", "y", axis=2)], IMAGE, opset=11),
    "times the length": graph(
        [
            node("Shape", "x", "s", start=1),
            node("Cast", "s", "c", to=FLOAT),
            node("Mul", "x c", "y"),
        ],
        {"x": (FLOAT, ("n", "len"))},
    ),
    "heads": graph(
        [
            node("Shape", "x", "s"),
            node("Slice", "s zero two", "front"),
            node("Concat", "front heads", "t", axis=0),
            node("Reshape", "x t", "h"),
            node("Transpose", "h", "p", perm=[0, 2, 1, 3]),
            node("Shape", "p", "ps"),
            node("Reshape", "p flat", "f"),
            node("Transpose", "f", "k", perm=[0, 2, 1]),
            node("MatMul", "f k", "a"),
            node("Softmax", "a", "w"),
            node("MatMul", "w f", "o"),
            node("Reshape", "o ps", "b"),
            node("Transpose", "b", "c", perm=[0, 2, 1, 3]),
            node("Reshape", "c s", "y"),
        ],
        {"x": (FLOAT, ("n", "len", 6))},
        constants={"zero": ints(0), "two": ints(2), "heads": ints(2, 3), "flat": ints(-1, 4, 3)},
    ),
    "convolutions": graph(
        [
            node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
            node("BatchNormalization", "c a a z a", "b"),
            node("Relu", "b", "r"),
            node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Reshape", "p shape", "f"),
            node("Gemm", "f g", "y", transB=1),
        ],
        IMAGE,
        constants={
            "w": floats(3, 2, 3, 3),
            "a": np.ones(3, np.float32),
            "z": np.zeros(3, np.float32),
            "shape": ints(-1, 12),
            "g": floats(5, 12),
        },
    ),
    "mask by number of row": graph(
        [
            node("Cast", "x", "m", to=BOOL),
            node("Shape", "x", "s0", start=0, end=1),
            node("Shape", "x", "s1", start=1, end=2),
            node("Squeeze", "s0", "rows_count"),
            node("Squeeze", "s1", "length"),
            node("Range", "nil rows_count unit", "r"),
            node("Range", "nil length unit", "c"),
            node("Unsqueeze", "r one", "ru"),
            node("Unsqueeze", "c zero", "cu"),
            node("Max", "ru cu", "both"),
            node("Shape", "both", "t"),
            node("Expand", "ru t", "re"),
            node("Expand", "cu t", "ce"),
            node("Unsqueeze", "re last", "rl"),
            node("Unsqueeze", "ce last", "cl"),
            node("Concat", "rl cl", "i", axis=-1),
            node("GatherND", "m i", "g"),
            node("Cast", "g", "y", to=FLOAT),
        ],
        {"x": (FLOAT, ("n", 3))},
        constants={
            "nil": np.array(0),
            "unit": np.array(1),
            "one": ints(1),
            "zero": ints(0),
            "last": ints(-1),
        },
    ),
    "mask by place in flattened rows": graph(
        [
            node("Shape", "x", "s"),
            node("Gather", "s nil", "rows_count"),
            node("Gather", "s unit", "length"),
            node("Range", "nil rows_count unit", "r"),
            node("Range", "nil length unit", "c"),
            node("Unsqueeze", "r one", "ru"),
            node("Unsqueeze", "c zero", "cu"),
            node("Mul", "ru length", "begin"),
            node("Add", "cu begin", "place"),
            node("Flatten", "x", "f", axis=2),
            node("Gather", "f place", "g", axis=0),
            node("Reshape", "g flat", "v"),
            node("Shape", "place", "t"),
            node("Reshape", "v t", "y"),
        ],
        {"x": (FLOAT, ("n", 3))},
        constants={
            "nil": np.array(0),
            "unit": np.array(1),
            "one": ints(1),
            "zero": ints(0),
            "flat": ints(-1),
        },
    ),
    "the same row for everybody": graph(
        [*SHAPE, node("Concat", "rows_count three", "t", axis=0), node("Expand", "c t", "e"), node("Add", "x e", "y")],
        X,
        constants={"zero": ints(0), "three": ints(3), "c": floats(1, 3)},
    ),
    "fixed quantisation": graph(
        [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")],
        X,
        constants={"s": np.array(0.02, np.float32), "z": np.array(128, np.uint8)},
    ),
    "labels of a list": graph(
        [
            node("ArgMax", "x", "a", axis=1),
            helper.make_node("ArrayFeatureExtractor", ["labels", "a"], ["l"], domain="ai.onnx.ml"),
            node("Reshape", "l flat", "y"),
        ],
        X,
        constants={"labels": floats(3), "flat": ints(-1)},
    ),
}


def requests_for(model: onnx.ModelProto, counts: tuple[int, ...], *, seed: int = 3) -> list[dict[str, Array]]:
    """Requests with these numbers of rows; every open inner axis has 3 places."""
    random = np.random.default_rng(seed)
    taken = {
        value.name: [dim.dim_value or 3 for dim in value.type.tensor_type.shape.dim][1:] for value in model.graph.input
    }
    return [
        {name: random.normal(size=(count, *sizes)).astype(np.float32) for name, sizes in taken.items()}
        for count in counts
    ]


@pytest.mark.parametrize("name", KEEPING)
def test_a_graph_that_keeps_rows_apart_is_accepted_and_answers_alike(name: str) -> None:
    model = KEEPING[name]
    if name == "heads":  # its inner axis is 4 long, as one of its constants says
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    assert verdict(model).reason == ""
    together, alone = runs(model, requests_for(model, (1, 3, 2)))
    for joined, apart in zip(together, alone, strict=True):
        np.testing.assert_allclose(joined, apart, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "operator", "instead"),
    [
        ("mask by number of row", "Max", None),  # another first index than the number of the row
        ("mask by place in flattened rows", "Mul", "unit"),  # rows of one place
    ],
)
def test_a_mask_that_looks_into_other_rows_is_refused(name: str, operator: str, instead: str | None) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(KEEPING[name])
    changed = next(one for one in model.graph.node if one.op_type == operator)
    if instead:
        changed.input[1] = instead
    else:
        concat = next(one for one in model.graph.node if one.op_type == "Concat")
        concat.input[:] = reversed(concat.input)
    assert not verdict(model).independent


def test_scikit_learn_models_are_accepted(trained: Callable[[str], onnx.ModelProto]) -> None:
    for name in ("forest", "boosted", "mlp", "logistic", "pipeline", "regressor", "svm"):
        model = trained(name)
        assert verdict(model).reason == "", name
        random = np.random.default_rng(1)
        requests = [{"x": random.normal(size=(count, 5)).astype(np.float32)} for count in (1, 4, 2)]
        together, alone = runs(model, requests)
        for joined, apart in zip(together, alone, strict=True):
            np.testing.assert_allclose(joined, apart, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def trained() -> Callable[[str], onnx.ModelProto]:
    """scikit-learn models of three classes, exported by skl2onnx."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    random = np.random.default_rng(0)
    data = random.normal(size=(90, 5)).astype(np.float32)
    labels = np.arange(90) % 3
    made: dict[str, Any] = {
        "forest": RandomForestClassifier(5, max_depth=4, random_state=0),
        "boosted": GradientBoostingClassifier(n_estimators=3, random_state=0),
        "mlp": MLPClassifier((8,), max_iter=3, random_state=0, solver="lbfgs"),
        "logistic": LogisticRegression(),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
        "regressor": RandomForestRegressor(5, max_depth=4, random_state=0),
        "svm": SVC(),
    }

    def train(name: str) -> onnx.ModelProto:
        import warnings

        classifier = made[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            classifier.fit(data, labels)
            options = None if name == "regressor" else {"zipmap": False}
            model: onnx.ModelProto = to_onnx(
                classifier, data[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3}
            )
        model.graph.input[0].name = "x" if model.graph.input[0].name == "X" else model.graph.input[0].name
        for one in model.graph.node:
            one.input[:] = ["x" if taken == "X" else taken for taken in one.input]
        return model

    return train
