"""What may not reach ONNX Runtime: external data, alien operator sets, deep graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from blindai.errors import InvalidModelError
from blindai.model_guard import MAX_SUBGRAPH_DEPTH, check_model

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = {"m.onnx.data": 32}
WEIGHTS_SIZE = 16


def external(**entries: str) -> onnx.TensorProto:
    """Four floats that lie elsewhere."""
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def at(location: str) -> onnx.TensorProto:
    return external(location=location, offset="0", length=str(WEIGHTS_SIZE))


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])


def model(
    nodes: list[onnx.NodeProto] | None = None, initialisers: list[onnx.TensorProto] | None = None, opset: int = 17
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["x"], ["y"])], "g", [value("x")], [value("y")], initialisers or []
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def check(proto: onnx.ModelProto) -> None:
    check_model(proto.SerializeToString(), FILES)


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(nodes: list[onnx.NodeProto], initialisers: list[onnx.TensorProto] | None = None) -> onnx.NodeProto:
    graph = helper.make_graph(nodes, "branch", [], [value("z")], initialisers or [])
    return helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)


def test_accepts_plain_models_and_weights_in_the_same_upload() -> None:
    check(model())
    check(model(initialisers=[at("m.onnx.data")]))
    check(model([constant(at("m.onnx.data"))]))
    check(model(initialisers=[external(location="m.onnx.data", offset="16", length="16")]))


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../m.onnx.data",
        "./m.onnx.data",
        "other",
        "",
        "*/_ORT_MEM_ADDR_/*",
        "m.onnx.data\0",
        "M.ONNX.DATA",
    ],
)
@pytest.mark.parametrize("place", [lambda t: model(initialisers=[t]), lambda t: model([constant(t)])])
def test_refuses_external_data_outside_the_upload(
    location: str, place: Callable[[onnx.TensorProto], onnx.ModelProto]
) -> None:
    with pytest.raises(InvalidModelError, match="not a file of the same upload"):
        check(place(at(location)))


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "-1"},
        {"offset": "+1"},
        {"offset": "0x1"},
        {"offset": " 1"},
        {"offset": "\u0661"},
        {"offset": ""},
        {"length": "-1"},
        {"length": "1e9"},
        {"length": "9" * 19},
        {"offset": "33"},
        {"offset": "16", "length": "17"},
        {"length": "33"},
        {"prepacked_0": "x"},
    ],
)
def test_refuses_external_data_that_leaves_its_file(entries: dict[str, str]) -> None:
    with pytest.raises(InvalidModelError):
        check(model(initialisers=[external(location="m.onnx.data", **entries)]))


def test_refuses_a_location_given_twice() -> None:
    tensor = at("m.onnx.data")
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(InvalidModelError):
        check(model(initialisers=[tensor]))


def test_refuses_a_location_on_a_tensor_that_claims_to_be_internal() -> None:
    tensor = at("/etc/passwd")
    tensor.data_location = TensorProto.DEFAULT
    with pytest.raises(InvalidModelError):
        check(model(initialisers=[tensor]))


def in_subgraph_initialiser(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model([branch([helper.make_node("Identity", ["w"], ["z"])], [tensor])])


def in_subgraph_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model([branch([branch([constant(tensor)])])])


def in_list_attribute(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Custom", ["x"], ["y"], domain="d")
    node.attribute.add(name="t", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    return model([node])


def in_other_attribute(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model([helper.make_node("ConstantOfShape", ["x"], ["y"], value=tensor)])


def in_list_of_graphs(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Custom", ["x"], ["y"], domain="d")
    graph = helper.make_graph([], "g", [], [], [tensor])
    node.attribute.add(name="g", type=onnx.AttributeProto.GRAPHS).graphs.append(graph)
    return model([node])


def in_sparse_initialiser(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = model()
    proto.graph.sparse_initializer.add(values=tensor, dims=[4])
    return proto


def in_sparse_indices(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.indices.CopyFrom(
        tensor
    )
    return model([node])


def in_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = model()
    proto.functions.append(
        helper.make_function("d", "f", ["x"], ["c"], [constant(tensor)], [helper.make_opsetid("", 17)])
    )
    return proto


def in_function_default(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = in_function(onnx.TensorProto(data_type=TensorProto.FLOAT))
    proto.functions[0].attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR, t=tensor)
    return proto


def in_training(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = model()
    proto.training_info.add().algorithm.initializer.append(tensor)
    return proto


@pytest.mark.parametrize(
    "place",
    [
        in_subgraph_initialiser,
        in_subgraph_constant,
        in_list_attribute,
        in_other_attribute,
        in_list_of_graphs,
        in_sparse_initialiser,
        in_sparse_indices,
        in_function,
        in_function_default,
        in_training,
    ],
)
@pytest.mark.parametrize("location", ["/etc/passwd", "m.onnx.data"])
def test_refuses_external_data_where_onnx_runtime_would_read_the_disk(
    place: Callable[[onnx.TensorProto], onnx.ModelProto], location: str
) -> None:
    check(place(helper.make_tensor("w", TensorProto.FLOAT, [4], [1, 2, 3, 4])))
    with pytest.raises(InvalidModelError, match="outside its main graph"):
        check(place(at(location)))


@pytest.mark.parametrize("opset", [7, 17, 28])
def test_accepts_known_operator_sets(opset: int) -> None:
    check(model(opset=opset))


@pytest.mark.parametrize("opset", [-1, 0, 6, 29, 2**40])
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_refuses_other_operator_sets_and_says_what_to_do(opset: int, domain: str) -> None:
    proto = model()
    proto.opset_import.append(helper.make_opsetid(domain, opset))
    with pytest.raises(InvalidModelError, match="7 to 28 are accepted") as raised:
        check(proto)
    assert "opset_version" in raised.value.hint


def test_refuses_another_operator_set_inside_a_function() -> None:
    proto = in_function(onnx.TensorProto(data_type=TensorProto.FLOAT))
    proto.functions[0].opset_import[0].version = 6
    with pytest.raises(InvalidModelError, match="7 to 28"):
        check(proto)


def nested(depth: int) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["z"])
    for _ in range(depth):
        node = branch([node])
    return model([node])


def test_bounds_the_depth_of_subgraphs() -> None:
    check(nested(MAX_SUBGRAPH_DEPTH))
    with pytest.raises(InvalidModelError, match="deeper than 16"):
        check(nested(MAX_SUBGRAPH_DEPTH + 1))


def test_refuses_an_input_without_a_shape() -> None:
    proto = model()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidModelError, match="has no shape"):
        check(proto)


@pytest.mark.parametrize("data", [b"", b"\x00", b"PK\x03\x04", b"\x80\x05pickle", b"\xff" * 100])
def test_refuses_what_is_no_onnx_file(data: bytes) -> None:
    with pytest.raises(InvalidModelError):
        check_model(data, {})


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_our_words(data: bytes) -> None:
    with pytest.raises(InvalidModelError):
        check_model(data, {})


def test_messages_do_not_quote_the_model() -> None:
    with pytest.raises(InvalidModelError) as raised:
        check(model(initialisers=[at("../secret-name")]))
    assert "secret-name" not in str(raised.value) + raised.value.hint
