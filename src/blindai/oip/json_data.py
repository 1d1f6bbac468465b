"""JSON of the Open Inference Protocol: exact numbers from `data`, and refusals that quote nothing that was sent.

Numbers keep their kind: 1.0 and 1e2 are no whole numbers, 1e400 no float, true no number, and NaN no JSON.
`data` is flat, or nested exactly as `shape` says; a scalar's is `[x]` (OIP, tensor data).
FP16 and BF16 are accepted as numbers and rounded; BYTES as text, which becomes UTF-8.
Leaves out: the messages around it (`rest`).
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from blindai.errors import InvalidInputError
from blindai.oip.conversion import to_array
from blindai.oip.datatypes import Datatype, element_count
from blindai.oip.tensors import Tensor, described

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

MAX_NESTING = 100  # as Triton
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STEP = {byte: 1 if byte in b"[{" else -1 for byte in _BRACKETS}
# Also a string that never ends: to look for its end from each quote in it would take quadratic time.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)

_NOT_FINITE = re.compile(rb"[\[,:\s-](?:NaN|Infinity)\b")
_NESTED = re.compile(rb"\s*\[\s*\[")
_ELEMENTS: dict[Datatype, Any] = {
    **dict.fromkeys(Datatype, int),
    **dict.fromkeys((Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.BF16), float),
    Datatype.BOOL: bool,
    Datatype.BYTES: str,
}
# msgspec's words end in ` - at `$.inputs[0].shape``; a hostile member name can only imitate it with words of ours.
_MEMBERS = (
    "inputs|outputs|id|parameters|model_name|model_version|name|datatype|shape|data|binary_data_size|"
    "versions|platform|version|digest|default_shape|binary_data|classification|ready|config"
)
_PLACE = re.compile(rf" - at `(\$(?:\.(?:{_MEMBERS})|\[(?:\d+|\.\.\.)\])*)`\Z")
# The reasons that hold type and member names of ours only.
_OUR_WORDS = re.compile(
    r"(Expected `[a-z |]+`(?: of length)?(?: [<>]?= -?\d+)?(?:, got `[a-z]+`)?|Object missing required field `[a-z_]+`)"
)


def check_depth(data: memoryview) -> None:
    """Bound the nesting before a recursive parser sees it.

    Raises:
        InvalidInputError: deeper than 100.
    """
    text = bytes(data)
    if text.count(b"[") + text.count(b"{") <= MAX_NESTING:
        return
    brackets = _STRING.sub(b"", text).translate(None, _NOT_BRACKETS)
    if max(itertools.accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_NESTING:
        raise InvalidInputError(f"JSON nesting depth exceeds maximum allowed limit ({MAX_NESTING})")


def decode_json(decoder: msgspec.json.Decoder[T], data: bytes | memoryview | msgspec.Raw, what: str) -> T:
    """Parse with a typed decoder.

    Raises:
        InvalidInputError: malformed, nested too deep or of another form; says where, and quotes nothing.
    """
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as problem:
        raise InvalidInputError(f"{what}: {_reason(problem, data)}") from None


def _reason(problem: Exception, data: bytes | memoryview | msgspec.Raw) -> str:
    if not isinstance(problem, msgspec.ValidationError):
        return f"malformed JSON{_advice(data)}"
    words = str(problem)
    place, ours = _PLACE.search(words), _OUR_WORDS.match(words)
    reason = ours[0].replace("`", "") if ours else "a member or value that the protocol does not have"
    if place and not ours and place[1].endswith(".datatype"):
        reason = f"invalid datatype, which is none of {', '.join(Datatype)}"
    return f"{reason} at {place[1]}" if place else reason


def _advice(data: bytes | memoryview | msgspec.Raw) -> str:
    """For what other writers put into JSON, and JSON cannot say."""
    if _NOT_FINITE.search(memoryview(data)):
        return ", which cannot say NaN or Infinity; send such a tensor in binary"
    try:
        str(memoryview(data), "utf-8")
    except UnicodeDecodeError:
        return ", which cannot say text that is not UTF-8; send such a tensor in binary"
    return ""


def tensor_from_json(data: msgspec.Raw, *, name: str, datatype: Datatype, shape: tuple[int, ...]) -> Tensor:
    """Make the tensor that a `data` member describes.

    Raises:
        InvalidInputError: other elements than the datatype has, or not as many or not so nested as the shape says.
    """
    what = f"data of {described(name)}"
    count = element_count(shape)
    depth = len(shape) if len(shape) > 1 and _NESTED.match(memoryview(data)) else 1
    rows = decode_json(_decoder(_ELEMENTS[datatype], depth), data, what)
    elements = _flattened(rows, shape, what) if depth > 1 else rows
    if len(elements) != count:
        raise InvalidInputError(f"{what} has {len(elements)} elements where its shape takes {count}")
    array, _ = to_array(elements, datatype, what)
    return Tensor(name=name, datatype=datatype, shape=shape, data=array.reshape(shape))


@functools.cache
def _decoder(element: Any, depth: int) -> msgspec.json.Decoder[list[Any]]:
    """For lists nested exactly so deep; at most 16 depths of four kinds are kept."""
    for _ in range(depth):
        element = list[element]
    return msgspec.json.Decoder(element)


def _flattened(rows: list[Any], shape: Sequence[int], what: str) -> list[Any]:
    level: list[Any] = [rows]
    for size in shape:
        if any(len(row) != size for row in level):
            raise InvalidInputError(f"{what} is not nested as its shape says")
        level = list(itertools.chain.from_iterable(level))
    return level
