"""The datatypes of the Open Inference Protocol, with BF16 from Triton: how an element lies in numpy and on the wire.

On the wire, elements are little-endian and row-major (binary tensor extension); BYTES elements carry their length.
numpy has no BF16: its sixteen bits are kept as UINT16 holds them, and widened to FP32 to calculate with.
Leaves out: conversion of users' values (`conversion`).
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, Any]

MAX_RANK = 16  # as model_guard allows; numpy itself ends at 64
MAX_AXIS = 2**63 - 1
# numpy computes bytes in 63 bits, of eight for each element, even where an axis of 0 leaves no element at all.
_MAX_SPAN = MAX_AXIS // 8
_BF16_SHIFT = 16
_BF16_QUIET = 0x40
_BF16_MAGNITUDE = 0x7FFF
_BF16_INFINITY = 0x7F80


class Datatype(enum.StrEnum):
    """What a tensor's elements are.

    Attributes:
        numpy: the little-endian dtype that holds them; BF16 as `uint16` bits, BYTES as `object` (each a `bytes`).
        itemsize: bytes per element on the wire; `None` for BYTES, whose elements differ in length.
    """

    BOOL = "BOOL", "|b1", 1
    UINT8 = "UINT8", "|u1", 1
    UINT16 = "UINT16", "<u2", 2
    UINT32 = "UINT32", "<u4", 4
    UINT64 = "UINT64", "<u8", 8
    INT8 = "INT8", "|i1", 1
    INT16 = "INT16", "<i2", 2
    INT32 = "INT32", "<i4", 4
    INT64 = "INT64", "<i8", 8
    FP16 = "FP16", "<f2", 2
    FP32 = "FP32", "<f4", 4
    FP64 = "FP64", "<f8", 8
    BF16 = "BF16", "<u2", 2
    BYTES = "BYTES", "|O", None

    numpy: np.dtype[Any]
    itemsize: int | None

    def __new__(cls, value: str, dtype: str, itemsize: int | None) -> Self:
        """One member; enum calls this for each row above."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.numpy = np.dtype(dtype)
        member.itemsize = itemsize
        return member


_BY_DTYPE = {member.numpy: member for member in Datatype if member not in (Datatype.BF16, Datatype.BYTES)}


def datatype_of(dtype: np.dtype[Any]) -> Datatype | None:
    """The datatype of a numeric or boolean numpy array of any byte order, or `None`."""
    found = _BY_DTYPE.get(dtype)
    if found is None and dtype.kind in "iuf":
        found = _BY_DTYPE.get(dtype.newbyteorder("<"))
    return found


def element_count(shape: Sequence[int]) -> int:
    """The number of elements of a shape, computed before anything is allocated for it.

    Raises:
        InvalidInputError: a negative axis, more than 16 axes, or more than numpy can address.
    """
    if len(shape) > MAX_RANK:
        raise InvalidInputError(f"a tensor has at most {MAX_RANK} axes, here are {len(shape)}")
    if shape and min(shape) < 0:
        raise InvalidInputError("an axis of a tensor has a negative size")
    count = math.prod(shape)
    span = count or math.prod(axis or 1 for axis in shape)
    if span > _MAX_SPAN:
        raise InvalidInputError("a tensor's shape passes what can be addressed")
    return count


def widen_bf16(bits: Array) -> Array:
    """BF16 as FP32, exactly."""
    return np.asarray(np.left_shift(bits, _BF16_SHIFT, dtype=np.uint32)).view(np.float32)


def narrow_to_bf16(values: Array) -> Array:
    """FP32 as BF16, rounded to nearest, ties to even; NaN stays NaN with its upper payload bits."""
    bits = np.asarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> _BF16_SHIFT) & 1
    rounded = (bits + np.uint32(_BF16_MAGNITUDE) + odd) >> _BF16_SHIFT
    quiet = (bits >> _BF16_SHIFT) | _BF16_QUIET
    return np.where(np.isnan(values), quiet, rounded).astype(Datatype.BF16.numpy)


def infinite_bf16(bits: Array) -> Array:
    """Which elements are an infinity."""
    return np.asarray((bits & _BF16_MAGNITUDE) == _BF16_INFINITY)
