"""Every RPC as the REST request that means the same, and the REST answer as the RPC's: one set of semantics for both.

    message → to_rest → RestRequest → (whoever answers REST) → RestAnswer → from_rest → message

The server's gRPC door and the local proxy both use it. ServerLive, ServerReady and health are not here: they are asked
before anybody is known, and whoever serves them knows the answer (`handlers`).
Leaves out: grpc itself, deadlines and streams.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from blindai.errors import InvalidInputError
from blindai.oip.grpc.failures import ERROR_STATUS, Code, RpcError, failure_of
from blindai.oip.grpc.inference import Buffer, infer_body, infer_response
from blindai.oip.grpc.schema import Message, from_json_object, message_type
from blindai.oip.rest import HEADER_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

_JSON = (("content-type", "application/json"),)
DEADLINE_HEADER = "blindai-deadline-ms"
_MAX_DEADLINE_MS = 10**10 - 1
_NOT_READY = (400, 404, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRequest:
    """What is asked, as the REST side takes it; the body in pieces."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: tuple[Buffer, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestAnswer:
    """What the REST side answers; header names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: tuple[Buffer, ...] = field(default=(), repr=False)


def to_rest(rpc: str, message: Message) -> RestRequest:
    """The REST request that an RPC's message means.

    Args:
        rpc: its name, for example `ModelInfer`.
        message: of the RPC's request type.

    Raises:
        RpcError: no such request can be made; its code and details are the RPC's answer.
    """
    if rpc not in _TRANSLATIONS:
        raise unsupported(rpc)
    return _TRANSLATIONS[rpc][0](message)


def with_deadline(request: RestRequest, left_s: float | None) -> RestRequest:
    """The request, and in how many seconds its caller will have gone; `None` for never."""
    if left_s is None:
        return request
    left_ms = min(max(int(left_s * 1000), 0), _MAX_DEADLINE_MS)
    return replace(request, headers=(*request.headers, (DEADLINE_HEADER, str(left_ms))))


def from_rest(rpc: str, answer: RestAnswer) -> Message:
    """The RPC's response that a REST answer means.

    Raises:
        RpcError: the answer is a failure, or not what the protocol says.
    """
    return _TRANSLATIONS[rpc][1](answer)


def unsupported(rpc: str) -> RpcError:
    """The answer to an RPC that the protocol has and we leave out on purpose."""
    return RpcError(Code.UNIMPLEMENTED, f"{rpc} is not supported by this server")


# ---- Streams: one answer for each request, failures among them


_StreamResponse = message_type("inference.ModelStreamInferResponse")


def stream_response(response: Message) -> Message:
    """An answer as it stands in a stream, marked as its request's last one."""
    found = _StreamResponse(infer_response=response)
    found.infer_response.parameters["triton_final_response"].bool_param = True
    return found


def stream_failure(error: RpcError, request_id: str) -> Message:
    """A failure as it stands in a stream, which goes on."""
    return _StreamResponse(error_message=error.details, infer_response={"id": request_id})


# ---- Requests


def _server_metadata(_message: Message) -> RestRequest:
    return RestRequest(method="GET", path="/v2")


def _model_ready(message: Message) -> RestRequest:
    return RestRequest(method="GET", path=_model_path(message) + "/ready")


def _model_metadata(message: Message) -> RestRequest:
    return RestRequest(method="GET", path=_model_path(message))


def _model_config(message: Message) -> RestRequest:
    return RestRequest(method="GET", path=_model_path(message) + "/config")


def _model_statistics(message: Message) -> RestRequest:
    if not message.name and message.version:
        raise RpcError(Code.INVALID_ARGUMENT, "a version is named without its model")
    return RestRequest(method="GET", path=(_model_path(message) if message.name else "/v2/models") + "/stats")


def _infer(message: Message) -> RestRequest:
    body, json_bytes = infer_body(message)
    return RestRequest(
        method="POST",
        path=_path(message.model_name, message.model_version) + "/infer",
        headers=(("content-type", "application/octet-stream"), (HEADER_LENGTH, str(json_bytes))),
        body=body,
    )


def _index(message: Message) -> RestRequest:
    _require_one_repository(message)
    if not message.ready:
        return RestRequest(method="POST", path="/v2/repository/index")
    return RestRequest(method="POST", path="/v2/repository/index", headers=_JSON, body=(b'{"ready":true}',))


