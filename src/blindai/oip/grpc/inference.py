"""ModelInfer as REST: a request's tensors become binary tensors behind a JSON header, and an answer's come back raw.

Raw contents stay the bytes that they are. Typed contents become binary too, exactly: each datatype has its one field,
and a number that the datatype cannot hold is refused; FP16 and BF16 have no field and come raw only.
Leaves out: whether sizes and names fit the model, which the REST side judges.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from blindai.errors import InvalidInputError
from blindai.oip.conversion import convert
from blindai.oip.datatypes import MAX_RANK, Datatype, element_count
from blindai.oip.grpc.failures import Code, RpcError
from blindai.oip.grpc.schema import Message, message_type
from blindai.oip.rest import HEADER_LENGTH
from blindai.oip.tensors import described

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Buffer = bytes | memoryview
Parameter = bool | int | float | str

_ModelInferResponse = message_type("inference.ModelInferResponse")
_ALIGNMENT = 8
_MAX_INT64 = 2**63 - 1
_SIZE = "binary_data_size"
_OF_REST = frozenset({_SIZE, "binary_data", "binary_data_output"})
_SHARED_MEMORY = "shared_memory_region"
# tritonclient asks so for a mark on a stream's last answer; here each request has one answer, and all are marked.
_FINAL_WISH = "triton_enable_empty_final_response"

_DATATYPES = {datatype.value: datatype for datatype in Datatype}
# A datatype's field of InferTensorContents, and the datatype whose numbers that field holds.
_FIELDS: dict[Datatype, tuple[str, Datatype]] = {
    Datatype.BOOL: ("bool_contents", Datatype.BOOL),
    **dict.fromkeys((Datatype.INT8, Datatype.INT16, Datatype.INT32), ("int_contents", Datatype.INT32)),
    Datatype.INT64: ("int64_contents", Datatype.INT64),
    **dict.fromkeys((Datatype.UINT8, Datatype.UINT16, Datatype.UINT32), ("uint_contents", Datatype.UINT32)),
    Datatype.UINT64: ("uint64_contents", Datatype.UINT64),
    Datatype.FP32: ("fp32_contents", Datatype.FP32),
    Datatype.FP64: ("fp64_contents", Datatype.FP64),
    Datatype.BYTES: ("bytes_contents", Datatype.BYTES),
}


class _Input(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Parameter]


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Parameter]


class _Request(msgspec.Struct, omit_defaults=True, gc=False):
    inputs: list[_Input]
    parameters: dict[str, Parameter]
    id: str = ""
    outputs: list[_Output] = []


class _AnswerTensor(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Parameter]


class _Answer(msgspec.Struct, gc=False):
    model_name: str
    outputs: list[_AnswerTensor]
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Parameter] = {}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Answer)


def infer_body(message: Message) -> tuple[tuple[Buffer, ...], int]:
    """The body of the REST request in pieces, and how many bytes of JSON it begins with.

    Raises:
        RpcError: contents and raw contents do not go together, or not with shape and datatype.
    """
    try:
        buffers = _tensor_buffers(message)
    except InvalidInputError as error:
        raise RpcError(Code.INVALID_ARGUMENT, str(error)) from None
    header = _Request(
        inputs=[
            _Input(entry.name, entry.datatype, list(entry.shape), _input_parameters(entry.parameters, len(raw)))
            for entry, raw in zip(message.inputs, buffers, strict=True)
        ],
        parameters={**_parameters(message.parameters), "binary_data_output": True},
        id=message.id,
        outputs=[_Output(o.name, {**_parameters(o.parameters), "binary_data": True}) for o in message.outputs],
    )
    text = _encoder.encode(header)
    text += b" " * (-len(text) % _ALIGNMENT)
    return (text, *buffers), len(text)


def infer_response(headers: Mapping[str, str], body: Sequence[Buffer]) -> Message:
    """The gRPC answer that a REST answer in binary form is.

    Raises:
        RpcError: the answer is not in that form, which is its server's mistake.
    """
    length = headers.get(HEADER_LENGTH, "")
    if not length.isascii() or not length.isdigit():
        raise _broken_answer()
    pieces = _cut_header(body, int(length))
    try:
        answer = _decoder.decode(pieces[0])
    except ValueError:
        raise _broken_answer() from None
    response = _ModelInferResponse(model_name=answer.model_name, model_version=answer.model_version, id=answer.id)
    _set_parameters(response.parameters, answer.parameters)
    sizes = [tensor.parameters.pop(_SIZE, None) for tensor in answer.outputs]
    response.raw_output_contents.extend(map(bytes, _cut(pieces[1:], sizes)))
    for tensor in answer.outputs:
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        _set_parameters(output.parameters, tensor.parameters)
    return response


# ---- Tensors of a request


def _tensor_buffers(message: Message) -> list[Buffer]:
    inputs, raw = message.inputs, message.raw_input_contents
    if not raw:
        return [_typed_buffer(entry) for entry in inputs]
    if len(raw) != len(inputs):
        raise InvalidInputError(f"{len(inputs)} inputs take as many raw contents, found {len(raw)}")
    if any(entry.HasField("contents") for entry in inputs):
        raise InvalidInputError("an input has contents beside the raw contents of the request")
    return list(raw)


def _typed_buffer(entry: Any) -> bytes:
    what = described(entry.name)
    datatype = _datatype(entry.datatype, what)
    count = _count(entry.shape, what)
    if datatype not in _FIELDS:
        raise InvalidInputError(f"{what}: {datatype.value} tensors come as raw contents only")
    name, source = _FIELDS[datatype]
    found = {descriptor.name for descriptor, _ in entry.contents.ListFields()}
    if found - {name}:
        raise InvalidInputError(f"{what}: a tensor of {datatype.value} has its elements in {name} and nowhere else")
    values = getattr(entry.contents, name)
    if len(values) != count:
        raise InvalidInputError(f"{what} takes {count} elements, found {len(values)}")
    if datatype is Datatype.BYTES:
        return b"".join(part for item in values for part in (len(item).to_bytes(4, "little"), item))
    array = np.fromiter(values, dtype=source.numpy, count=count)
    return convert(array, source, datatype, what).tobytes()


def _datatype(text: str, what: str) -> Datatype:
    if text not in _DATATYPES:
        raise InvalidInputError(f"{what} has a datatype that the protocol does not have")
    return _DATATYPES[text]


def _count(shape: Sequence[int], what: str) -> int:
    axes = tuple(shape)
    if len(axes) > MAX_RANK or any(axis < 0 for axis in axes):
        raise InvalidInputError(f"the shape of {what} has more than {MAX_RANK} axes, or a negative one")
    return element_count(axes)


# ---- Parameters


def _parameters(found: Mapping[str, Any]) -> dict[str, Parameter]:
    """As JSON has them; what would change how the REST answer is written is not the client's to say."""
    if not found:
        return {}
    return {name: _parameter(name, value) for name, value in found.items() if name != _FINAL_WISH}


