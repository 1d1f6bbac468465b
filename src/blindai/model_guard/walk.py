"""Visits every node, subgraph, function and tensor of a model, and bounds what it becomes.

ONNX Runtime puts a function's body wherever it is called: functions that call each other twice, thirty deep, are a
small file and a billion nodes. So nodes and depths are counted with every call put in place, each function once.
Leaves out: what one operator, name or tensor may be (`operators`, `tensors`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from blindai.errors import InvalidModelError
from blindai.model_guard.operators import (
    check_name,
    check_names,
    check_operator,
    check_opsets,
    check_value,
    plain_domain,
)
from blindai.model_guard.tensors import check_sparse, check_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_NODES = 200_000
MAX_SUBGRAPH_DEPTH = 16
MAX_FUNCTION_DEPTH = 32

_FunctionKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extent:
    """What a function is once every call in it is put in place.

    Attributes:
        nodes: in it.
        functions: calls around its innermost call.
        subgraphs: around its innermost node.
    """

    nodes: int
    functions: int
    subgraphs: int


class Walk:
    """One pass over one model.

    Args:
        model: parsed, and not looked at yet.
        file_sizes: of the upload's other files, by name.
    """

    def __init__(self, model: onnx.ModelProto, file_sizes: Mapping[str, int]) -> None:
        self._model = model
        self._file_sizes = file_sizes
        self._functions: dict[_FunctionKey, onnx.FunctionProto] = {}
        self._extents: dict[_FunctionKey, _Extent] = {}
        self._open_functions: list[_FunctionKey] = []
        self._all_open_subgraphs = 0  # through all open functions; also bounds this program's own recursion
        # Of the function that is open innermost, or of the main graph; with every call put in place.
        self._nodes = 0
        self._open_subgraphs = 0
        self._deepest_function = 0
        self._deepest_subgraph = 0
        self._visited = 0

    def check(self) -> None:
        """Visit everything.

        Raises:
            InvalidModelError: something may not be run.
        """
        check_opsets(self._model.opset_import)
        for function in self._model.functions:
            key = _key_of(function.domain, function.name, function.overload)
            if key in self._functions:
                raise InvalidModelError("the model defines a function twice")
            self._functions[key] = function
        self._graph(self._model.graph, external_allowed=True)
        for training in self._model.training_info:
            self._graph(training.initialization, external_allowed=False)
            self._graph(training.algorithm, external_allowed=False)
        for key in self._functions:
            self._extent(key)

    def _graph(self, graph: onnx.GraphProto, *, external_allowed: bool) -> None:
        check_name(graph.name)
        for values in (graph.input, graph.output, graph.value_info):
            for value in values:
                check_value(value)
        for annotation in graph.quantization_annotation:
            check_name(annotation.tensor_name)
            check_names(entry.value for entry in annotation.quant_parameter_tensor_names)
        for tensor in graph.initializer:
            check_tensor(tensor, self._file_sizes, external_allowed=external_allowed)
        for sparse in graph.sparse_initializer:
            check_sparse(sparse, self._file_sizes)
        self._each_node(graph.node, external_allowed=external_allowed)

    def _each_node(self, nodes: Iterable[onnx.NodeProto], *, external_allowed: bool) -> None:
        for node in nodes:
            check_names((node.name, node.op_type, node.domain, node.overload))
            check_names(node.input)
            check_names(node.output)
            self._count(node)
            constant = node.op_type == "Constant" and plain_domain(node.domain) == ""
            self._attributes(node.attribute, external_allowed=external_allowed and constant)

    def _count(self, node: onnx.NodeProto) -> None:
        """Add the node, or what the function that it calls becomes."""
        self._visited += 1
        key = _key_of(node.domain, node.op_type, node.overload)
        if key in self._functions:
            extent = self._extent(key)
            self._nodes += extent.nodes
            self._deepest_function = max(self._deepest_function, extent.functions + 1)
            self._deepest_subgraph = max(self._deepest_subgraph, self._open_subgraphs + extent.subgraphs)
        else:
            check_operator(node)
            self._nodes += 1
        if max(self._nodes, self._visited) > MAX_NODES:
            raise InvalidModelError(
                f"the model has more than {MAX_NODES} nodes", hint="Its functions count wherever they are called."
            )
        self._check_depths()

    def _check_depths(self) -> None:
        if self._deepest_function > MAX_FUNCTION_DEPTH:
            raise InvalidModelError(f"the model nests functions deeper than {MAX_FUNCTION_DEPTH}")
        if max(self._deepest_subgraph, self._all_open_subgraphs) > MAX_SUBGRAPH_DEPTH:
            raise InvalidModelError(f"the model nests subgraphs deeper than {MAX_SUBGRAPH_DEPTH}")

    def _extent(self, key: _FunctionKey) -> _Extent:
        """Visit a function the first time that it is called."""
        if key in self._open_functions:
            raise InvalidModelError("a function of the model calls itself")
        if key not in self._extents:
            if len(self._open_functions) >= MAX_FUNCTION_DEPTH:
                raise InvalidModelError(f"the model nests functions deeper than {MAX_FUNCTION_DEPTH}")
            self._open_functions.append(key)
            self._extents[key] = self._visit_function(self._functions[key])
            self._open_functions.pop()
        return self._extents[key]

    def _visit_function(self, function: onnx.FunctionProto) -> _Extent:
        """Count from zero inside it, and go on with the caller's counts afterwards."""
        check_opsets(function.opset_import)
        check_names((function.name, function.domain, function.overload))
        for names in (function.input, function.output, function.attribute):
            check_names(names)
        for value in function.value_info:
            check_value(value)
        outside = self._nodes, self._deepest_function, self._deepest_subgraph, self._open_subgraphs
        self._nodes = self._deepest_function = self._deepest_subgraph = self._open_subgraphs = 0
        self._attributes(function.attribute_proto, external_allowed=False)
        self._each_node(function.node, external_allowed=False)
        extent = _Extent(nodes=self._nodes, functions=self._deepest_function, subgraphs=self._deepest_subgraph)
        self._nodes, self._deepest_function, self._deepest_subgraph, self._open_subgraphs = outside
        return extent

    def _attributes(self, attributes: Iterable[onnx.AttributeProto], *, external_allowed: bool) -> None:
        for attribute in attributes:
            check_names((attribute.name, attribute.ref_attr_name))
            if attribute.ref_attr_name and attribute.type in _GRAPHS:
                raise InvalidModelError("a function of the model takes a graph as its attribute")  # it would multiply
            if attribute.HasField("t"):
                check_tensor(attribute.t, self._file_sizes, external_allowed=external_allowed)
            for tensor in attribute.tensors:
                check_tensor(tensor, self._file_sizes, external_allowed=False)
            if attribute.HasField("sparse_tensor"):
                check_sparse(attribute.sparse_tensor, self._file_sizes)
            for sparse in attribute.sparse_tensors:
                check_sparse(sparse, self._file_sizes)
            self._subgraphs(attribute)

    def _subgraphs(self, attribute: onnx.AttributeProto) -> None:
        for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            with self._inside():
                self._graph(graph, external_allowed=False)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        self._open_subgraphs += 1
        self._all_open_subgraphs += 1
        self._deepest_subgraph = max(self._deepest_subgraph, self._open_subgraphs)
        self._check_depths()
        yield
        self._open_subgraphs -= 1
        self._all_open_subgraphs -= 1


_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def _key_of(domain: str, name: str, overload: str) -> _FunctionKey:
    return plain_domain(domain), name, overload
