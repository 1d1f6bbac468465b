"""What may not reach ONNX Runtime: external data, alien operators, deep or multiplying graphs, sizes that lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from blindai.errors import InvalidModelError
from blindai.model_guard import MAX_FUNCTION_DEPTH, MAX_NODES, MAX_SUBGRAPH_DEPTH, check_model
from blindai.model_guard.operators import MAX_NAME_BYTES, MAX_RANK, MICROSOFT_OPERATORS
from blindai.model_guard.tensors import MAX_SPARSE_ELEMENTS

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


def nest_all(nodes: list[onnx.NodeProto]) -> onnx.NodeProto:
    """One branch only: with two the file doubles at every depth."""
    return helper.make_node("If", ["x"], ["y"], then_branch=helper.make_graph(nodes, "branch", [], [value("z")]))


def nest(node: onnx.NodeProto) -> onnx.NodeProto:
    return nest_all([node])


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
        {"length": "0"},
        {"length": "12"},
        {"offset": "20"},
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
    node = helper.make_node("Identity", ["x"], ["y"])
    node.attribute.add(name="t", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    return model([node])


def in_other_attribute(tensor: onnx.TensorProto) -> onnx.ModelProto:
    return model([helper.make_node("ConstantOfShape", ["x"], ["y"], value=tensor)])


def in_list_of_graphs(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([], "g", [], [], [tensor])
    node.attribute.add(name="g", type=onnx.AttributeProto.GRAPHS).graphs.append(graph)
    return model([node])


FOUR = helper.make_tensor("w", TensorProto.FLOAT, [4], [1, 2, 3, 4])


def sparse(
    values: onnx.TensorProto, indices: list[int], dims: list[int], shape: tuple[int, ...] = (4,)
) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, shape, indices), dims)


def in_sparse_initialiser(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = model()
    proto.graph.sparse_initializer.append(sparse(tensor, [0, 1, 2, 3], [4]))
    return proto


def in_sparse_indices(tensor: onnx.TensorProto) -> onnx.ModelProto:
    indices = onnx.TensorProto()
    indices.CopyFrom(tensor)
    if tensor.data_location != TensorProto.EXTERNAL:
        indices = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.CopyFrom(
        onnx.SparseTensorProto(values=FOUR, indices=indices, dims=[4])
    )
    return model([node])


def in_list_of_sparse(tensor: onnx.TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    attribute = node.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSORS)
    attribute.sparse_tensors.append(sparse(tensor, [0, 1, 2, 3], [4]))
    return model([node])


def in_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = model()
    proto.functions.append(
        helper.make_function("d", "f", ["x"], ["c"], [constant(tensor)], [helper.make_opsetid("", 17)])
    )
    return proto


def in_function_default(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = in_function(FOUR)
    proto.functions[0].attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR, t=tensor)
    return proto


def in_functions_subgraph(tensor: onnx.TensorProto) -> onnx.ModelProto:
    proto = model()
    nodes = [branch([constant(tensor)])]
    proto.functions.append(helper.make_function("d", "f", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)]))
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
        in_list_of_sparse,
        in_function,
        in_function_default,
        in_functions_subgraph,
        in_training,
    ],
)
@pytest.mark.parametrize("location", ["/etc/passwd", "m.onnx.data"])
def test_refuses_external_data_where_onnx_runtime_would_read_the_disk(
    place: Callable[[onnx.TensorProto], onnx.ModelProto], location: str
) -> None:
    check(place(FOUR))
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
    proto = in_function(FOUR)
    proto.functions[0].opset_import[0].version = 6
    with pytest.raises(InvalidModelError, match="7 to 28"):
        check(proto)


def nested(depth: int) -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], ["z"])
    for _ in range(depth):
        node = nest(node)
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


def function(name: str, calls: list[str], domain: str = "d") -> onnx.FunctionProto:
    """Calls others, one after the other."""
    names = ["x", *(f"t{index}" for index in range(len(calls)))]
    nodes = [
        helper.make_node(call, [names[index]], [names[index + 1]], domain=domain) for index, call in enumerate(calls)
    ]
    nodes.append(helper.make_node("Identity", [names[-1]], ["y"]))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    return helper.make_function(domain, name, ["x"], ["y"], nodes, imports)


def with_functions(*functions: onnx.FunctionProto, call: str = "f0", domain: str = "d") -> onnx.ModelProto:
    proto = model([helper.make_node(call, ["x"], ["y"], domain=domain)])
    proto.functions.extend(functions)
    return proto


def chain(length: int, times: int = 1, *, backwards: bool = False) -> onnx.ModelProto:
    """Functions that each call the next one, so many times."""
    functions = [function(f"f{index}", [f"f{index + 1}"] * times) for index in range(length - 1)]
    functions.append(function(f"f{length - 1}", []))
    return with_functions(*(reversed(functions) if backwards else functions))


def shadowing() -> onnx.FunctionProto:
    """A function under the standard domain's other name, which calls the operator that it hides."""
    node = helper.make_node("Relu", ["x"], ["y"])
    return helper.make_function("ai.onnx", "Relu", ["x"], ["y"], [node], [helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    "proto",
    [
        with_functions(function("f0", ["f0"])),
        with_functions(function("f0", ["f1"]), function("f1", ["f0"])),
        with_functions(function("f0", []), function("f1", ["f2"]), function("f2", ["f3"]), function("f3", ["f1"])),
        with_functions(shadowing(), call="Relu", domain=""),
    ],
)
def test_refuses_functions_that_call_themselves(proto: onnx.ModelProto) -> None:
    with pytest.raises(InvalidModelError, match="calls itself"):
        check(proto)


def test_refuses_a_function_that_calls_itself_from_a_subgraph() -> None:
    nodes = [branch([helper.make_node("f0", ["x"], ["z"], domain="d")])]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    with pytest.raises(InvalidModelError, match="calls itself"):
        check(with_functions(helper.make_function("d", "f0", ["x"], ["y"], nodes, imports)))


@pytest.mark.parametrize("backwards", [False, True])
def test_bounds_the_depth_of_functions(backwards: bool) -> None:  # noqa: FBT001
    check(chain(MAX_FUNCTION_DEPTH, backwards=backwards))
    for length in (MAX_FUNCTION_DEPTH + 1, 5000):
        with pytest.raises(InvalidModelError, match="functions deeper than 32"):
            check(chain(length, backwards=backwards))


def test_counts_nodes_with_every_call_put_in_place() -> None:
    check(chain(17))
    check(chain(17, times=2))  # 2^17 nodes
    for length in (18, MAX_FUNCTION_DEPTH):
        with pytest.raises(InvalidModelError, match="more than 200000 nodes"):
            check(chain(length, times=2))


def test_bounds_the_number_of_nodes_wherever_they_are() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    check(model([node] * MAX_NODES))
    few, many = [node] * 10, [node] * MAX_NODES
    unused = model(few)
    unused.functions.append(helper.make_function("d", "f", ["x"], ["y"], many, [helper.make_opsetid("", 17)]))
    training = model(few)
    training.training_info.add().algorithm.node.extend(many)
    for proto in (model([node] * (MAX_NODES + 1)), model([nest_all(many)]), unused, training):
        with pytest.raises(InvalidModelError, match="more than 200000 nodes"):
            check(proto)


def nested_calls(depth: int, functions: int) -> onnx.ModelProto:
    """Each function calls the next one from `depth` subgraphs."""
    protos = []
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    for index in range(functions):
        last = index == functions - 1
        node = helper.make_node("Identity" if last else f"f{index + 1}", ["x"], ["z"], domain="" if last else "d")
        for _ in range(depth):
            node = nest(node)
        protos.append(helper.make_function("d", f"f{index}", ["x"], ["y"], [node], imports))
    return with_functions(*protos)


def test_bounds_the_depth_of_subgraphs_through_functions() -> None:
    check(nested_calls(4, 4))
    for depth, functions in ((4, 5), (8, 3), (12, 32), (17, 1)):
        with pytest.raises(InvalidModelError, match="subgraphs deeper than 16"):
            check(nested_calls(depth, functions))
        innermost_first = nested_calls(depth, functions)
        innermost_first.functions.sort(key=lambda f: f.name, reverse=True)
        with pytest.raises(InvalidModelError, match="subgraphs deeper than 16"):
            check(innermost_first)


def test_refuses_a_function_defined_twice() -> None:
    with pytest.raises(InvalidModelError, match="twice"):
        check(with_functions(function("f0", []), function("f0", [])))


def test_refuses_a_graph_handed_to_a_function() -> None:
    node = helper.make_node("If", ["x"], ["y"])
    node.attribute.add(name="then_branch", ref_attr_name="g", type=onnx.AttributeProto.GRAPH)
    with pytest.raises(InvalidModelError, match="takes a graph"):
        check(with_functions(helper.make_function("d", "f0", ["x"], ["y"], [node], [helper.make_opsetid("", 17)])))


@pytest.mark.parametrize(
    ("domain", "operator"),
    [
        ("", "Relu"), ("ai.onnx", "Relu"), ("ai.onnx.ml", "TreeEnsembleClassifier"),
        *(("com.microsoft", operator) for operator in sorted(MICROSOFT_OPERATORS)),
    ],
)  # fmt: skip
def test_accepts_standard_and_listed_operators(domain: str, operator: str) -> None:
    check(model([helper.make_node(operator, ["x"], ["y"], domain=domain)]))


@pytest.mark.parametrize(
    ("domain", "operator"),
    [
        ("com.microsoft", "EPContext"), ("com.microsoft", "BeamSearch"), ("com.microsoft", "gelu"),
        ("com.microsoft.nchwc", "Conv"), ("com.ms.internal.nhwc", "Conv"), ("ai.onnx.contrib", "DecodeImage"),
        ("ai.onnx.preview.training", "Adam"), ("ai.onnx.training", "Gradient"), ("d", "Relu"), ("AI.ONNX", "Relu"),
    ],
)  # fmt: skip
def test_refuses_other_operators_wherever_they_stand(domain: str, operator: str) -> None:
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    inside = helper.make_function("d", "f0", ["x"], ["y"], [node], [helper.make_opsetid("", 17)])
    for proto in (model([node]), model([branch([node])]), with_functions(inside)):
        with pytest.raises(InvalidModelError, match="an operator outside"):
            check(proto)


def test_a_function_is_called_by_its_overload_too() -> None:
    proto = with_functions(function("f0", []))
    proto.graph.node[0].overload = "other"
    with pytest.raises(InvalidModelError, match="an operator outside"):
        check(proto)


TYPES = sorted(set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, 27, 28})  # 6-bit floats: nobody runs them


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("raw", [False, True])
def test_every_kind_of_tensor_has_the_size_that_it_says(kind: int, raw: bool) -> None:  # noqa: FBT001
    if raw and kind == TensorProto.STRING:
        return
    data = onnx.helper.tensor_dtype_to_np_dtype(kind)
    values: Any = ["a"] * 5 if kind == TensorProto.STRING else np.ones(5, dtype=data)
    made = onnx.numpy_helper.from_array(values, "w") if raw else helper.make_tensor("w", kind, [5], values)
    assert made.HasField("raw_data") == raw
    check(model(initialisers=[made]))
    for dims in ([9], [1], [5, 5], [], [0], [2**40, 2**20], [5, 0]):
        lying = onnx.TensorProto()
        lying.CopyFrom(made)
        del lying.dims[:]
        lying.dims.extend(dims)
        with pytest.raises(InvalidModelError, match="size of a tensor"):
            check(model(initialisers=[lying]))