def _input_parameters(found: Mapping[str, Any], size: int) -> dict[str, Parameter]:
    """With the size that KServe's client says in gRPC too; it may, if it is true."""
    said = found[_SIZE].int64_param if _SIZE in found else None
    others = {name: value for name, value in found.items() if name != _SIZE or said != size}
    return {**_parameters(others), _SIZE: size}


def _parameter(name: str, value: Any) -> Parameter:
    if name in _OF_REST:
        raise RpcError(Code.INVALID_ARGUMENT, f"the parameter {name} belongs to the REST form")
    if name == _SHARED_MEMORY:
        raise RpcError(Code.UNIMPLEMENTED, "shared memory is not supported")
    choice = value.WhichOneof("parameter_choice")
    if choice is None:
        raise RpcError(Code.INVALID_ARGUMENT, "a parameter has no value")
    chosen: Parameter = getattr(value, choice)
    if isinstance(chosen, float) and not math.isfinite(chosen):
        raise RpcError(Code.INVALID_ARGUMENT, "a parameter is not a finite number")
    return chosen


def _set_parameters(target: Any, parameters: Mapping[str, Parameter]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, str):
            target[name].string_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        elif value > _MAX_INT64:
            target[name].uint64_param = value
        else:
            target[name].int64_param = value


# ---- Pieces of an answer


def _cut_header(body: Sequence[Buffer], length: int) -> list[Buffer]:
    """The JSON as the first piece; without a copy where the pieces lie so already."""
    if body and len(body[0]) == length:
        return list(body)
    whole = memoryview(b"".join(body))
    if length > len(whole):
        raise _broken_answer()
    return [whole[:length], whole[length:]]


def _cut(pieces: Sequence[Buffer], sizes: Sequence[object]) -> Iterable[Buffer]:
    """One piece for each tensor; without a copy where the pieces lie so already."""
    if [len(piece) for piece in pieces] == sizes:
        return pieces
    whole, cut, offset = memoryview(b"".join(pieces)), [], 0
    for size in sizes:
        if not isinstance(size, int) or size < 0:
            raise _broken_answer()
        cut.append(whole[offset : offset + size])
        offset += size
    if offset != len(whole):
        raise _broken_answer()
    return cut


def _broken_answer() -> RpcError:
    return RpcError(Code.INTERNAL, "the server's answer is not in the protocol's binary form")
