"""A named tensor: fitted to what a model expects, and its raw bytes on the wire (OIP binary tensor extension).

Raw form: little-endian, row-major; each BYTES element is u32 little-endian length ‖ bytes.
Sizes are compared before anything is allocated, and nothing is padded or cut.
Messages name the tensor, the expected shape and counts of what was found; never a value or the shape that was given.
Leaves out: which values may become which (`conversion`), and requests (`rest`).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from blindai.errors import InvalidInputError
from blindai.oip.conversion import to_array
from blindai.oip.datatypes import MAX_RANK, Array, Datatype, element_count, widen_bf16

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Datatype",
    "Tensor",
    "TensorSpec",
    "decode_tensor",
    "described",
    "encode_tensor",
    "tensor_for",
    "tensor_from",
]

DYNAMIC = -1
_LENGTH_BYTES = 4
_MAX_ELEMENT_BYTES = 2**32 - 1
_COPY_BELOW_BYTES = 16 * 1024  # below this, a copy costs less than a view
_MAX_SHOWN_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What a model says of an input or output.

    Attributes:
        name: of the input or output.
        datatype: of its elements.
        shape: axis sizes; -1 is an axis of any size.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class Tensor(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A named array of one datatype, as it travels.

    Attributes:
        name: of the model's input or output.
        datatype: of the elements.
        shape: axis sizes; `()` is a scalar.
        data: C-contiguous and little-endian, perhaps read-only; BF16 as `uint16` bits, BYTES as objects, each `bytes`.

    Raises:
        InvalidInputError: `data` does not have this datatype and shape.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: Array

    def __repr__(self) -> str:
        """Without its values."""
        return f"Tensor(name={self.name!r}, datatype={self.datatype!r}, shape={self.shape!r})"

    def __post_init__(self) -> None:
        data = self.data
        if data.dtype != self.datatype.numpy or data.shape != self.shape or not data.flags.c_contiguous:
            raise InvalidInputError(f"{described(self.name)} is not a C-contiguous array of its datatype and shape")

    def as_numpy(self) -> Array:
        """The array; BF16 as `float32`, BYTES as `bytes` objects. It may be read-only: copy it before writing."""
        return widen_bf16(self.data) if self.datatype is Datatype.BF16 else self.data

    def as_torch(self) -> Any:
        """A new torch tensor of the same datatype.

        Raises:
            ImportError: torch is not installed.
            InvalidInputError: BYTES, which torch does not have.
        """
        import torch  # noqa: PLC0415  # the client works without it

        if self.datatype is Datatype.BYTES:
            raise InvalidInputError(
                f"{described(self.name)} is BYTES, which torch does not have", hint="Use as_flat()."
            )
        if self.datatype is Datatype.BF16:
            return torch.from_numpy(self.data.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(self.data.copy())

    def as_flat(self) -> list[Any]:
        """The elements as Python numbers, booleans or `bytes`, row by row."""
        return list(self.as_numpy().reshape(-1).tolist())


def described(name: str) -> str:
    """How messages call a tensor; a name of a megabyte is not repeated."""
    return f"tensor {name[:_MAX_SHOWN_NAME]!r}"


def tensor_from(
    value: Any, *, name: str, datatype: Datatype | None = None, shape: Sequence[int] | None = None
) -> Tensor:
    """Make a tensor of what a user has.

    Args:
        value: numpy array, torch tensor, number, boolean, `str`, `bytes`, (nested) lists of these, or a `Tensor`.
        name: of the model's input.
        datatype: the wished one; `None` takes the value's own.
        shape: for a flat list or a single value: its shape, with at most one -1, which is computed. `None` takes the
            value's own.

    Raises:
        InvalidInputError: the elements do not fill the shape, or the datatype cannot hold them without loss.
    """
    array, found = _array_of(value, datatype, name)
    if shape is not None:
        array = _fit(array, _checked_axes(shape, name), name)
    return Tensor(name=name, datatype=found, shape=array.shape, data=array)


def tensor_for(value: Any, spec: TensorSpec, *, default_shape: tuple[int, ...] | None = None) -> Tensor:
    """Make the tensor that a model's input expects.

    Args:
        value: as for `tensor_from`.
        spec: what the model says of the input.
        default_shape: the shape that a flat list takes, instead of the model's own; given at upload.

    Raises:
        InvalidInputError: datatype, shape or count do not fit; says what was expected.
    """
    array, datatype = _array_of(value, spec.datatype, spec.name)
    if not _matches(array.shape, spec.shape):
        is_flat = array.ndim <= 1 and default_shape is not None
        array = _fit(array, default_shape if is_flat and default_shape is not None else spec.shape, spec.name)
        if not _matches(array.shape, spec.shape):
            raise InvalidInputError(
                f"{described(spec.name)} takes shape {list(spec.shape)}, which the default shape does not fit",
                hint="Give an array with its full shape, or upload the model with another default shape.",
            )
    return Tensor(name=spec.name, datatype=datatype, shape=array.shape, data=array)


def encode_tensor(tensor: Tensor) -> bytes | memoryview:
    """The raw form; a flat view of the tensor's memory where that is cheaper than a copy.

    Raises:
        InvalidInputError: a BYTES element of 4 GiB or more.
    """
    data = tensor.data
    if tensor.datatype is Datatype.BYTES:
        return _encode_elements(data.reshape(-1).tolist(), tensor.name)
    if data.nbytes < _COPY_BELOW_BYTES:
        return data.tobytes()
    return data.reshape(-1).view(np.uint8).data


def decode_tensor(raw: bytes | memoryview, *, name: str, datatype: Datatype, shape: tuple[int, ...]) -> Tensor:
    """Read the raw form; the tensor is a view of `raw` where alignment allows.

    A BOOL byte other than 0 and 1 is true, as in Triton.

    Raises:
        InvalidInputError: the bytes are not exactly those of this datatype and shape.
    """
    found = raw.nbytes if isinstance(raw, memoryview) else len(raw)
    count = element_count(shape)
    itemsize = datatype.itemsize
    if itemsize is None:
        data = _decode_elements(bytes(raw), count, name).reshape(shape)
    elif found != count * itemsize:
        raise InvalidInputError(
            f"input byte size mismatch for {described(name)}. Expected {count * itemsize}, got {found} "
            f"({count} elements of {datatype.value})"
        )
    else:
        data = np.ndarray(shape, datatype.numpy, raw)  # as np.frombuffer and reshape, in half the time
        if not data.flags.aligned:
            data = data.copy()  # ONNX Runtime reads whole elements, which not every processor can do anywhere
        if datatype is Datatype.BOOL:
            data = np.asarray(data.view(np.uint8) != 0)
    return Tensor(name=name, datatype=datatype, shape=shape, data=data)


def _encode_elements(elements: list[bytes], name: str) -> bytes:
    if elements and max(map(len, elements)) > _MAX_ELEMENT_BYTES:
        raise InvalidInputError(f"{described(name)} has an element of 4 GiB or more")
    return b"".join(part for item in elements for part in (len(item).to_bytes(_LENGTH_BYTES, "little"), item))


def _decode_elements(raw: bytes, count: int, name: str) -> Array:
    if count > len(raw) // _LENGTH_BYTES:
        raise InvalidInputError(f"{described(name)} takes {count} elements, which {len(raw)} bytes cannot hold")
    data, offset = np.empty(count, dtype=object), 0
    for index in range(count):
        start = offset + _LENGTH_BYTES
        end = start + int.from_bytes(raw[offset:start], "little")
        if start > len(raw) or end > len(raw):
            raise InvalidInputError(f"{described(name)} ends inside element {index + 1} of {count}")
        data[index] = raw[start:end]
        offset = end
    if offset != len(raw):
        raise InvalidInputError(f"{described(name)} has {len(raw) - offset} bytes after its {count} elements")
    return data


def _array_of(value: Any, datatype: Datatype | None, name: str) -> tuple[Array, Datatype]:
    if isinstance(value, Tensor):
        if datatype not in (None, value.datatype):
            raise InvalidInputError(f"{described(name)} is {value.datatype.value}, expected {datatype}")
        return value.data, value.datatype
    array, found = to_array(value, datatype, described(name))
    element_count(array.shape)
    return array, found


def _checked_axes(shape: Sequence[int], name: str) -> tuple[int, ...]:
    try:
        axes = tuple(operator.index(axis) for axis in shape)
    except TypeError:
        raise InvalidInputError(f"the shape for {described(name)} is not a sequence of whole numbers") from None
    if len(axes) > MAX_RANK or any(axis < DYNAMIC for axis in axes):
        raise InvalidInputError(f"the shape for {described(name)} has more than {MAX_RANK} axes, or one below -1")
    return axes


def _matches(shape: tuple[int, ...], pattern: tuple[int, ...]) -> bool:
    return len(shape) == len(pattern) and all(
        wanted in (DYNAMIC, size) for size, wanted in zip(shape, pattern, strict=True)
    )


def _fit(array: Array, pattern: tuple[int, ...], name: str) -> Array:
    """The array itself if it has the shape; a flat list or a single value laid out in it."""
    if _matches(array.shape, pattern):
        return array
    solved = _solve(pattern, array.size) if array.ndim <= 1 else None
    if solved is None:
        raise InvalidInputError(
            f"{described(name)} takes shape {list(pattern)}, {_count_in_words(pattern)}; "
            f"found {array.size} values in {array.ndim} axes",
            hint="Give an array of this shape, or a flat list with as many values.",
        )
    return array.reshape(solved)


def _solve(pattern: tuple[int, ...], count: int) -> tuple[int, ...] | None:
    """The shape that `count` elements fill, if there is exactly one."""
    unknown = pattern.count(DYNAMIC)
    if unknown == 0:
        return pattern if element_count(pattern) == count else None
    known = element_count(tuple(axis for axis in pattern if axis != DYNAMIC))
    if unknown > 1 or known == 0 or count % known:
        return None
    return tuple(count // known if axis == DYNAMIC else axis for axis in pattern)


def _count_in_words(pattern: tuple[int, ...]) -> str:
    known = element_count(tuple(axis for axis in pattern if axis != DYNAMIC))
    open_axes = pattern.count(DYNAMIC)
    if open_axes == 0:
        return f"which is {known} values"
    return f"a multiple of {known} values" if open_axes == 1 else "whose open axes a flat list does not tell"
