"""Inference requests and answers (OIP v2 REST, with the binary tensor extension); model metadata comes along.

    body = JSON ‖ raw tensor ‖ raw tensor …        header `inference-header-content-length` = bytes of JSON

We write every tensor in binary and read both forms; without that header the whole body is JSON.
The JSON is padded with spaces to a multiple of eight bytes, so that the first tensor can be used where it lies.
Unknown members are refused; parameters of a tensor that we do not know are passed over, those that would change the
answer (`classification`) or read elsewhere (shared memory) are refused.
Leaves out: whether the tensors fit the model (`server.engine`), an answer in JSON form, raw bodies without JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import MAX_AXIS, MAX_RANK, Datatype, element_count
from blindai.oip.json_data import decode_json, tensor_from_json
from blindai.oip.metadata import ModelMetadata, decode_metadata, encode_metadata
from blindai.oip.tensors import Tensor, decode_tensor, encode_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "HEADER_LENGTH",
    "MAX_BYTES_ELEMENTS",
    "InferRequest",
    "InferResponse",
    "ModelMetadata",
    "decode_infer_request",
    "decode_infer_response",
    "decode_metadata",
    "encode_infer_request",
    "encode_infer_response",
    "encode_metadata",
]

HEADER_LENGTH = "inference-header-content-length"
MAX_BYTES_ELEMENTS = 1_000_000

Buffer = bytes | memoryview
Parameter = bool | int | float | str

_ALIGNMENT = 8
_Shape = Annotated[tuple[Annotated[int, Meta(ge=0, le=MAX_AXIS)], ...], Meta(max_length=MAX_RANK)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferRequest:
    """What a client asks of a model.

    Attributes:
        inputs: one tensor for each input, in any order.
        id: comes back in the answer; empty for none.
        outputs: names of the wished outputs, in the order wished; empty means all.
        parameters: of the whole request, by name; nothing here acts on them.
    """

    inputs: tuple[Tensor, ...]
    id: str = ""
    outputs: tuple[str, ...] = ()
    parameters: tuple[tuple[str, Parameter], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferResponse:
    """What a model answers.

    Attributes:
        model_name: of the model that ran.
        model_version: of the model that ran.
        outputs: in the order wished.
        id: of the request.
    """

    model_name: str
    model_version: str
    outputs: tuple[Tensor, ...]
    id: str = ""


class _TensorParameters(msgspec.Struct, gc=False):
    """Unknown ones are passed over: the protocol lets servers add their own."""

    binary_data_size: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class _Tensor(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    datatype: Datatype
    shape: _Shape
    parameters: _TensorParameters | UnsetType = UNSET
    data: msgspec.Raw | UnsetType = UNSET


class _OutputParameters(msgspec.Struct, gc=False):
    """`binary_data` is among those passed over: answers are always binary."""

    classification: msgspec.Raw | UnsetType = UNSET
    shared_memory_region: msgspec.Raw | UnsetType = UNSET


class _Output(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    parameters: _OutputParameters | UnsetType = UNSET


class _Request(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    inputs: list[_Tensor]
    id: str = ""
    outputs: list[_Output] = []
    parameters: dict[str, Parameter] = {}


class _Response(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    model_name: str
    outputs: list[_Tensor]
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Parameter] = {}


_encoder = msgspec.json.Encoder()
_request_decoder = msgspec.json.Decoder(_Request)
_response_decoder = msgspec.json.Decoder(_Response)


def encode_infer_request(request: InferRequest) -> tuple[list[Buffer], int]:
    """The body in pieces, and the bytes of JSON that it begins with (header `HEADER_LENGTH`).

    Raises:
        InvalidInputError: a BYTES element of 4 GiB or more.
    """
    entries, buffers = _write_tensors(request.inputs)
    message = _Request(
        inputs=entries,
        id=request.id,
        outputs=[_Output(name=name) for name in request.outputs],
        parameters=dict(request.parameters),
    )
    return _with_header(message, buffers)


def decode_infer_request(body: Buffer, header_length: int | None) -> InferRequest:
    """Read a request; binary tensors are views of `body`.

    Args:
        body: all of it, and nothing after it.
        header_length: bytes of JSON; `None` if the header is absent.

    Raises:
        InvalidInputError: anything but one exact request.
    """
    header, tail = _split(body, header_length)
    message = decode_json(_request_decoder, header, "the request")
    for output in message.outputs:
        if isinstance(output.parameters, _OutputParameters):
            _check_output(output.parameters)
    _check_elements(message.inputs)
    return InferRequest(
        inputs=_read_tensors(message.inputs, tail),
        id=message.id,
        outputs=tuple(output.name for output in message.outputs),
        parameters=tuple(message.parameters.items()),
    )


def encode_infer_response(response: InferResponse) -> tuple[list[Buffer], int]:
    """As `encode_infer_request`."""
    entries, buffers = _write_tensors(response.outputs)
    message = _Response(
        model_name=response.model_name, model_version=response.model_version, id=response.id, outputs=entries
    )
    return _with_header(message, buffers)


def decode_infer_response(body: Buffer, header_length: int | None) -> InferResponse:
    """As `decode_infer_request`; parameters of the answer are passed over."""
    header, tail = _split(body, header_length)
    message = decode_json(_response_decoder, header, "the answer")
    return InferResponse(
        model_name=message.model_name,
        model_version=message.model_version,
        id=message.id,
        outputs=_read_tensors(message.outputs, tail),
    )


def _write_tensors(tensors: Sequence[Tensor]) -> tuple[list[_Tensor], list[Buffer]]:
    entries, buffers = [], []
    for tensor in tensors:
        raw = encode_tensor(tensor)
        entries.append(
            _Tensor(tensor.name, tensor.datatype, tensor.shape, _TensorParameters(binary_data_size=len(raw)))
        )
        buffers.append(raw)
    return entries, buffers


def _with_header(message: _Request | _Response, buffers: list[Buffer]) -> tuple[list[Buffer], int]:
    header = _encoder.encode(message)
    header += b" " * (-len(header) % _ALIGNMENT)
    return [header, *buffers], len(header)


def _split(body: Buffer, header_length: int | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    size = view.nbytes
    length = size if header_length is None else header_length
    if not 0 < length <= size:
        raise InvalidInputError(f"{HEADER_LENGTH} is a number from 1 to the {size} bytes of the body")
    return view[:length], view[length:]


def _read_tensors(entries: Sequence[_Tensor], tail: memoryview) -> tuple[Tensor, ...]:
    """Each tensor from its `data`, or from the next bytes after the JSON."""
    tensors, offset = [], 0
    for entry in entries:
        size = entry.parameters.binary_data_size if isinstance(entry.parameters, _TensorParameters) else UNSET
        if isinstance(size, int):
            tensors.append(_read_binary(entry, tail[offset : offset + size], size))
            offset += size
        else:
            tensors.append(_read_json(entry))
    if offset != tail.nbytes:
        raise InvalidInputError(f"the body has {tail.nbytes - offset} bytes after the last tensor")
    return tuple(tensors)


def _read_binary(entry: _Tensor, raw: memoryview, size: int) -> Tensor:
    if entry.data is not UNSET:
        raise _form_error()
    if raw.nbytes != size:
        raise InvalidInputError(f"the body ends inside a tensor: {size} bytes declared, {raw.nbytes} left")
    return decode_tensor(raw, name=entry.name, datatype=entry.datatype, shape=entry.shape)


def _read_json(entry: _Tensor) -> Tensor:
    if not isinstance(entry.data, msgspec.Raw):
        raise _form_error()
    return tensor_from_json(entry.data, name=entry.name, datatype=entry.datatype, shape=entry.shape)


def _check_elements(entries: Sequence[_Tensor]) -> None:
    """Each BYTES element becomes a Python object of many times its size, so they are counted before any is made."""
    count = sum(element_count(entry.shape) for entry in entries if entry.datatype is Datatype.BYTES)
    if count > MAX_BYTES_ELEMENTS:
        raise InvalidInputError(
            f"a request has at most {MAX_BYTES_ELEMENTS} BYTES elements, this one {count}",
            hint="Send them in several requests.",
        )


def _form_error() -> InvalidInputError:
    return InvalidInputError(
        "a tensor has either `data` or the parameter `binary_data_size`", hint="Shared memory is not supported."
    )


def _check_output(parameters: _OutputParameters) -> None:
    if parameters.classification is not UNSET or parameters.shared_memory_region is not UNSET:
        raise InvalidInputError("`classification` and shared memory of an output are not supported")
