"""What a user gives, as an array of one datatype: never another number than the one given.

Whole numbers change only to a datatype that holds each of them exactly, and 3.7 is no whole number.
Fractions may be rounded to a narrower float, as everyone expects of 0.1, but not to infinity; to BF16 by way of FP32.
torch is recognised by what its tensors can do, and never imported.
Messages name the tensor and the datatype, and hold no value.
Leaves out: shapes (`tensors`), and masked arrays, whose mask numpy drops.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Array, Datatype, datatype_of, infinite_bf16, narrow_to_bf16, widen_bf16

_FLOATS = frozenset({Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16})
_WHOLE = frozenset(Datatype) - _FLOATS - {Datatype.BYTES}  # BOOL is 0 and 1
_MAX_NESTING = 64  # numpy's own limit
_ACCEPTED = "Give numbers, booleans, text, numpy arrays or torch tensors."


def to_array(value: Any, datatype: Datatype | None, what: str) -> tuple[Array, Datatype]:
    """The value as a C-contiguous little-endian array, and its datatype.

    Args:
        value: numpy array or scalar, torch tensor, number, boolean, `str`, `bytes`, or (nested) lists of these.
        datatype: the wished one; `None` takes the value's own (`int` is INT64, `float` FP64, text BYTES).
        what: how messages call the value.

    Raises:
        InvalidInputError: it is none of these, ragged, or the datatype cannot hold it.
    """
    array, source = _own_array(value, datatype, what)
    if source is None and array.dtype.kind in "OSUT":
        return _from_objects(array.astype(object), datatype, what)
    source = source or datatype_of(array.dtype)
    if source is None:
        raise InvalidInputError(f"{what} has elements of a type that the protocol does not have", hint=_ACCEPTED)
    return convert(array, source, datatype or source, what), datatype or source


def convert(array: Array, source: Datatype, target: Datatype, what: str) -> Array:
    """An array of datatype `source` as one of datatype `target`; C-contiguous and little-endian.

    Raises:
        InvalidInputError: a value that `target` cannot hold.
    """
    if source is not target:
        array = _cast(array, source, target, what)
    return np.asarray(array, dtype=target.numpy, order="C")


def _own_array(value: Any, datatype: Datatype | None, what: str) -> tuple[Array, Datatype | None]:
    """The value as numpy sees it, and its datatype where numpy's dtype does not say it."""
    try:
        if isinstance(value, np.ndarray | np.generic):
            return _from_numpy(np.asarray(value))
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            return _from_torch(value)
        return _from_lists(value, datatype), None
    except (ValueError, TypeError, RuntimeError, OverflowError):
        raise InvalidInputError(
            f"{what} cannot be read as an array: lists of unequal length, or foreign elements", hint=_ACCEPTED
        ) from None


def _from_numpy(array: Array) -> tuple[Array, Datatype | None]:
    if array.dtype.kind == "V" and array.dtype.name == "bfloat16":  # ml_dtypes' type: the same sixteen bits
        return array.view(np.uint16), Datatype.BF16
    return array, None


def _from_torch(tensor: Any) -> tuple[Array, Datatype | None]:
    """A dense torch tensor of any device; BF16 by way of FP32, which holds it exactly."""
    host = tensor.detach().cpu()
    if str(host.dtype) == "torch.bfloat16":
        return narrow_to_bf16(host.float().numpy()), Datatype.BF16
    return np.asarray(host.resolve_conj().resolve_neg().numpy()), None


def _from_lists(value: Any, datatype: Datatype | None) -> Array:
    """Numbers as numpy chooses; text as objects, since numpy's own text cuts NUL and pads to the longest."""
    if datatype is Datatype.BYTES or isinstance(_first_leaf(value), str | bytes):
        return np.array(value, dtype=object)
    array = np.asarray(value)
    # By now [1, "a"] is all text; and 2^53 + 1 beside a 0.0 is rounded in an array of floats.
    changed = array.dtype.kind in "SU" or (array.dtype.kind == "f" and datatype in _WHOLE)
    return np.array(value, dtype=object) if changed else array


def _first_leaf(value: Any) -> Any:
    for _ in range(_MAX_NESTING):
        if not isinstance(value, list | tuple) or not value:
            break
        value = value[0]
    return value