@pytest.mark.parametrize("kind", [0, 27, 99, -1])
def test_refuses_unknown_element_types(kind: int) -> None:
    with pytest.raises(InvalidModelError, match="no known element type"):
        check(model(initialisers=[onnx.TensorProto(name="w", data_type=kind, dims=[1], raw_data=bytes(4))]))


def test_refuses_half_a_complex_number_and_text_in_external_data() -> None:
    half = onnx.TensorProto(name="w", data_type=TensorProto.COMPLEX64, dims=[1], float_data=[1, 2, 3])
    text = at("m.onnx.data")
    text.data_type = TensorProto.STRING
    for tensor in (half, text):
        with pytest.raises(InvalidModelError):
            check(model(initialisers=[tensor]))


def many_axes(count: int) -> onnx.TensorProto:
    return helper.make_tensor("w", TensorProto.FLOAT, [1] * count, [1.0])


def test_bounds_axes_and_refuses_sizes_below_zero() -> None:
    check(model(initialisers=[many_axes(MAX_RANK)]))
    below = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1, -4], raw_data=bytes(16))
    for tensor, words in ((many_axes(MAX_RANK + 1), "more than 16 axes"), (below, "below zero")):
        with pytest.raises(InvalidModelError, match=words):
            check(model(initialisers=[tensor]))


