"""Inference answers: each output in binary or as JSON, as the request wished (OIP v2 REST, binary tensor extension).

JSON keeps every number: whole numbers are exact, fractions are written so that they read back to the last bit,
and what JSON cannot say (NaN, infinities, text that is not UTF-8) is refused with the advice to ask for binary.
Leaves out: the scores of a classification (`classification`), which arrive here as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.json_data import decode_json
from blindai.oip.tensor_entries import Buffer, Entry, binary_entry, read_entries, split_body, with_header
from blindai.oip.tensors import Tensor, described

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_JSON_ELEMENTS = 4_000_000
_ASK_FOR_BINARY = "Ask for it in binary: `binary_data` of the output, or `binary_data_output` of the request."

Parameter = bool | int | float | str


class OutputForm(msgspec.Struct, frozen=True, kw_only=True):
    """How one output is wished.

    Attributes:
        binary: its bytes after the JSON, else `data` in it.
        classes: 0 for the tensor itself; else its so many largest values (classification extension).
    """

    binary: bool
    classes: int = 0


BINARY = OutputForm(binary=True)


class InferResponse(msgspec.Struct, frozen=True, kw_only=True, eq=False):
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


class _Response(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    model_name: str
    outputs: list[Entry]
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Parameter] = {}


_encoder = msgspec.json.Encoder()
_response_decoder = msgspec.json.Decoder(_Response)


def encode_infer_response(
    response: InferResponse, forms: Sequence[OutputForm] | None = None
) -> tuple[list[Buffer], int | None]:
    """The body in pieces, and the bytes of JSON that it begins with (header `HEADER_LENGTH`), or `None` if it is JSON.

    Args:
        response: what to write.
        forms: of each output; `None` writes all in binary.

    Raises:
        InvalidInputError: JSON cannot say an output.
    """
    entries: list[Entry] = []
    buffers: list[Buffer] = []
    if forms is not None:
        _check_elements(response.outputs, forms)
    for index, tensor in enumerate(response.outputs):
        if forms is None or forms[index].binary:
            entry, raw = binary_entry(tensor)
            entries.append(entry)
            buffers.append(raw)
        else:
            entries.append(_json_entry(tensor))
    message = _Response(response.model_name, entries, response.model_version, response.id)
    if buffers or forms is None:
        return with_header(message, buffers)
    return [_encoder.encode(message)], None


def decode_infer_response(body: Buffer, header_length: int | None) -> InferResponse:
    """Read an answer; binary tensors are views of `body`, parameters are passed over.

    Raises:
        InvalidInputError: anything but one exact answer.
    """
    header, tail = split_body(body, header_length)
    message = decode_json(_response_decoder, header, "the answer")
    return InferResponse(
        model_name=message.model_name,
        model_version=message.model_version,
        id=message.id,
        outputs=read_entries(message.outputs, tail),
    )


def _check_elements(outputs: Sequence[Tensor], forms: Sequence[OutputForm]) -> None:
    """A number in JSON takes many times its bytes, in memory and on the wire."""
    count = sum(tensor.data.size for tensor, form in zip(outputs, forms, strict=True) if not form.binary)
    if count > MAX_JSON_ELEMENTS:
        raise InvalidInputError(
            f"an answer in JSON has at most {MAX_JSON_ELEMENTS} elements, this one {count}", hint=_ASK_FOR_BINARY
        )


def _json_entry(tensor: Tensor) -> Entry:
    data = msgspec.Raw(_encoder.encode(_json_elements(tensor)))
    return Entry(tensor.name, tensor.datatype, tensor.shape, data=data)


def _json_elements(tensor: Tensor) -> list[Any]:
    elements = tensor.as_flat()
    if tensor.datatype is Datatype.BYTES:
        try:
            return [element.decode("utf-8") for element in elements]
        except UnicodeDecodeError:
            raise InvalidInputError(
                f"output {described(tensor.name)} has text that is not UTF-8, which JSON cannot say",
                hint=_ASK_FOR_BINARY,
            ) from None
    values = tensor.as_numpy()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InvalidInputError(
            f"output {described(tensor.name)} has NaN or infinities, which JSON cannot say; ask for binary data",
            hint=_ASK_FOR_BINARY,
        )
    return elements