def _from_objects(array: Array, datatype: Datatype | None, what: str) -> tuple[Array, Datatype]:
    """Text, or the whole numbers that numpy's integers or floats alone could not show."""
    elements = array.reshape(-1).tolist()
    if datatype is None or datatype is Datatype.BYTES:
        data = np.empty(len(elements), dtype=object)
        data[:] = [_encoded(element, what) for element in elements]
        return data.reshape(array.shape), Datatype.BYTES
    if datatype not in _WHOLE:
        raise _does_not_hold(what, datatype)
    whole = [_whole(element, datatype, what) for element in elements]
    return np.array(whole, dtype=datatype.numpy).reshape(array.shape), datatype


def _encoded(element: Any, what: str) -> bytes:
    if isinstance(element, bytes):
        return bytes(element)
    if not isinstance(element, str):
        raise InvalidInputError(f"{what} mixes text with something else, or holds neither text nor numbers")
    try:
        return element.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError(f"{what} holds text with half a surrogate pair, which UTF-8 does not have") from None


def _whole(element: Any, datatype: Datatype, what: str) -> int:
    """An element's exact integer, if the datatype has it."""
    if isinstance(element, float | np.floating) and element.is_integer():
        element = int(element)
    low, high = _range(datatype)
    if not isinstance(element, int | np.integer | np.bool_) or not low <= element <= high:
        raise _does_not_hold(what, datatype)
    return int(element)


def _range(datatype: Datatype) -> tuple[int, int]:
    if datatype is Datatype.BOOL:
        return 0, 1
    info = np.iinfo(datatype.numpy)
    return int(info.min), int(info.max)


def _does_not_hold(what: str, datatype: Datatype) -> InvalidInputError:
    return InvalidInputError(
        f"{what} holds a value that {datatype.value} does not have",
        hint="Nothing is rounded to a whole number, wrapped or cut; convert it before, if that is meant.",
    )


def _cast(array: Array, source: Datatype, target: Datatype, what: str) -> Array:
    """Between two different datatypes, checked."""
    if array.size == 0:
        return np.empty(array.shape, dtype=target.numpy)
    if Datatype.BYTES in (source, target):
        raise InvalidInputError(f"{what} is {source.value}, the model expects {target.value}")
    if source is Datatype.BF16:
        array = widen_bf16(array)
    floats_in, floats_out = array.dtype.kind == "f", target in _FLOATS
    if floats_out:
        cast, exact = _round(array, target) if floats_in else _float_exactly(array, target)
    else:
        cast, exact = _whole_exactly(array, target) if floats_in else _narrow_integers(array, target)
    if not exact:
        raise _does_not_hold(what, target)
    return cast


def _round(array: Array, target: Datatype) -> tuple[Array, bool]:
    """Float to float: rounded, and whether nothing finite became infinite."""
    if target is Datatype.BF16:
        single, fits = _round(array, Datatype.FP32)
        cast = narrow_to_bf16(single)
        return cast, fits and bool((infinite_bf16(cast) == np.isinf(single)).all())
    with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is a NaN
        cast = array.astype(target.numpy)
    return cast, bool((np.isinf(cast) == np.isinf(array)).all())


def _float_exactly(array: Array, target: Datatype) -> tuple[Array, bool]:
    """Whole numbers or booleans to float, and whether each is still the same number."""
    if target is Datatype.BF16:
        single, fits = _float_exactly(array, Datatype.FP32)
        cast = narrow_to_bf16(single)
        return cast, fits and bool((widen_bf16(cast) == single).all())
    with np.errstate(over="ignore"):
        cast = array.astype(target.numpy)
    consecutive = 2 ** (np.finfo(target.numpy).nmant + 1)  # up to here every whole number has its float
    if -consecutive <= int(array.min()) and int(array.max()) <= consecutive:
        return cast, True
    return cast, bool(cast.reshape(-1).tolist() == array.reshape(-1).tolist())  # Python compares int and float exactly


def _whole_exactly(array: Array, target: Datatype) -> tuple[Array, bool]:
    """Float to whole numbers or booleans, and whether each is whole and in range."""
    low, high = _range(target)
    with np.errstate(invalid="ignore"):  # NaN compares as false, which is all that is asked
        wide = array.astype(np.float64)
        whole = (wide == np.trunc(wide)) & (wide >= float(low)) & (wide < float(high + 1))  # both bounds are exact
    if not whole.all():
        return array, False
    return wide.astype(target.numpy), True


def _narrow_integers(array: Array, target: Datatype) -> tuple[Array, bool]:
    """Whole numbers or booleans to other ones, and whether each is in range."""
    low, high = _range(target)
    if int(array.min()) < low or int(array.max()) > high:
        return array, False
    return array.astype(target.numpy), True
