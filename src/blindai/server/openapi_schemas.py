"""The JSON that requests and answers have, as JSON Schema (OpenAPI 3.1, `components/schemas`).

Leaves out: which route takes or gives which (`openapi_operations`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from blindai.oip.datatypes import MAX_AXIS, MAX_RANK, Datatype
from blindai.oip.metadata import Precision
from blindai.server.access import Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FACT: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
UINT64: Schema = {**WHOLE, "maximum": 2**64 - 1}


def ref(name: str) -> Schema:
    """A schema of this table."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, strict: bool = False
) -> Schema:
    properties = {**required, **(optional or {})}
    written: Schema = {"type": "object", "properties": properties}
    if required:
        written["required"] = list(required)
    if strict:
        written["additionalProperties"] = False
    return written


def _list(item: Schema, **bounds: Any) -> Schema:
    return {"type": "array", "items": item, **bounds}


def _words(values: Sequence[str]) -> Schema:
    return {"type": "string", "enum": list(values)}


_SHAPE = _list({"type": "integer", "minimum": 0, "maximum": MAX_AXIS}, maxItems=MAX_RANK)
_PATTERN = _list({"type": "integer", "minimum": -1, "maximum": MAX_AXIS}, maxItems=MAX_RANK)
_PARAMETERS: Schema = {
    "type": "object",
    "description": "Of the request or answer; names that begin with `triton_` are reserved.",
    "propertyNames": {"not": {"pattern": "^triton_"}},
    "properties": {"priority": UINT64, "timeout": UINT64, "binary_data_output": FACT},
    "additionalProperties": {"type": ["boolean", "integer", "number", "string"]},
}
_DATA: Schema = {
    "type": "array",
    "description": "Elements in row-major order, flat or nested as `shape` says; numbers, booleans or text.",
}
_TENSOR = _object(
    {"name": TEXT, "datatype": ref("Datatype"), "shape": _SHAPE},
    {
        "parameters": _object({}, {"binary_data_size": {**WHOLE, "description": "bytes of it after the JSON"}}),
        "data": _DATA,
    },
    strict=True,
)
_WISHED_OUTPUT = _object(
    {"name": TEXT},
    {"parameters": _object({}, {"binary_data": FACT, "classification": {**WHOLE, "maximum": 2**31 - 1}})},
    strict=True,
)
_SPEC = _object({"name": TEXT, "datatype": ref("Datatype"), "shape": _PATTERN})
_DURATION = _object({"count": WHOLE, "ns": WHOLE})
_STAGES = ("compute_input", "compute_infer", "compute_output")
_CONFIG_TENSOR = _object({"name": TEXT, "data_type": TEXT, "dims": _PATTERN})

