"""What each route takes and gives, one row a method and path: the table that the OpenAPI document is built from.

Leaves out: the JSON itself (`openapi_schemas`), and which handler answers (`dispatch`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_SIMPLE = {
    "inputs": [
        {"name": "INPUT0", "datatype": "INT32", "shape": [1, 16], "data": list(range(16))},
        {"name": "INPUT1", "datatype": "INT32", "shape": [1, 16], "data": [1] * 16},
    ]
}
_READS = ("400", "404")
_CHANGES = ("400", "403", "404", "409", "413", "415", "422", "429", "503", "504")
_INFERS = ("400", "403", "404", "412", "413", "415", "429", "503", "504")
_MANAGES = ("400", "403", "404", "413", "415", "429")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row.

    Attributes:
        summary: one line.
        gives: the schema of its answer.
        takes: the schema of its JSON body; empty if it has none.
        example: of that body.
        is_binary: whether the body may be, or is, bytes (binary tensor extension, a bundle).
        fails: statuses beside those that every route has.
        description: what a caller must know beyond the summary.
    """

    summary: str
    gives: str
    takes: str = ""
    example: Any = field(default=None, repr=False)
    is_binary: bool = False
    fails: tuple[str, ...] = _READS
    description: str = ""


_METADATA = Operation(
    summary="A model's inputs and outputs", gives="ModelMetadata", fails=(*_READS, "403", "503", "504")
)
_CONFIG = Operation(summary="How a model is served", gives="ModelConfig", fails=(*_READS, "403", "503", "504"))
_READY = Operation(summary="Whether a model is ready", gives="ModelReady", fails=(*_READS, "403"))
_STATISTICS = Operation(summary="What a model has done", gives="Statistics", fails=(*_READS, "403"))
_DELETE = Operation(summary="Forget a model", gives="Deleted", fails=(*_READS, "403"))
_LIVE = Operation(summary="Whether the server lives", gives="Live")
_DOCUMENT = Operation(summary="This document", gives="OpenApi")
_SERVER = Operation(summary="Name, version and extensions of the server", gives="ServerMetadata")
_INFER = Operation(
    summary="Run a model",
    gives="InferResponse",
    takes="InferRequest",
    example=_SIMPLE,
    is_binary=True,
    fails=_INFERS,
    description=(
        "JSON, or JSON followed by raw tensors: then the header `inference-header-content-length` has the bytes of "
        "JSON, and 0 stands for a raw body alone. Outputs come as JSON unless the request asks for binary."
    ),
)

_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_STORED = "/v2/repository/models/{model}"
_KEYS, _REVOCATIONS = "/v2/access/keys", "/v2/access/revocations"

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/v2/health/live"): _LIVE,
    ("GET", "/v2/health/ready"): Operation(
        summary="Whether the server takes requests", gives="Ready", fails=(*_READS, "503")
    ),
    ("GET", "/v2"): _SERVER,
    ("GET", "/v2/"): _SERVER,
    ("GET", "/v2/openapi.json"): _DOCUMENT,
    ("GET", "/openapi.json"): _DOCUMENT,
    ("GET", "/v2/models"): Operation(summary="Names of the models that are served", gives="ModelNames"),
    ("GET", "/v2/models/stats"): Operation(summary="What every model has done", gives="Statistics"),
    **{("POST", path + "/infer"): _INFER for path in (_MODEL, _VERSION)},
    **{("GET", path): _METADATA for path in (_MODEL, _VERSION)},
    **{("GET", path + "/ready"): _READY for path in (_MODEL, _VERSION)},
    **{("GET", path + "/config"): _CONFIG for path in (_MODEL, _VERSION)},
    **{("GET", path + "/stats"): _STATISTICS for path in (_MODEL, _VERSION)},
    ("POST", "/v2/repository/index"): Operation(
        summary="Every model and version, with its state",
        gives="Index",
        takes="IndexRequest",
        example={"ready": True},
        fails=(*_READS, "413", "415", "429"),
    ),
    ("POST", _STORED + "/load"): Operation(
        summary="Serve a model, as stored or with the files that come along",
        gives="Done",
        takes="LoadRequest",
        example={"parameters": {}},
        fails=_CHANGES,
    ),
    ("POST", _STORED + "/unload"): Operation(
        summary="Serve a model no longer",
        gives="Done",
        takes="UnloadRequest",
        example={"parameters": {}},
        fails=_CHANGES,
    ),
    ("GET", "/v2/repository/models"): Operation(
        summary="Every stored model, with digest and size", gives="StoredModels"
    ),
    ("POST", _STORED + "/upload"): Operation(
        summary="Upload a model bundle",
        gives="Uploaded",
        is_binary=True,
        fails=_CHANGES,
        description="u32 big-endian length, a JSON header, then each file's bytes (docs/spec/bundle.md).",
    ),
    ("DELETE", _STORED): _DELETE,
    ("DELETE", _STORED + "/versions/{version}"): _DELETE,
    ("GET", _STORED + "/sharing"): Operation(
        summary="With whom a model is shared", gives="Sharing", fails=(*_READS, "403")
    ),
    ("POST", _STORED + "/sharing"): Operation(
        summary="Decide with whom a model is shared",
        gives="Sharing",
        takes="Sharing",
        example={"run": [], "visible": []},
        fails=_MANAGES,
    ),
    ("GET", _KEYS): Operation(
        summary="The tenant's API keys, without their secrets", gives="Keys", fails=(*_READS, "403")
    ),
    ("POST", _KEYS): Operation(
        summary="Make an API key", gives="Key", takes="NewKey", example={"roles": ["infer"]}, fails=_MANAGES
    ),
    ("DELETE", _KEYS + "/{id}"): Operation(summary="Revoke an API key", gives="RevokedKey", fails=(*_READS, "403")),
    ("GET", _REVOCATIONS): Operation(summary="Revoked tokens", gives="Revocations", fails=(*_READS, "403")),
    ("POST", _REVOCATIONS): Operation(
        summary="Revoke tokens", gives="Revocation", takes="NewRevocation", example={"jti": "x"}, fails=_MANAGES
    ),
    ("DELETE", _REVOCATIONS + "/{id}"): Operation(
        summary="Take a revocation back", gives="Lifted", fails=(*_READS, "403")
    ),
}
