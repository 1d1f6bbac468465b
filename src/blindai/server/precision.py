"""Names the precision of a model's numbers, by its graph: what an answer can be expected to resolve.

Leaves out: how the engine computes. Where ONNX Runtime has no kernel for a type it casts, and weights in bf16 or fp16
that the graph casts to fp32 are computed with in fp32; they are as coarse as they were stored, and named so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from blindai.oip.metadata import Precision

MIXED: Precision = "mixed"
_NAMES: dict[int, Precision] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
}
_FIXED_RANGES = frozenset({"QuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "ConvInteger"})
_WEIGHTS_ONLY = frozenset({"DequantizeLinear", "MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"})
_MATRIX = 2


def precision_of(model: onnx.ModelProto) -> Precision:
    """What the graph says of itself; reads no external data.

    Quantised models are named by how ranges come about: computed from each run's data, or fixed in the model.
    Others are named by their weights, the tensors of two axes or more, and without any by the types they take: one
    type is named, several are `mixed`, as are weights alone in 8 or 4 bits. A forest without weights is fp32.
    """
    operators = {node.op_type for node in _nodes(model)}
    if any(operator.startswith("DynamicQuantize") for operator in operators):
        return "int8-dynamic"
    if operators & _FIXED_RANGES:
        return "int8-static"
    if operators & _WEIGHTS_ONLY:
        return MIXED
    weights = {_NAMES[one.data_type] for one in _tensors(model) if one.data_type in _NAMES and len(one.dims) >= _MATRIX}
    taken = {value.type.tensor_type.elem_type for value in model.graph.input}
    found = weights or {_NAMES[element] for element in taken if element in _NAMES} or {"fp32"}
    return found.pop() if len(found) == 1 else MIXED


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    waiting = [model.graph]
    for function in model.functions:
        waiting += _inner(function.node)
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += _inner(graph.node)


def _inner(nodes: onnx.NodeProto) -> list[onnx.GraphProto]:
    found = []
    for node in nodes:
        for attribute in node.attribute:
            found += [attribute.g] if attribute.HasField("g") else []
            found += attribute.graphs
    return found


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for function in model.functions:
        yield from function.node
    for graph in _graphs(model):
        yield from graph.node


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in _graphs(model):
        yield from graph.initializer
        yield from (sparse.values for sparse in graph.sparse_initializer)
    for node in _nodes(model):
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
