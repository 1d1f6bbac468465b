"""The messages and services of the gRPC side, from `protocol.pb` beside this file: the .proto files, compiled.

    make protocol      writes it again after a change of a .proto file; a test compares

The descriptors live in a pool of their own: tritonclient registers messages of the same names in the default one, and
both must fit into one process. Classes are made from descriptors at import, so no generated code is kept.
protobuf's types come in here and only here as `Any`; `Message` says what the rest of the code may use of them.
Leaves out: what messages mean (`translate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format
from google.protobuf.message import DecodeError

from blindai.errors import InvalidInputError

SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"

_FILE = Path(__file__).with_name("protocol.pb")
_MAX_WORDS = 256


class Message(Protocol):
    """A protobuf message: its fields are attributes, which only the schema knows."""

    def __init__(self, **fields: Any) -> None: ...

    def SerializeToString(self) -> bytes:  # noqa: N802  # protobuf's name
        """The wire form."""

    def __getattr__(self, name: str) -> Any: ...

    def __setattr__(self, name: str, value: Any) -> None: ...


_Message = TypeVar("_Message", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC of a service."""

    name: str
    request: type[Message]
    response: type[Message]
    streams_request: bool


def _load() -> Any:
    files = descriptor_pb2.FileDescriptorSet.FromString(_FILE.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


_POOL = _load()


def message_type(full_name: str) -> type[Message]:
    """The class of a message, by its name with package; the same class each time."""
    found: type[Message] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full_name))
    return found


def methods(service: str) -> tuple[Method, ...]:
    """The RPCs of a service, by its name with package."""
    descriptor = _POOL.FindServiceByName(service)
    return tuple(
        Method(
            name=method.name,
            request=message_type(method.input_type.full_name),
            response=message_type(method.output_type.full_name),
            streams_request=method.client_streaming,
        )
        for method in descriptor.methods
    )


def decode(kind: type[_Message], raw: bytes) -> _Message:
    """Read a message from its wire form.

    Raises:
        InvalidInputError: the bytes are none.
    """
    try:
        message: _Message = kind.FromString(raw)  # type: ignore[attr-defined]  # of every message class
    except DecodeError:
        raise InvalidInputError("the request is no message of this kind") from None
    return message


def from_json_object(members: object, kind: type[_Message], *, pass_over_unknown: bool = False) -> _Message:
    """A message from protobuf's JSON form, names as in the schema; members that we do not know are refused.

    64-bit integers may be text or numbers.

    Args:
        members: of the JSON object.
        kind: of message.
        pass_over_unknown: for answers of servers newer than we are.

    Raises:
        InvalidInputError: the members are not those of such a message; in protobuf's words, which may quote them.
    """
    message = kind()
    try:
        json_format.ParseDict(members, message, ignore_unknown_fields=pass_over_unknown, descriptor_pool=_POOL)
    except json_format.ParseError as error:
        raise InvalidInputError(str(error).partition("\n")[0][:_MAX_WORDS]) from None
    except (TypeError, ValueError, AttributeError):
        raise InvalidInputError("the JSON members are not those of the expected message") from None
    return message


def from_text(text: str, kind: type[_Message]) -> _Message:
    """Read a message from protobuf's text form (`config.pbtxt`); a field that the schema lacks is refused.

    Raises:
        InvalidInputError: what is wrong and in which line, in protobuf's words, which may quote the text.
    """
    message = kind()
    try:
        text_format.Parse(text, message, descriptor_pool=_POOL)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        said = str(error).removeprefix(f"{line}:{column} : ").replace("\n", " ")
        raise InvalidInputError(f"line {line}: {said}" if line else said) from None
    except (ValueError, RecursionError):
        raise InvalidInputError("not a text in protobuf's text format") from None
    return message


ModelConfig = message_type("inference.ModelConfig")
