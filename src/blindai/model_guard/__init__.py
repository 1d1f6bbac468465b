"""Decides what may reach ONNX Runtime: an ONNX file is hostile input (docs/spec/bundle.md).

Read with the protobuf classes of `onnx`, before ONNX Runtime sees a byte, in the worker and in `blindai check`.

- `walk`: every node, subgraph, function and tensor of a model, and how large it becomes with its functions in place
- `operators`: which operators, names and shapes are known
- `tensors`: whether a tensor's bytes are what it declares, and whether external data lies in the same upload

Messages never quote the model: a name in it may be chosen to mislead whoever reads a log.
Leaves out: how much memory and time a model takes when it runs, which its process's limits and deadline bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from blindai.errors import InvalidModelError
from blindai.model_guard.operators import MAX_OPSET, MIN_OPSET
from blindai.model_guard.walk import MAX_FUNCTION_DEPTH, MAX_NODES, MAX_SUBGRAPH_DEPTH, Walk

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_FUNCTION_DEPTH", "MAX_NODES", "MAX_OPSET", "MAX_SUBGRAPH_DEPTH", "MIN_OPSET", "check_model"]


def check_model(model: bytes, file_sizes: Mapping[str, int]) -> onnx.ModelProto:
    """Refuse a model that must not reach ONNX Runtime; one that may is returned as it was parsed.

    Args:
        model: the `.onnx` file.
        file_sizes: size in bytes of every other file of the same upload, by its flat name.

    Raises:
        InvalidModelError: what was expected, and what to change.
    """
    proto = _parse(model)
    _check_inputs(proto.graph)
    Walk(proto, file_sizes).check()
    return proto


def _parse(model: bytes) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError:
        raise InvalidModelError("the file is not an ONNX model", hint="Export the model to ONNX first.") from None
    if not proto.HasField("graph") or not proto.opset_import:
        raise InvalidModelError("the file has no graph or no operator set", hint="Export the model to ONNX first.")
    _check_unknown_fields(proto)
    return proto


def _check_unknown_fields(proto: onnx.ModelProto) -> None:
    """ONNX Runtime brings its own protobuf classes, and may know a field that ours would pass over."""
    size = proto.ByteSize()
    proto.DiscardUnknownFields()
    if proto.ByteSize() != size:
        raise InvalidModelError(
            "the model holds fields that are not of ONNX's format", hint="Export again with a released version of onnx."
        )


def _check_inputs(graph: onnx.GraphProto) -> None:
    """ONNX Runtime reports an input of unknown rank as a scalar, so the check of a request would be wrong."""
    for value in graph.input:
        if value.type.WhichOneof("value") == "tensor_type" and not value.type.tensor_type.HasField("shape"):
            raise InvalidModelError(
                "an input of the model has no shape",
                hint="Export again with a fixed number of axes for every input; their sizes may stay dynamic.",
            )
