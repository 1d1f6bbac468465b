"""A model's precision is named by its graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from blindai.server.precision import precision_of
from blindai.server.variant_targets import Target
from blindai.server.variants import make_variant


def product(dtype: type, *, element: int = TensorProto.FLOAT) -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.ones((4, 4), dtype), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", element, ["n", 4])],
        [helper.make_tensor_value_info("y", element, ["n", 4])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "fp32"), (np.float16, "fp16"), (np.float64, "fp64")])
def test_by_the_type_of_the_weights(dtype: type, name: str) -> None:
    assert precision_of(product(dtype)) == name


@pytest.mark.parametrize(
    ("to", "name"),
    [(Target.INT8, "int8-dynamic"), (Target.BF16, "bf16"), (Target.FP16, "fp16"), (Target.FP32, "fp32")],
)
def test_a_variant_is_named_as_it_was_asked_for(to: Target, name: str) -> None:
    assert precision_of(make_variant(product(np.float32), to)) == name


def test_fixed_ranges_are_static_and_weights_alone_are_mixed() -> None:
    static = product(np.float32)
    static.graph.node.extend([helper.make_node("QuantizeLinear", ["y", "s"], ["q"])])
    assert precision_of(static) == "int8-static"
    weights_only = product(np.float32)
    weights_only.graph.node.extend([helper.make_node("DequantizeLinear", ["q", "s"], ["z"])])
    assert precision_of(weights_only) == "mixed"


def test_two_types_of_weights_are_mixed() -> None:
    model = product(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2), np.float16), "h"))
    assert precision_of(model) == "mixed"


def test_without_weights_by_what_is_taken() -> None:
    model = product(np.float32, element=TensorProto.DOUBLE)
    del model.graph.initializer[:]
    assert precision_of(model) == "fp64"
    del model.graph.input[:]
    assert precision_of(model) == "fp32"


def test_what_hides_in_a_subgraph_or_a_function_counts() -> None:
    quantised = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])]
    branch = helper.make_graph(quantised, "b", [], [helper.make_tensor_value_info("q", TensorProto.UINT8, None)])
    model = product(np.float32)
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    assert precision_of(model) == "int8-dynamic"
    other = product(np.float32)
    other.functions.add(name="f", domain="own").node.extend(quantised)
    assert precision_of(other) == "int8-dynamic"
