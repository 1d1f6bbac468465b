"""Element types and inputs as the 0.3 to 0.5 lines name them, and what the protocol calls them.

Leaves out: which values may become which (oip/conversion.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype, datatype_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class ModelDatumType(IntEnum):
    """Element types, with the numbers of the 0.3 line."""

    F32 = 0
    F64 = 1
    I32 = 2
    I64 = 3
    U32 = 4
    U64 = 5
    U8 = 6
    U16 = 7
    I8 = 8
    I16 = 9
    Bool = 10


_DATATYPES = {
    ModelDatumType.F32: Datatype.FP32,
    ModelDatumType.F64: Datatype.FP64,
    ModelDatumType.I32: Datatype.INT32,
    ModelDatumType.I64: Datatype.INT64,
    ModelDatumType.U32: Datatype.UINT32,
    ModelDatumType.U64: Datatype.UINT64,
    ModelDatumType.U8: Datatype.UINT8,
    ModelDatumType.U16: Datatype.UINT16,
    ModelDatumType.I8: Datatype.INT8,
    ModelDatumType.I16: Datatype.INT16,
    ModelDatumType.Bool: Datatype.BOOL,
}
_NUMBERS = {int(member): datatype for member, datatype in _DATATYPES.items()}
_NAMES = {member.name.lower(): member for member in ModelDatumType}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input, as 0.5 describes it.

    Attributes:
        fact: its shape.
        datum_type: its element type, in any form that `datatype_named` takes.
        node_name: its name in the model, or None.
    """

    fact: Sequence[int]
    datum_type: Any = ModelDatumType.F32
    node_name: str | None = None


def datatype_named(dtype: Any) -> Datatype:
    """An element type in the protocol's words.

    Args:
        dtype: a `ModelDatumType` or its number; a numpy or torch dtype; or text: `"float32"`, `"torch.int64"`, `"F32"`.

    Raises:
        InvalidInputError: there is no such type.
    """
    known = _NUMBERS.get(dtype) if isinstance(dtype, int) else _by_name(dtype)
    if known is None:
        raise InvalidInputError(
            f"{dtype!r} is no ModelDatumType",
            hint=f"one of {', '.join(ModelDatumType.__members__)}, or numpy's or torch's",
        )
    return known


def _by_name(dtype: Any) -> Datatype | None:
    """By what numpy understands: a dtype, Python's `float`, or a name; torch's dtypes print as `torch.` and one."""
    if dtype is None:  # numpy would take it for float64
        return None
    name = str(dtype).removeprefix("torch.")
    if name.lower() in _NAMES:
        return _DATATYPES[_NAMES[name.lower()]]
    if name == "bfloat16":
        return Datatype.BF16
    try:
        return datatype_of(np.dtype(name if isinstance(dtype, str) or name != str(dtype) else dtype))
    except TypeError:
        return None
