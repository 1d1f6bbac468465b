"""Inference requests (OIP v2 REST, with the binary tensor extension); answers and model metadata come along.

We write every tensor in binary and ask for answers in binary; both forms are read, and without the header
`inference-header-content-length` the whole body is JSON. An answer is JSON unless the request says otherwise.
Unknown members of the request are ignored, as the protocol lets them; those of a tensor are refused.
Leaves out: whether the tensors fit the model (`server.model_fit`), raw bodies without JSON (`raw_request`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from blindai.errors import InvalidInputError
from blindai.oip.answers import (
    BINARY,
    InferResponse,
    OutputForm,
    Parameter,
    decode_infer_response,
    encode_infer_response,
)
from blindai.oip.json_data import check_depth, decode_json
from blindai.oip.metadata import ModelMetadata, decode_metadata, encode_metadata
from blindai.oip.tensor_entries import (
    HEADER_LENGTH,
    MAX_BYTES_ELEMENTS,
    Buffer,
    Entry,
    binary_entry,
    check_text_elements,
    read_entries,
    split_body,
    with_header,
)
from blindai.oip.tensors import described

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.oip.tensors import Tensor

__all__ = [
    "BINARY",
    "HEADER_LENGTH",
    "MAX_BYTES_ELEMENTS",
    "Buffer",
    "HeaderMemory",
    "InferRequest",
    "InferResponse",
    "ModelMetadata",
    "OutputForm",
    "Parameter",
    "decode_infer_request",
    "decode_infer_response",
    "decode_metadata",
    "encode_infer_request",
    "encode_infer_response",
    "encode_metadata",
]

_BINARY_OUTPUT = "binary_data_output"
_RESERVED = "triton_"
_KEPT_HEADER_BYTES = 1024  # what is read of them takes up to twelve times as much, in each of many sessions


class InferRequest(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a client asks of a model.

    Attributes:
        inputs: one tensor for each input, in any order.
        id: comes back in the answer; empty for none.
        outputs: names of the wished outputs, in the order wished; empty means all.
        forms: how each of `outputs` is wished; empty means all as `binary` says.
        binary: whether outputs come in binary where `forms` says nothing (`binary_data_output`).
        parameters: of the whole request, by name, without `binary_data_output`.
    """

    inputs: tuple[Tensor, ...]
    id: str = ""
    outputs: tuple[str, ...] = ()
    forms: tuple[OutputForm, ...] = ()
    binary: bool = True
    parameters: tuple[tuple[str, Parameter], ...] = ()


class _OutputParameters(msgspec.Struct, gc=False, omit_defaults=True):
    binary_data: bool | UnsetType = UNSET
    classification: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    shared_memory_region: msgspec.Raw | UnsetType = UNSET


