"""What the server and a model's process say to each other.

A message is a doorbell on the socket (kind, header's length, id) and, in the sender's arena, a msgpack header and the
tensors' raw bytes (`arena`). One message is under way in each direction at a time. On a second socket the server names
a run to be broken off. An answer gives its outputs' shapes only: names and datatypes were said when the model loaded.
The server believes nothing that comes back: a model may have taken over its process.
Leaves out: how the bytes move (`worker` blocks on its socket, `worker_process` is asyncio).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeVar

import msgspec

from blindai.errors import (
    InferenceError,
    InternalError,
    InvalidInputError,
    InvalidModelError,
    ModelStoreError,
    TooLargeError,
)
from blindai.oip.datatypes import MAX_RANK, element_count
from blindai.oip.metadata import Precision  # noqa: TC001  # msgspec reads annotations
from blindai.oip.rest import MAX_BYTES_ELEMENTS
from blindai.oip.tensors import Datatype, Tensor, TensorSpec, decode_tensor
from blindai.server.arena import MAX_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DOORBELL = struct.Struct("<IIQ")  # kind, bytes of the header, id
BREAK_OFF = struct.Struct("<Q")  # id of the run
BORN = struct.Struct("<i")  # fork server → server, with a pidfd: the process's number
ENDED = struct.Struct("<i")  # likewise, without: its exit status, below zero the signal
LOAD, RUN, LOADED, RESULT, FAILED = range(1, 6)
_MAX_TEXT = 2000
_DATATYPES: dict[str, Datatype] = {member.value: member for member in Datatype}


class FileEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file of the model; its memory file is inherited, in the same order."""

    path: str
    size: int


class TensorEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One input, of `size` raw bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int


class OutputEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One output, of `size` raw bytes."""

    shape: tuple[int, ...]
    size: int


class SpecEntry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One input or output of the model."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Load(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Server → worker, once and first.

    `max_address_space_bytes` is for the sandbox, `rows_wanted` asks whether the graph keeps rows apart, `providers` are
    those that may run it, in order.
    """

    files: tuple[FileEntry, ...]
    graph_optimization: str
    providers: tuple[str, ...]
    threads: int
    max_answer_bytes: int
    max_address_space_bytes: int
    rows_wanted: bool


class Run(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Server → worker."""

    tensors: tuple[TensorEntry, ...]
    outputs: tuple[str, ...]


class Loaded(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Worker → server: the answer to `Load`; a precision that there is not is refused as any malformed header is."""

    inputs: tuple[SpecEntry, ...]
    outputs: tuple[SpecEntry, ...]
    rows_independent: bool
    precision: Precision
    providers: tuple[str, ...]
    optional: tuple[SpecEntry, ...] = ()


class Result(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Worker → server: the answer to `Run`; its outputs in the order wished, and what it took."""

    outputs: tuple[OutputEntry, ...]
    input_ns: int
    infer_ns: int
    output_ns: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """Worker → server: why a model or a request failed, in words that hold nothing of it."""

    code: str
    message: str
    hint: str


_Message = TypeVar("_Message", Load, Run, Loaded, Result, Failed)
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, msgspec.msgpack.Decoder[object]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Load, Run, Loaded, Result, Failed)
}


def encode_header(message: Load | Run | Loaded | Result | Failed) -> bytes:
    """The header of a message.

    Raises:
        InvalidInputError: it passes 1 MiB.
    """
    header = _encoder.encode(message)
    if len(header) > MAX_HEADER_BYTES:
        raise InvalidInputError("the names and shapes of the tensors take more than 1 MiB")
    return header


def decode_header(header: bytes, kind: type[_Message]) -> _Message:
    """The inverse of `encode_header`.

    Raises:
        ValueError: malformed.
    """
    try:
        message = _decoders[kind].decode(header)
    except msgspec.DecodeError:
        raise ValueError("a header in shared memory cannot be read") from None
    assert isinstance(message, kind)  # noqa: S101  # what the decoder was made for
    return message


def read_inputs(entries: Sequence[TensorEntry], buffers: Sequence[memoryview]) -> tuple[Tensor, ...]:
    """In the worker: the inputs, as views of what the server wrote."""
    return tuple(
        decode_tensor(raw, name=entry.name, datatype=_DATATYPES[entry.datatype], shape=entry.shape)
        for entry, raw in zip(entries, buffers, strict=True)
    )


def check_outputs(entries: Sequence[OutputEntry], specs: Sequence[TensorSpec], max_bytes: int) -> None:
    """In the server, before anything is copied: whether a worker's answer may be what was asked for.

    Raises:
        ValueError: not the wished outputs, or too many bytes or BYTES elements.
        InvalidInputError: a shape that is none.
    """
    if len(entries) != len(specs):
        raise ValueError("a worker's answer has not the outputs that were asked for")
    total = texts = 0
    for entry, spec in zip(entries, specs, strict=True):
        itemsize, count = spec.datatype.itemsize, element_count(entry.shape)
        if entry.size < 0 or (itemsize is not None and entry.size != count * itemsize):
            raise ValueError("an output in a worker's answer has not the size of its shape")
        total += entry.size
        texts += count if itemsize is None else 0
    if total > max_bytes:
        raise ValueError("a worker's answer is too long")
    if texts > MAX_BYTES_ELEMENTS:
        raise ValueError("a worker's answer has too many BYTES elements")


def pack_specs(specs: Iterable[TensorSpec]) -> tuple[SpecEntry, ...]:
    """The entries that describe the model's inputs or outputs."""
    return tuple(SpecEntry(spec.name, spec.datatype.value, spec.shape) for spec in specs)


def unpack_specs(entries: Iterable[SpecEntry]) -> tuple[TensorSpec, ...]:
    """The inverse of `pack_specs`.

    Raises:
        ValueError: an unknown datatype, an axis below -1, too many axes.
    """
    specs = []
    for entry in entries:
        if len(entry.shape) > MAX_RANK or any(axis < -1 for axis in entry.shape):
            raise ValueError("a shape of the model is none")
        if entry.datatype not in _DATATYPES:
            raise ValueError("no datatype has this name")
        specs.append(TensorSpec(name=entry.name, datatype=_DATATYPES[entry.datatype], shape=entry.shape))
    return tuple(specs)


def failure_of(error: Exception) -> Failed:
    """What a worker says of an error; a foreign one is named by its class only."""
    if isinstance(error, (InferenceError, ModelStoreError)):
        return Failed(code=error.code, message=str(error)[:_MAX_TEXT], hint=error.hint[:_MAX_TEXT])
    return Failed(code=InternalError.code, message="the model's process failed on this request", hint="")


def error_of(failed: Failed) -> InferenceError | ModelStoreError:
    """The error that the server raises; a worker can only blame the model, the input, a size or itself."""
    allowed: tuple[type[InferenceError | ModelStoreError], ...] = (InvalidModelError, InvalidInputError, TooLargeError)
    kind = next((error for error in allowed if error.code == failed.code), InternalError)
    return kind(failed.message[:_MAX_TEXT], hint=failed.hint[:_MAX_TEXT])
