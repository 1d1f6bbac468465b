"""The client: verify the enclave, then upload models and infer.

`blindai.connect` opens a `Client`; `AsyncClient` is its twin for asyncio; `BlindAiClient` is the API of the 0.3 line,
and `blindai.client.connect` that of 0.4 and 0.5.
Each is imported when it is first asked for: who blocks needs no asyncio library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blindai.client.async_client import AsyncClient
    from blindai.client.classic import AttestationError, BlindAiClient
    from blindai.client.classic_connect import BlindAiConnection, PredictResponse, connect
    from blindai.client.classic_responses import RunModelResponse, UploadModelResponse
    from blindai.client.classic_types import ModelDatumType, TensorInfo
    from blindai.client.own_endorsements import Endorsements
    from blindai.client.results import Box, InferResult, ModelInfo, UploadedModel
    from blindai.client.sync_client import Client

__all__ = [
    "AsyncClient",
    "AttestationError",
    "BlindAiClient",
    "BlindAiConnection",
    "Box",
    "Client",
    "Endorsements",
    "InferResult",
    "ModelDatumType",
    "ModelInfo",
    "PredictResponse",
    "RunModelResponse",
    "TensorInfo",
    "UploadModelResponse",
    "UploadedModel",
    "connect",
]

_HOMES = {
    "AsyncClient": "blindai.client.async_client",
    "AttestationError": "blindai.client.classic",
    "BlindAiClient": "blindai.client.classic",
    "BlindAiConnection": "blindai.client.classic_connect",
    "Box": "blindai.client.results",
    "Client": "blindai.client.sync_client",
    "Endorsements": "blindai.client.own_endorsements",
    "InferResult": "blindai.client.results",
    "ModelDatumType": "blindai.client.classic_types",
    "ModelInfo": "blindai.client.results",
    "PredictResponse": "blindai.client.classic_connect",
    "RunModelResponse": "blindai.client.classic_responses",
    "TensorInfo": "blindai.client.classic_types",
    "UploadModelResponse": "blindai.client.classic_responses",
    "UploadedModel": "blindai.client.results",
    "connect": "blindai.client.classic_connect",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blindai.client' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
