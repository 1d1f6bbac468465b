"""How one tensor stands in a message: its JSON entry, and its bytes behind the JSON (OIP, binary tensor extension).

    body = JSON ‖ raw tensor ‖ raw tensor …        header `inference-header-content-length` = bytes of JSON

The JSON is padded with spaces to a multiple of eight bytes, so that the first tensor can be used where it lies.
Unknown members of an entry are refused; parameters that we do not know are passed over, those that would read
elsewhere (shared memory) leave the tensor without data, which is refused.
Leaves out: the messages around the entries (`rest`, `answers`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import MAX_AXIS, MAX_RANK, Datatype, element_count
from blindai.oip.json_data import tensor_from_json
from blindai.oip.tensors import Tensor, decode_tensor, described, encode_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER_LENGTH = "inference-header-content-length"
MAX_BYTES_ELEMENTS = 1_000_000

Buffer = bytes | memoryview

_ALIGNMENT = 8
_Shape = Annotated[tuple[Annotated[int, Meta(ge=0, le=MAX_AXIS)], ...], Meta(max_length=MAX_RANK)]
_encoder = msgspec.json.Encoder()


class EntryParameters(msgspec.Struct, gc=False):
    """Of a tensor; unknown ones are passed over, since the protocol lets servers add their own."""

    binary_data_size: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class Entry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One tensor in a message's JSON."""

    name: str
    datatype: Datatype
    shape: _Shape
    parameters: EntryParameters | UnsetType = UNSET
    data: msgspec.Raw | UnsetType = UNSET


def binary_entry(tensor: Tensor) -> tuple[Entry, Buffer]:
    """The entry of a tensor whose bytes follow the JSON, and those bytes.

    Raises:
        InvalidInputError: a BYTES element of 4 GiB or more.
    """
    raw = encode_tensor(tensor)
    return Entry(tensor.name, tensor.datatype, tensor.shape, EntryParameters(binary_data_size=len(raw))), raw


def with_header(message: msgspec.Struct, buffers: list[Buffer]) -> tuple[list[Buffer], int]:
    """A body in pieces, and the bytes of JSON that it begins with."""
    header = _encoder.encode(message)
    header += b" " * (-len(header) % _ALIGNMENT)
    return [header, *buffers], len(header)


def header_length(body: bytes) -> int:
    """The bytes of JSON that a body made by `with_header` begins with.

    Raises:
        InvalidInputError: it begins with no JSON.
    """
    try:
        _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))  # a character for each byte
    except (ValueError, RecursionError):
        raise InvalidInputError("the body begins with no JSON") from None
    return end + -end % _ALIGNMENT


def split_body(body: Buffer, header_length: int | None) -> tuple[memoryview, memoryview]:
    """The JSON and what follows it.

    Raises:
        InvalidInputError: the body has no such JSON.
    """
    view = memoryview(body)
    size = view.nbytes
    length = size if header_length is None else header_length
    if not 0 < length <= size:
        raise InvalidInputError(f"{HEADER_LENGTH} is a number from 1 to the {size} bytes of the body")
    return view[:length], view[length:]


def read_entries(entries: Sequence[Entry], tail: memoryview) -> tuple[Tensor, ...]:
    """Each tensor from its `data`, or from the next bytes after the JSON.

    Raises:
        InvalidInputError: one has neither or both, or the bytes are not exactly those of the tensors.
    """
    tensors, offset = [], 0
    for entry in entries:
        size = entry.parameters.binary_data_size if isinstance(entry.parameters, EntryParameters) else UNSET
        if isinstance(size, int):
            tensors.append(_read_binary(entry, tail[offset : offset + size], size))
            offset += size
        else:
            tensors.append(_read_json(entry))
    if offset != tail.nbytes:
        raise InvalidInputError(f"unexpected additional input data: {tail.nbytes - offset} bytes after the last tensor")
    return tuple(tensors)


def check_text_elements(entries: Sequence[Entry]) -> None:
    """Each BYTES element becomes a Python object of many times its size, so they are counted before any is made.

    Raises:
        InvalidInputError: too many.
    """
    count = sum(element_count(entry.shape) for entry in entries if entry.datatype is Datatype.BYTES)
    if count > MAX_BYTES_ELEMENTS:
        raise InvalidInputError(
            f"a request has at most {MAX_BYTES_ELEMENTS} BYTES elements, this one {count}",
            hint="Send them in several requests.",
        )


def _read_binary(entry: Entry, raw: memoryview, size: int) -> Tensor:
    if entry.data is not UNSET:
        raise _form_error(entry)
    if raw.nbytes != size:
        raise InvalidInputError(
            f"unexpected size for {described(entry.name)}, expecting {size - raw.nbytes} additional bytes: "
            f"{size} bytes declared, {raw.nbytes} left"
        )
    return decode_tensor(raw, name=entry.name, datatype=entry.datatype, shape=entry.shape)


def _read_json(entry: Entry) -> Tensor:
    if not isinstance(entry.data, msgspec.Raw):
        raise _form_error(entry)
    return tensor_from_json(entry.data, name=entry.name, datatype=entry.datatype, shape=entry.shape)


def _form_error(entry: Entry) -> InvalidInputError:
    return InvalidInputError(
        f"{described(entry.name)} must set only one of `data` and the parameter `binary_data_size`",
        hint="Shared memory is not supported.",
    )
