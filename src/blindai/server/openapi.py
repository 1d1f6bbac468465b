"""The server's OpenAPI 3.1 document, built once from the table of operations.

Leaves out: Triton's routes that only answer why they are not here (`server_metadata.LEFT_OUT`), and the outer doors.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import blindai
from blindai.bundle import MODEL_NAME
from blindai.server.calls import JSON, Reply
from blindai.server.openapi_operations import OPERATIONS
from blindai.server.openapi_schemas import SCHEMAS, TEXT, ref
from blindai.wire import compact_json

if TYPE_CHECKING:
    from blindai.server.calls import Call
    from blindai.server.dispatch import Service
    from blindai.server.openapi_operations import Operation
    from blindai.server.routes import Target

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_PATH_PARAMETERS = {
    "model": "a name; with `@sha256:…` exactly that model; `@last` for the one uploaded last",
    "version": "of the model",
    "id": "of the key or revocation",
}
_NAME = "^" + MODEL_NAME.pattern.removesuffix(r"\Z") + "$"
_EVERYWHERE = ("401", "405", "500")
_PHRASES = {
    "400": "The request does not fit the protocol or the model",
    "401": "No credential, or one that does not count",
    "403": "The credential, or the runtime policy, does not allow this",
    "404": "No such path, model or version",
    "405": "The path is served under other methods",
    "409": "Another model has this version, or other bytes came than were announced",
    "412": "The model is no longer the one that `if-match` names",
    "413": "The body, or what it inflates to, is too large",
    "415": "The body is compressed in a way that is not undone here",
    "422": "The file is not a model that this server can run",
    "429": "Too many requests wait",
    "500": "The server failed",
    "503": "The model or the server is not ready",
    "504": "The model ran longer than allowed",
}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


async def document(_service: Service, call: Call, _target: Target) -> Reply:
    """The whole document."""
    await call.read_no_body()
    return Reply(headers=JSON, body=(_encoded(),))


@functools.cache
def _encoded() -> bytes:
    return compact_json(openapi_document())


def openapi_document() -> dict[str, Any]:
    """As Python has it."""
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        entry = paths.setdefault(path, {})
        if names := _PLACEHOLDER.findall(path):
            entry["parameters"] = [_path_parameter(name, path) for name in names]
        entry[method.lower()] = _operation(method, path, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "BlindAI",
            "version": blindai.__version__,
            "description": "Confidential inference: Open Inference Protocol v2 with Triton's extensions.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key or a token; under open access none is needed and none is looked at.",
                }
            },
        },
    }


def _operation(method: str, path: str, operation: Operation) -> dict[str, Any]:
    statuses = sorted({*_EVERYWHERE, *operation.fails})
    written: dict[str, Any] = {
        "operationId": _operation_id(method, path),
        "summary": operation.summary,
        "responses": {"200": _success(operation), **{status: _failure(status, operation) for status in statuses}},
    }
    if operation.description:
        written["description"] = operation.description
    if operation.takes == "InferRequest":
        written["parameters"] = [_header_parameter()]
    if operation.takes or operation.is_binary:
        written["requestBody"] = _request_body(operation)
    return written


def _operation_id(method: str, path: str) -> str:
    """`post_v2_models_model_infer`; the path with a last slash has one of its own."""
    words = _PLACEHOLDER.sub(r"\1", path).replace(".", "_")
    return method.lower() + words.replace("/", "_")


def _path_parameter(name: str, path: str) -> dict[str, Any]:
    """Who changes a model names it plainly; who uses one may also say whose and which exactly."""
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 256}
    if path.startswith("/v2/repository/models/{model}/"):
        schema = {"type": "string", "pattern": _NAME}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": _PATH_PARAMETERS[name],
        "schema": schema,
    }


def _header_parameter() -> dict[str, Any]:
    return {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "required": False,
        "description": "bytes of JSON that the body begins with; absent if it is JSON altogether",
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    }


def _request_body(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.takes:
        content["application/json"] = {"schema": ref(operation.takes), "example": operation.example}
    if operation.is_binary:
        content.update(_BYTES)
    return {"required": operation.takes not in ("IndexRequest", "LoadRequest", "UnloadRequest"), "content": content}


def _success(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": ref(operation.gives)}}
    answer: dict[str, Any] = {"description": operation.summary, "content": content}
    if operation.gives == "InferResponse":
        content.update(_BYTES)
        length = {"description": "bytes of JSON that a binary answer begins with", "schema": {"type": "integer"}}
        answer["headers"] = {"Inference-Header-Content-Length": length}
    return answer


def _failure(status: str, operation: Operation) -> dict[str, Any]:
    schema = "Ready" if (status, operation.gives) == ("503", "Ready") else "Error"
    answer: dict[str, Any] = {
        "description": _PHRASES[status],
        "content": {"application/json": {"schema": ref(schema)}},
    }
    if status == "405":
        answer["headers"] = {"Allow": {"required": True, "schema": TEXT}}
    return answer