class _Output(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    parameters: _OutputParameters | UnsetType = UNSET


class _Request(msgspec.Struct, omit_defaults=True, gc=False):
    inputs: list[Entry]
    id: str = ""
    outputs: list[_Output] = []
    parameters: dict[str, Parameter] = {}


_request_decoder = msgspec.json.Decoder(_Request)


class _Said(msgspec.Struct, frozen=True, gc=False):
    """What a request's JSON says, which another request may say again with other bytes behind it."""

    entries: list[Entry]
    id: str
    outputs: tuple[str, ...]
    forms: tuple[OutputForm, ...]
    binary: bool
    parameters: tuple[tuple[str, Parameter], ...]


class HeaderMemory:
    """The JSON that one client sent last: most repeat it for every request, and it need not be read again.

    It belongs to one connection or session: shared, its quickness would tell what others ask.
    """

    __slots__ = ("_header", "_said")

    def __init__(self) -> None:
        self._header = b""
        self._said: _Said | None = None

    def recall(self, header: Buffer) -> _Said | None:
        """What this JSON says, if it is the last one."""
        return self._said if header == self._header else None

    def keep(self, header: Buffer, said: _Said) -> None:
        """Remember it, unless it is long or has data in it."""
        if len(header) <= _KEPT_HEADER_BYTES and all(entry.data is UNSET for entry in said.entries):
            self._header, self._said = bytes(header), said


def encode_infer_request(request: InferRequest) -> tuple[list[Buffer], int]:
    """The body in pieces, and the bytes of JSON that it begins with (header `HEADER_LENGTH`).

    Raises:
        InvalidInputError: a BYTES element of 4 GiB or more.
    """
    written = [binary_entry(tensor) for tensor in request.inputs]
    parameters = dict(request.parameters)
    if request.binary:
        parameters[_BINARY_OUTPUT] = True
    message = _Request(
        inputs=[entry for entry, _ in written],
        id=request.id,
        outputs=_write_outputs(request),
        parameters=parameters,
    )
    return with_header(message, [raw for _, raw in written])


def decode_infer_request(body: Buffer, header_length: int | None, memory: HeaderMemory | None = None) -> InferRequest:
    """Read a request; binary tensors are views of `body`.

    Args:
        body: all of it, and nothing after it.
        header_length: bytes of JSON; `None` if the header is absent.
        memory: of the client who sent it.

    Raises:
        InvalidInputError: anything but one exact request.
    """
    header, tail = split_body(body, header_length)
    said = memory.recall(header) if memory else None
    if said is None:
        said = _read_header(header)
        if memory:
            memory.keep(header, said)
    return InferRequest(
        inputs=read_entries(said.entries, tail),
        id=said.id,
        outputs=said.outputs,
        forms=said.forms,
        binary=said.binary,
        parameters=said.parameters,
    )


def _read_header(header: memoryview) -> _Said:
    check_depth(header)
    message = decode_json(_request_decoder, header, "the request")
    check_text_elements(message.inputs)
    parameters = message.parameters
    binary = _take_binary_output(parameters) if parameters else False
    outputs = message.outputs
    return _Said(
        entries=message.inputs,
        id=message.id,
        outputs=tuple(output.name for output in outputs) if outputs else (),
        forms=_read_forms(outputs, binary=binary) if outputs else (),
        binary=binary,
        parameters=tuple(parameters.items()) if parameters else (),
    )


def _write_outputs(request: InferRequest) -> list[_Output]:
    if not request.forms:
        return [_Output(name=name) for name in request.outputs]
    return [
        _Output(name, _OutputParameters(form.binary, form.classes or UNSET))
        for name, form in zip(request.outputs, request.forms, strict=True)
    ]


def _take_binary_output(parameters: dict[str, Parameter]) -> bool:
    """The one parameter of the request that is about its form, taken out; the others are checked by name.

    Raises:
        InvalidInputError: it is no boolean, or another one is reserved (Triton, parameters extension).
    """
    if any(name.startswith(_RESERVED) for name in parameters):
        raise InvalidInputError(
            f"parameter keys starting with '{_RESERVED}' are reserved for Triton usage and should not be specified"
        )
    binary = parameters.pop(_BINARY_OUTPUT, False)
    if not isinstance(binary, bool):
        raise InvalidInputError(f"the parameter `{_BINARY_OUTPUT}` is true or false")
    return binary


def _read_forms(outputs: Sequence[_Output], *, binary: bool) -> tuple[OutputForm, ...]:
    return tuple(_read_form(output, binary=binary) for output in outputs)


def _read_form(output: _Output, *, binary: bool) -> OutputForm:
    parameters = output.parameters
    if not isinstance(parameters, _OutputParameters):
        return OutputForm(binary=binary)
    if parameters.shared_memory_region is not UNSET:
        raise InvalidInputError(f"shared memory of output {described(output.name)} is not supported")
    return OutputForm(
        binary=binary if parameters.binary_data is UNSET else bool(parameters.binary_data),
        classes=0 if parameters.classification is UNSET else int(parameters.classification),
    )
