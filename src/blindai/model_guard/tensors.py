"""Whether a tensor's bytes are what it declares, and whether external data lies inside a file of the same upload.

ONNX Runtime would read any path, and any address through its `_ORT_MEM_ADDR_` location; so external data is accepted
only where ONNX Runtime takes it from memory, and only by the flat name of an uploaded file.
A declared size must be backed by bytes, so that a small file cannot ask for a large allocation while it loads; a sparse
tensor's full size is bounded instead, and its indices must lie inside it.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from onnx import TensorProto, numpy_helper

from blindai.errors import InvalidModelError
from blindai.model_guard.operators import check_name, check_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import SparseTensorProto

MAX_SPARSE_ELEMENTS = 2**30
_BITS = {  # by onnx.TensorProto.DataType; numbers, since older releases of onnx lack the last names
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2,
}  # fmt: skip
_STRING = 8
_SIGNED_INTEGERS = (3, 5, 6, 7)
# Where typed values stand if not in raw_data, and how many entries one element takes.
_FLOAT, _DOUBLE, _INT64, _UINT64 = {1: 1, 14: 2}, {11: 1, 15: 2}, {7: 1}, {12: 1, 13: 1}
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})
_RE_EXPORT = "Export again with all external data in one file beside the model, as torch.onnx.export does."


def check_tensor(tensor: TensorProto, file_sizes: Mapping[str, int], *, external_allowed: bool) -> None:
    """Refuse a tensor that is not what it says.

    Args:
        tensor: of the model.
        file_sizes: of the upload's other files.
        external_allowed: whether ONNX Runtime takes external data from memory where this tensor stands.

    Raises:
        InvalidModelError: what is wrong with it.
    """
    check_name(tensor.name)
    check_shape(tensor.dims)
    if tensor.data_type != _STRING and tensor.data_type not in _BITS:
        raise InvalidModelError("a tensor of the model has no known element type")
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        if not external_allowed:
            raise InvalidModelError(
                "the model keeps external data outside its main graph's initialisers",
                hint="Save those tensors inside the model: onnx.save(model, path) without external data.",
            )
        _check_external(tensor, file_sizes)
    elif _size_present(tensor) != _size_declared(tensor):
        raise InvalidModelError("the size of a tensor in the model is not what its shape says", hint=_RE_EXPORT)


def check_sparse(sparse: SparseTensorProto, file_sizes: Mapping[str, int]) -> None:
    """Refuse a sparse tensor that is not what it says, or becomes too large.

    Raises:
        InvalidModelError: what is wrong with it.
    """
    check_tensor(sparse.values, file_sizes, external_allowed=False)
    check_tensor(sparse.indices, file_sizes, external_allowed=False)
    check_shape(sparse.dims)
    if math.prod(sparse.dims) > MAX_SPARSE_ELEMENTS:
        raise InvalidModelError("a sparse tensor of the model is too large", hint="Save it as a dense tensor.")
    _check_indices(sparse)


def _check_indices(sparse: SparseTensorProto) -> None:
    """Each value has an index inside the shape, as one number or as one for each axis."""
    count = math.prod(sparse.values.dims)
    limits = {(count,): [math.prod(sparse.dims)], (count, len(sparse.dims)): list(sparse.dims)}
    bounds = limits.get(tuple(sparse.indices.dims))
    if bounds is None or len(sparse.values.dims) != 1 or sparse.indices.data_type not in _SIGNED_INTEGERS:
        raise InvalidModelError("the indices of a sparse tensor do not fit its values")
    indices = numpy_helper.to_array(sparse.indices).reshape(count, -1)
    if count and ((indices < 0).any() or (indices >= bounds).any()):
        raise InvalidModelError("an index of a sparse tensor lies outside it")


def _size_declared(tensor: TensorProto) -> int:
    """In bytes; in elements for text."""
    count: int = math.prod(tensor.dims)
    return count if tensor.data_type == _STRING else -(-count * _BITS[tensor.data_type] // 8)


def _size_present(tensor: TensorProto) -> int:
    """As `_size_declared`, of the bytes that are there; -1 if they cannot be those of a whole tensor."""
    kind = tensor.data_type
    if kind == _STRING:
        return len(tensor.string_data)
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    for entries, per_element in (
        (tensor.float_data, _FLOAT.get(kind)),
        (tensor.double_data, _DOUBLE.get(kind)),
        (tensor.int64_data, _INT64.get(kind)),
        (tensor.uint64_data, _UINT64.get(kind)),
    ):
        if per_element is not None:
            return len(entries) * _BITS[kind] // 8 // per_element if len(entries) % per_element == 0 else -1
    # Everything else stands in int32_data: an element an entry, or for 4 and 2 bits a byte an entry.
    return len(tensor.int32_data) * max(8, _BITS[kind]) // 8


def _check_external(tensor: TensorProto, file_sizes: Mapping[str, int]) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or not entries.keys() <= _EXTERNAL_KEYS:
        raise InvalidModelError("external data is described by an unknown or repeated key", hint=_RE_EXPORT)
    size = file_sizes.get(entries.get("location", ""))
    if size is None:
        raise InvalidModelError(
            "the model's external data is not a file of the same upload",
            hint="Upload the model's data files with it; their names must be flat, without a folder.",
        )
    if tensor.data_type == _STRING:
        raise InvalidModelError("text of the model lies in external data", hint=_RE_EXPORT)
    declared = _size_declared(tensor)
    offset = _number(entries.get("offset", "0"))
    length = _number(entries.get("length", str(declared)))
    if length != declared or offset + length > size:
        raise InvalidModelError(
            "external data reaches past the end of its file, or is not its tensor's size", hint=_RE_EXPORT
        )


def _number(text: str) -> int:
    check_name(text)
    if not _NUMBER.match(text):
        raise InvalidModelError("the offset or length of external data is not a number", hint=_RE_EXPORT)
    return int(text)