def test_minus_one_is_an_axis_of_any_size_in_values_only() -> None:
    proto = model()
    proto.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [-1, 3]))
    check(proto)


@pytest.mark.parametrize("place", ["input", "output", "value_info"])
@pytest.mark.parametrize(("shape", "words"), [([1] * 17, "more than 16 axes"), ([2, -2], "below zero")])
def test_bounds_axes_of_values_too(place: str, shape: list[int], words: str) -> None:
    plain = helper.make_tensor_value_info("v", TensorProto.FLOAT, shape)
    types = (
        plain.type,
        helper.make_sequence_type_proto(plain.type),
        helper.make_optional_type_proto(helper.make_sequence_type_proto(plain.type)),
        helper.make_map_type_proto(TensorProto.INT64, plain.type),
        helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, shape),
    )
    for kind in types:
        proto = model()
        getattr(proto.graph, place).append(helper.make_value_info("v", kind))
        with pytest.raises(InvalidModelError, match=words):
            check(proto)


@pytest.mark.parametrize(
    ("indices", "dims", "shape"),
    [
        ([0, 1, 2, 4], [4], (4,)),
        ([-1, 1, 2, 3], [4], (4,)),
        ([0, 0, 0, 1, 1, 0, 1, 2], [2, 2], (4, 2)),
        ([0, 1, 2], [4], (3,)),
        ([0, 1, 2, 3], [2, 2], (4, 1)),
        ([0, 1, 2, 3], [2**31], (4,)),
    ],
)
def test_refuses_sparse_tensors_that_reach_outside_themselves(
    indices: list[int], dims: list[int], shape: tuple[int, ...]
) -> None:
    proto = model()
    proto.graph.sparse_initializer.append(sparse(FOUR, [0, 1, 2, 3], [MAX_SPARSE_ELEMENTS]))
    proto.graph.sparse_initializer.append(sparse(FOUR, [0, 0, 0, 1, 1, 0, 1, 1], [2, 2], (4, 2)))
    check(proto)
    proto.graph.sparse_initializer.append(sparse(FOUR, indices, dims, shape))
    with pytest.raises(InvalidModelError, match="sparse tensor"):
        check(proto)


