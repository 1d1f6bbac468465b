"""How bytes become unambiguous: labels, length prefixes, base64url and strict JSON (docs/spec/binding.md §1).

Everything that is hashed, signed or parsed where trust is decided goes through these five functions.
Leaves out: what the bytes mean.
"""

from __future__ import annotations

import binascii
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

JSON_INTEGER_LIMIT = 2**53 - 1
MAX_JSON_DEPTH = 8
MAX_LIST = 64
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/\0\0\0")  # what stands in ordinary base64 alone becomes foreign to it
# Also a string that never ends, up to the end: to look for its end from each quote in it would take quadratic time.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[][{}]")
_COMPACT = msgspec.json.Encoder(order="sorted")
_AS_READ = msgspec.json.Encoder()  # members in the order in which they came

S = TypeVar("S", bound=msgspec.Struct)
# What `strict_json` accepts, level by level.
_Exact = None | bool | str | Annotated[int, msgspec.Meta(ge=-JSON_INTEGER_LIMIT, le=JSON_INTEGER_LIMIT)]
_Nested: Any = _Exact
for _ in range(MAX_JSON_DEPTH):
    _Nested = _Exact | list[_Nested] | dict[str, _Nested]
_STRICT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Nested)
Json = None | bool | int | str | Sequence["Json"] | Mapping[str, "Json"] | msgspec.Struct


@functools.cache  # a few dozen names, each asked for at every request
def label(text: str) -> bytes:
    """`L(s)`: the domain-separating prefix of everything hashed or signed."""
    return b"blindai/1 " + text.encode("ascii") + b"\0"


def length_prefixed(data: bytes) -> bytes:
    """`LP(x)` = u32 big-endian length, then the bytes."""
    return len(data).to_bytes(4, "big") + data


def base64url_encode(data: bytes) -> str:
    """RFC 4648 §5 without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")


def base64url_decode(text: object) -> bytes:
    """The only encoding of some bytes, or nothing.

    Raises:
        ValueError: not a string, padded, foreign characters, or spare bits that are not zero.
    """
    if not isinstance(text, str):
        raise ValueError("expected unpadded base64url")  # noqa: TRY004  # callers wrap one exception type
    try:
        padded = text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4)
        data = binascii.a2b_base64(padded)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("expected unpadded base64url") from None
    if binascii.b2a_base64(data, newline=False) != padded:  # the decoder passes over foreign characters and spare bits
        raise ValueError("expected unpadded base64url without foreign characters or spare bits")
    return data


def strict_json(data: bytes, *, max_bytes: int) -> Any:
    """Parse JSON where trust is decided: two readers must never see two values in it.

    Refuses duplicate names at every depth, a byte-order mark, NaN and infinities, fractions and exponents,
    integers outside ±(2⁵³−1), nesting deeper than 8 and lone surrogates. The size is checked before parsing.
    Compact JSON is read fast: if its values are written as exactly these bytes, nothing is repeated or hidden in them.

    Raises:
        ValueError: any of these, in words.
    """
    if len(data) > max_bytes:
        raise ValueError(f"{len(data)} bytes of JSON, at most {max_bytes} are accepted")
    try:
        value = _STRICT.decode(data)
        if _AS_READ.encode(value) == data:
            return value
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    return _read_any_form(data)


def _read_any_form(data: bytes) -> Any:
    """JSON with spaces or escapes too; and it says what is wrong with what is none."""
    _check_depth(data)
    text = data.decode("utf-8", "strict")
    value = json.loads(
        text,
        object_pairs_hook=_unique_members,
        parse_int=_exact_integer,
        parse_float=_refuse_number,
        parse_constant=_refuse_number,
    )
    if "\\u" in text:  # only an escape can make a lone surrogate
        _check_strings(value)
    return value


def _check_depth(data: bytes) -> None:
    """Bound the nesting before the recursive parser sees it."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"JSON nests deeper than {MAX_JSON_DEPTH}")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("JSON object names a member twice")
    return members


def _exact_integer(digits: str) -> int:
    if len(digits) > len(str(-JSON_INTEGER_LIMIT)) or abs(int(digits)) > JSON_INTEGER_LIMIT or digits == "-0":
        raise ValueError("JSON integer outside ±(2^53-1)")
    return int(digits)


def _refuse_number(_: str) -> NoReturn:
    raise ValueError("JSON number is not an integer")


def _check_strings(value: Any) -> None:
    if isinstance(value, str):
        value.encode("utf-8")  # UnicodeEncodeError, a ValueError, on a lone surrogate
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_strings(name)
            _check_strings(member)
    elif isinstance(value, list):
        for member in value:
            _check_strings(member)


def require_members(value: object, required: frozenset[str], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The object itself, if its members are exactly those.

    Raises:
        ValueError: not an object, a missing member or an unknown one.
    """
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004  # callers wrap one exception type
    missing = required - value.keys()
    unknown = value.keys() - required - optional
    if missing or unknown:
        what = f"lacks {sorted(missing)}" if missing else f"has unknown {sorted(unknown)}"
        raise ValueError(f"JSON object {what}")
    return value


def compact_json(value: Json) -> bytes:
    """The one form in which this project writes JSON that is hashed or sealed: compact, sorted, UTF-8, no fractions."""
    return _COMPACT.encode(value)


def strict_struct(decoder: msgspec.json.Decoder[S], data: bytes, *, max_bytes: int) -> S:
    """A JSON object that has exactly the members of the decoder's struct, which must forbid unknown ones.

    In the form of `compact_json` it is read fast: the bytes are those that its values would be written as, so nothing
    can be repeated or hidden in it. Any other form goes through `strict_json`, which says what is wrong.

    Raises:
        ValueError: another object, or one that two readers could read in two ways.
    """
    try:
        members = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        members = None
    if members is not None and len(data) <= max_bytes and compact_json(members) == data:
        return members
    try:
        return msgspec.convert(strict_json(data, max_bytes=max_bytes), decoder.type)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def exact_bytes(value: object, size: int) -> bytes:
    """Base64url text of exactly `size` bytes, decoded.

    Raises:
        ValueError: anything else.
    """
    data = base64url_decode(value)
    if len(data) != size:
        raise ValueError(f"expected {size} bytes, found {len(data)}")
    return data


def whole_number(value: object) -> int:
    """An integer of 0 or more; true and false are not numbers.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("expected a whole number, 0 or more")
    return value


def boolean(value: object) -> bool:
    """True or false.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004  # callers wrap one exception type
    return value


def printable(value: object, *, max_bytes: int = 256) -> str:
    """Printable, non-empty text that fits a line of a report.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, str) or not value or len(value.encode()) > max_bytes or not value.isprintable():
        raise ValueError(f"expected printable text of 1 to {max_bytes} bytes")
    return value


def bounded_list(value: object) -> list[Any]:
    """A list of at most 64 members.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, list) or len(value) > MAX_LIST:
        raise ValueError(f"expected a list of at most {MAX_LIST} members")
    return value