SCHEMAS: dict[str, Schema] = {
    "Error": _object(
        {
            "error": {**TEXT, "minLength": 1, "description": "what was expected and what was found; never a value"},
            "code": {**TEXT, "description": "the failure's stable name"},
            "hint": {**TEXT, "description": "what to do next; may be empty"},
        }
    ),
    "Datatype": _words(list(Datatype)),
    "Live": _object({"live": {"const": True}}),
    "Ready": _object({"ready": FACT}),
    "ModelReady": _object({"name": TEXT, "ready": FACT}),
    "ServerMetadata": _object({"name": TEXT, "version": TEXT, "extensions": _list(TEXT), "service": TEXT}),
    "ModelNames": _object({"models": _list(TEXT)}),
    "ModelMetadata": _object(
        {
            "name": TEXT,
            "versions": _list(TEXT),
            "platform": TEXT,
            "inputs": _list(_SPEC),
            "outputs": _list(_SPEC),
            "version": TEXT,
            "digest": {**TEXT, "pattern": "^sha256:[0-9a-f]{64}$"},
            "precision": _words(get_args(Precision)),
            "default_shape": {"anyOf": [_PATTERN, {"type": "null"}]},
        }
    ),
    "ModelConfig": _object(
        {
            "name": TEXT,
            "platform": TEXT,
            "backend": TEXT,
            "version_policy": {"type": "object"},
            "max_batch_size": WHOLE,
            "input": _list(_CONFIG_TENSOR),
            "output": _list(_CONFIG_TENSOR),
            "instance_group": _list({"type": "object"}),
            "default_model_filename": TEXT,
        },
        {"dynamic_batching": {"type": "object"}, "optimization": {"type": "object"}},
    ),
    "ModelStatistics": _object(
        {
            "name": TEXT,
            "version": TEXT,
            "last_inference": {**WHOLE, "description": "milliseconds since 1970; 0 for never"},
            "inference_count": WHOLE,
            "execution_count": WHOLE,
            "inference_stats": _object(
                dict.fromkeys(("success", "fail", "queue", *_STAGES, "cache_hit", "cache_miss"), _DURATION)
            ),
            "batch_stats": _list(_object({"batch_size": WHOLE, **dict.fromkeys(_STAGES, _DURATION)})),
        }
    ),
    "Statistics": _object({"model_stats": _list(ref("ModelStatistics"))}),
    "Tensor": _TENSOR,
    "InferRequest": _object(
        {"inputs": _list(ref("Tensor"))},
        {"id": TEXT, "parameters": _PARAMETERS, "outputs": _list(_WISHED_OUTPUT)},
    ),
    "InferResponse": _object(
        {"model_name": TEXT, "outputs": _list(ref("Tensor"))},
        {"model_version": TEXT, "id": TEXT, "parameters": _PARAMETERS},
    ),
    "IndexRequest": _object({}, {"ready": FACT}),
    "Index": _list(
        _object(
            {
                "name": TEXT,
                "version": TEXT,
                "state": _words(("READY", "LOADING", "UNLOADING", "UNAVAILABLE")),
                "reason": TEXT,
            }
        )
    ),
    "LoadRequest": _object(
        {},
        {
            "parameters": {
                "type": "object",
                "properties": {"config": {**TEXT, "description": "a ModelConfig as JSON"}},
                "patternProperties": {
                    "^file:": {**TEXT, "contentEncoding": "base64", "description": "`file:VERSION/NAME`"}
                },
                "additionalProperties": False,
            }
        },
    ),
    "UnloadRequest": _object({}, {"parameters": _object({}, {"unload_dependents": FACT}, strict=True)}),
    "Done": _object({}),
    "StoredModels": _object(
        {"models": _list(_object({"name": TEXT, "version": TEXT, "digest": TEXT, "bytes": WHOLE}))}
    ),
    "Uploaded": _object({"name": TEXT, "version": TEXT, "digest": TEXT, "manifest": TEXT}),
    "Deleted": _object({"deleted": WHOLE}),
    "Sharing": _object({"run": _list(TEXT, maxItems=64), "visible": _list(TEXT, maxItems=64)}, strict=True),
    "NewKey": _object(
        {"roles": _list(_words(list(Role)), minItems=1, maxItems=64)},
        {"not_after": {**WHOLE, "maximum": 2**53 - 1}},
        strict=True,
    ),
    "Key": _object({"id": TEXT, "key": TEXT, "roles": _list(TEXT)}, {"not_after": {"type": ["integer", "null"]}}),
    "Keys": _object({"keys": _list({"type": "object"})}),
    "RevokedKey": _object({"revoked": TEXT}),
    "NewRevocation": {
        "type": "object",
        "properties": {"jti": TEXT, "sub": TEXT, "issued_before": {**WHOLE, "maximum": 2**53 - 1}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    },
    "Revocation": _object({"id": TEXT, "by": TEXT, "value": {}, "made": WHOLE}),
    "Revocations": _object({"revocations": _list({"type": "object"})}),
    "Lifted": _object({"lifted": TEXT}),
    "OpenApi": {"type": "object"},
}