def _load(message: Message) -> RestRequest:
    return _change(message, "load")


def _unload(message: Message) -> RestRequest:
    return _change(message, "unload")


def _change(message: Message, verb: str) -> RestRequest:
    _require_one_repository(message)
    parameters = {name: _repository_parameter(value) for name, value in message.parameters.items()}
    path = f"/v2/repository/models/{_quoted(message.model_name)}/{verb}"
    if not parameters:
        return RestRequest(method="POST", path=path)
    return RestRequest(method="POST", path=path, headers=_JSON, body=(msgspec.json.encode({"parameters": parameters}),))


def _repository_parameter(value: Any) -> bool | int | str:
    """Files come as bytes here and in base64 there."""
    choice = value.WhichOneof("parameter_choice")
    if choice is None:
        raise RpcError(Code.INVALID_ARGUMENT, "a parameter has no value")
    found: bool | int | str | bytes = getattr(value, choice)
    return base64.b64encode(found).decode() if isinstance(found, bytes) else found


def _require_one_repository(message: Message) -> None:
    if message.repository_name:
        raise RpcError(Code.UNIMPLEMENTED, "there is one repository, which has no name")


def _model_path(message: Message) -> str:
    return _path(message.name, message.version)


def _path(name: str, version: str) -> str:
    path = f"/v2/models/{_quoted(name)}"
    return f"{path}/versions/{_quoted(version)}" if version else path


def _quoted(name: str) -> str:
    """As one segment of a path, whatever it holds."""
    if not name:
        raise RpcError(Code.INVALID_ARGUMENT, "the request names no model")
    try:
        return quote(name, safe="@:")
    except UnicodeEncodeError:
        raise RpcError(Code.INVALID_ARGUMENT, "a name is text") from None


# ---- Answers


def _ready_response(answer: RestAnswer) -> Message:
    if answer.status in _NOT_READY:
        return _ModelReadyResponse(ready=False)
    _require_success(answer)
    return _ModelReadyResponse(ready=True)


def _infer_response(answer: RestAnswer) -> Message:
    _require_success(answer)
    return infer_response(dict(answer.headers), answer.body)


def _require_success(answer: RestAnswer) -> None:
    if answer.status >= ERROR_STATUS:
        raise failure_of(answer.status, answer.body)


def _json_response(kind: type[Message], member: str = "", form: type[Any] = dict) -> Callable[[RestAnswer], Message]:
    """For answers whose JSON has the message's names; or that are the value of its one member."""

    def respond(answer: RestAnswer) -> Message:
        _require_success(answer)
        try:
            found = msgspec.json.decode(b"".join(answer.body), type=form)
            return from_json_object({member: found} if member else found, kind, pass_over_unknown=True)
        except (ValueError, InvalidInputError):
            raise RpcError(Code.INTERNAL, "the server's answer is not in the protocol's form") from None

    return respond


def _empty_response(kind: type[Message]) -> Callable[[RestAnswer], Message]:
    """For answers that say only that it is done."""

    def respond(answer: RestAnswer) -> Message:
        _require_success(answer)
        return kind()

    return respond


def _of(name: str) -> type[Message]:
    return message_type(f"inference.{name}Response")


_ModelReadyResponse = _of("ModelReady")
_TRANSLATIONS: dict[str, tuple[Callable[[Message], RestRequest], Callable[[RestAnswer], Message]]] = {
    "ServerMetadata": (_server_metadata, _json_response(_of("ServerMetadata"))),
    "ModelReady": (_model_ready, _ready_response),
    "ModelMetadata": (_model_metadata, _json_response(_of("ModelMetadata"))),
    "ModelConfig": (_model_config, _json_response(_of("ModelConfig"), "config")),
    "ModelStatistics": (_model_statistics, _json_response(_of("ModelStatistics"))),
    "ModelInfer": (_infer, _infer_response),
    "RepositoryIndex": (_index, _json_response(_of("RepositoryIndex"), "models", list)),
    "RepositoryModelLoad": (_load, _empty_response(_of("RepositoryModelLoad"))),
    "RepositoryModelUnload": (_unload, _empty_response(_of("RepositoryModelUnload"))),
}
SUPPORTED = frozenset(_TRANSLATIONS)
