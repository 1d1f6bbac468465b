"""Decides what may reach ONNX Runtime: an ONNX file is hostile input (docs/spec/bundle.md).

Read with the protobuf classes of `onnx`, before ONNX Runtime sees a byte, in the worker and in `blindai check`.
Refused: external data anywhere but in the main graph's initialisers and constants, and there unless it lies inside a
file of the same upload (ONNX Runtime would read any path, and any address through its `_ORT_MEM_ADDR_` location);
operator sets outside 7–28; subgraphs deeper than 16; inputs without a shape.
Messages never quote the model: a name in it may be chosen to mislead whoever reads a log.
Leaves out, for now: allowed domains and operators, number of nodes, function depth, sizes of dimensions and names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from blindai.errors import InvalidModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MIN_OPSET = 7
MAX_OPSET = 28
MAX_SUBGRAPH_DEPTH = 16
_DEFAULT_DOMAINS = ("", "ai.onnx")
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
_RE_EXPORT = "Export again with all external data in one file beside the model, as torch.onnx.export does."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where in the model the walk is.

    Attributes:
        depth: subgraphs around it.
        external_allowed: whether ONNX Runtime takes external data from memory here.
    """

    depth: int
    external_allowed: bool

    def inside(self) -> _Place:
        if self.depth >= MAX_SUBGRAPH_DEPTH:
            raise InvalidModelError(f"the model nests subgraphs deeper than {MAX_SUBGRAPH_DEPTH}")
        return _Place(depth=self.depth + 1, external_allowed=False)


def check_model(model: bytes, file_sizes: Mapping[str, int]) -> None:
    """Refuse a model that must not reach ONNX Runtime.

    Args:
        model: the `.onnx` file.
        file_sizes: size in bytes of every other file of the same upload, by its flat name.

    Raises:
        InvalidModelError: what was expected, and what to change.
    """
    proto = _parse(model)
    _check_opsets(proto.opset_import)
    _check_inputs(proto.graph)
    _Walk(file_sizes).model(proto)


def _parse(model: bytes) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError:
        raise InvalidModelError("the file is not an ONNX model", hint="Export the model to ONNX first.") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise InvalidModelError("the file has no graph or no operator set", hint="Export the model to ONNX first.")
    return proto


def _check_opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> None:
    for entry in imports:
        if entry.domain in _DEFAULT_DOMAINS and not MIN_OPSET <= entry.version <= MAX_OPSET:
            raise InvalidModelError(
                f"the model uses ONNX operator set {entry.version}, {MIN_OPSET} to {MAX_OPSET} are accepted",
                hint="Export again with another opset_version, or convert with onnx.version_converter.",
            )


def _check_inputs(graph: onnx.GraphProto) -> None:
    """ONNX Runtime reports an input of unknown rank as a scalar, so the check of a request would be wrong."""
    for value in graph.input:
        if value.type.WhichOneof("value") == "tensor_type" and not value.type.tensor_type.HasField("shape"):
            raise InvalidModelError(
                "an input of the model has no shape",
                hint="Export again with a fixed number of axes for every input; their sizes may stay dynamic.",
            )


class _Walk:
    """Visits every tensor of a model."""

    def __init__(self, file_sizes: Mapping[str, int]) -> None:
        self._file_sizes = file_sizes

    def model(self, proto: onnx.ModelProto) -> None:
        main = _Place(depth=0, external_allowed=True)
        other = _Place(depth=0, external_allowed=False)
        self._graph(proto.graph, main)
        for training in proto.training_info:
            self._graph(training.initialization, other)
            self._graph(training.algorithm, other)
        for function in proto.functions:
            _check_opsets(function.opset_import)
            self._nodes(function.node, other)
            self._attributes(function.attribute_proto, other)

    def _graph(self, graph: onnx.GraphProto, place: _Place) -> None:
        for tensor in graph.initializer:
            self._tensor(tensor, external_allowed=place.external_allowed)
        for sparse in graph.sparse_initializer:
            self._sparse(sparse)
        self._nodes(graph.node, place)

    def _nodes(self, nodes: Iterable[onnx.NodeProto], place: _Place) -> None:
        for node in nodes:
            constant = node.op_type == "Constant" and node.domain in _DEFAULT_DOMAINS
            self._attributes(
                node.attribute,
                _Place(depth=place.depth, external_allowed=place.external_allowed and constant),
            )

    def _attributes(self, attributes: Iterable[onnx.AttributeProto], place: _Place) -> None:
        for attribute in attributes:
            if attribute.HasField("t"):
                self._tensor(attribute.t, external_allowed=place.external_allowed)
            for tensor in attribute.tensors:
                self._tensor(tensor, external_allowed=False)
            if attribute.HasField("sparse_tensor"):
                self._sparse(attribute.sparse_tensor)
            for sparse in attribute.sparse_tensors:
                self._sparse(sparse)
            if attribute.HasField("g"):
                self._graph(attribute.g, place.inside())
            for graph in attribute.graphs:
                self._graph(graph, place.inside())

    def _sparse(self, sparse: onnx.SparseTensorProto) -> None:
        self._tensor(sparse.values, external_allowed=False)
        self._tensor(sparse.indices, external_allowed=False)

    def _tensor(self, tensor: onnx.TensorProto, *, external_allowed: bool) -> None:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
            return
        if not external_allowed:
            raise InvalidModelError(
                "the model keeps external data outside its main graph's initialisers",
                hint="Save those tensors inside the model: onnx.save(model, path) without external data.",
            )
        self._external(tensor)

    def _external(self, tensor: onnx.TensorProto) -> None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data) or not entries.keys() <= _EXTERNAL_KEYS:
            raise InvalidModelError("external data is described by an unknown or repeated key", hint=_RE_EXPORT)
        size = self._file_sizes.get(entries.get("location", ""))
        if size is None:
            raise InvalidModelError(
                "the model's external data is not a file of the same upload",
                hint="Upload the model's data files with it; their names must be flat, without a folder.",
            )
        offset = _number(entries.get("offset", "0"))
        length = _number(entries.get("length", "0"))
        if offset + length > size:
            raise InvalidModelError("external data reaches past the end of its file", hint=_RE_EXPORT)


def _number(text: str) -> int:
    if not _NUMBER.match(text):
        raise InvalidModelError("the offset or length of external data is not a number", hint=_RE_EXPORT)
    return int(text)