LONG = "\u00e9" * (MAX_NAME_BYTES // 2) + "n"


def name_places() -> list[Callable[[str], onnx.ModelProto]]:
    def node(**fields: object) -> Callable[[str], onnx.ModelProto]:
        def place(name: str) -> onnx.ModelProto:
            made = helper.make_node("Identity", ["x"], ["y"])
            for field, is_list in fields.items():
                getattr(made, field).append(name) if is_list else setattr(made, field, name)
            return model([made])

        return place

    def elsewhere(change: Callable[[onnx.ModelProto, str], object]) -> Callable[[str], onnx.ModelProto]:
        def place(name: str) -> onnx.ModelProto:
            proto = in_function(FOUR)
            change(proto, name)
            return proto

        return place

    return [
        node(name=False),
        node(input=True),
        node(output=True),
        elsewhere(lambda m, n: setattr(m.graph, "name", n)),
        elsewhere(lambda m, n: m.graph.initializer.append(helper.make_tensor(n, TensorProto.FLOAT, [1], [1.0]))),
        elsewhere(lambda m, n: m.graph.input.append(value(n))),
        elsewhere(lambda m, n: m.graph.output.append(value(n))),
        elsewhere(lambda m, n: m.graph.value_info.append(value(n))),
        elsewhere(lambda m, n: m.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [n]))),
        elsewhere(lambda m, n: m.graph.node[0].attribute.add(name=n)),
        elsewhere(lambda m, n: m.graph.quantization_annotation.add(tensor_name=n)),
        elsewhere(lambda m, n: m.opset_import.add(domain=n, version=1)),
        elsewhere(lambda m, n: setattr(m.functions[0], "name", n)),
        elsewhere(lambda m, n: m.functions[0].input.append(n)),
        elsewhere(lambda m, n: m.functions[0].attribute.append(n)),
    ]


@pytest.mark.parametrize("place", name_places())
def test_bounds_names_wherever_they_stand(place: Callable[[str], onnx.ModelProto]) -> None:
    check(place(LONG[1:]))
    with pytest.raises(InvalidModelError, match="longer than 1024 bytes"):
        check(place(LONG))
    broken = place("PLACEHOLDER").SerializeToString().replace(b"PLACEHOLDER", b"PLACE\xff\xfeLDER")
    with pytest.raises(InvalidModelError, match="not UTF-8"):
        check_model(broken, FILES)


def test_refuses_fields_that_onnx_does_not_have() -> None:
    """Another library's classes may know them."""
    plain = model().SerializeToString()
    node = helper.make_node("Identity", ["x"], ["y"]).SerializeToString()
    check_model(plain, {})
    unknown_to_node = bytes([0x0A, len(node) + 4]) + node + b"\xd2\x3e\x01a"  # field 1002, one byte of text
    graph = model().graph.SerializeToString() + unknown_to_node
    whole = onnx.ModelProto()
    whole.CopyFrom(model())
    whole.graph.ParseFromString(graph)
    for data in (plain + b"\xd2\x3e\x01a", whole.SerializeToString()):
        with pytest.raises(InvalidModelError, match="not of ONNX's format"):
            check_model(data, {})
