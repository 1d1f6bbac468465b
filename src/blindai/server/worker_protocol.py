"""What the server and a model's process say to each other over their socket.

A message is u32 big-endian length ‖ msgpack header ‖ the tensors' raw bytes, one after the other, sizes in the header.
Requests carry an id, so that many can wait at once; id 0 is the loading of the model.
The server believes nothing that comes back: a model may have taken over its process.
Leaves out: how the bytes move (`worker` blocks on its socket, `worker_pool` is asyncio).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blindai.errors import (
    InferenceError,
    InternalError,
    InvalidInputError,
    InvalidModelError,
    ModelStoreError,
)
from blindai.oip.datatypes import MAX_RANK
from blindai.oip.tensors import Datatype, Tensor, TensorSpec, decode_tensor, encode_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LENGTH_BYTES = 4
MAX_HEADER_BYTES = 1024 * 1024
LOAD_ID = 0
_MAX_TEXT = 2000


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the model, in an inherited descriptor."""

    path: str
    descriptor: int
    size: int


class TensorEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor; its `size` bytes follow the header."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int


class SpecEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of the model."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="load"):
    """Server → worker, once and first."""

    files: tuple[FileEntry, ...]
    graph_optimization: str
    provider: str


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="run"):
    """Server → worker."""

    id: int
    tensors: tuple[TensorEntry, ...]
    outputs: tuple[str, ...]


class Loaded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="loaded"):
    """Worker → server: the answer to `Load`."""

    inputs: tuple[SpecEntry, ...]
    outputs: tuple[SpecEntry, ...]


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="result"):
    """Worker → server: the answer to `Run`."""

    id: int
    tensors: tuple[TensorEntry, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="failed"):
    """Worker → server: why a model or a request failed, in words that hold nothing of it."""

    id: int
    code: str
    message: str
    hint: str


FromServer = Load | Run
FromWorker = Loaded | Result | Failed
Buffer = bytes | bytearray | memoryview

_encoder = msgspec.msgpack.Encoder()
_from_server: msgspec.msgpack.Decoder[FromServer] = msgspec.msgpack.Decoder(FromServer)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode_message(message: FromServer | FromWorker) -> bytes:
    """Length and header; the tensors' bytes follow.

    Raises:
        InvalidInputError: the header passes 1 MiB.
    """
    header = _encoder.encode(message)
    if len(header) > MAX_HEADER_BYTES:
        raise InvalidInputError("the names and shapes of the tensors take more than 1 MiB")
    return len(header).to_bytes(LENGTH_BYTES, "big") + header


def decode_from_server(header: Buffer) -> FromServer:
    """Read a header in the worker."""
    return _from_server.decode(header)


def decode_from_worker(header: Buffer) -> FromWorker:
    """Read a header in the server.

    Raises:
        ValueError: malformed.
    """
    try:
        return _from_worker.decode(header)
    except msgspec.DecodeError:
        raise ValueError("a worker's header cannot be read") from None


def pack_tensors(tensors: Iterable[Tensor]) -> tuple[tuple[TensorEntry, ...], list[Buffer]]:
    """The header's entries and the bytes that follow it."""
    entries, buffers = [], []
    for tensor in tensors:
        raw = memoryview(encode_tensor(tensor))
        entries.append(
            TensorEntry(name=tensor.name, datatype=tensor.datatype.value, shape=tensor.shape, size=raw.nbytes)
        )
        buffers.append(raw)
    return tuple(entries), list[Buffer](buffers)


def unpack_tensors(entries: Sequence[TensorEntry], buffers: Sequence[bytes | memoryview]) -> tuple[Tensor, ...]:
    """The inverse of `pack_tensors`.

    Raises:
        ValueError: an unknown datatype.
        InvalidInputError: the bytes do not fit the shape.
    """
    return tuple(
        decode_tensor(raw, name=entry.name, datatype=_datatype(entry.datatype), shape=entry.shape)
        for entry, raw in zip(entries, buffers, strict=True)
    )


def pack_specs(specs: Iterable[TensorSpec]) -> tuple[SpecEntry, ...]:
    """The entries that describe the model's inputs or outputs."""
    return tuple(SpecEntry(name=spec.name, datatype=spec.datatype.value, shape=spec.shape) for spec in specs)


def unpack_specs(entries: Iterable[SpecEntry]) -> tuple[TensorSpec, ...]:
    """The inverse of `pack_specs`.

    Raises:
        ValueError: an unknown datatype, an axis below -1, too many axes.
    """
    specs = []
    for entry in entries:
        if len(entry.shape) > MAX_RANK or any(axis < -1 for axis in entry.shape):
            raise ValueError("a shape of the model is none")
        specs.append(TensorSpec(name=entry.name, datatype=_datatype(entry.datatype), shape=entry.shape))
    return tuple(specs)


def _datatype(name: str) -> Datatype:
    try:
        return Datatype[name]
    except KeyError:
        raise ValueError("no datatype has this name") from None


def failure_of(request_id: int, error: Exception) -> Failed:
    """What a worker says of an error; a foreign one is named by its class only."""
    if isinstance(error, (InferenceError, ModelStoreError)):
        return Failed(id=request_id, code=error.code, message=str(error)[:_MAX_TEXT], hint=error.hint[:_MAX_TEXT])
    return Failed(id=request_id, code=InternalError.code, message="the model's process failed on this request", hint="")


def error_of(failed: Failed) -> InferenceError | ModelStoreError:
    """The error that the server raises; a worker can only blame the model, the input or itself."""
    allowed: tuple[type[InferenceError | ModelStoreError], ...] = (InvalidModelError, InvalidInputError)
    kind = next((error for error in allowed if error.code == failed.code), InternalError)
    return kind(failed.message[:_MAX_TEXT], hint=failed.hint[:_MAX_TEXT])
