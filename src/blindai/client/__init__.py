"""The client: verify the enclave, then upload models and infer.

`blindai.connect` opens a `Client`; `AsyncClient` is its twin for asyncio; `BlindAiClient` is the API of the 0.3 line.
Each is imported when it is first asked for: who blocks needs no asyncio library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blindai.client.async_client import AsyncClient
    from blindai.client.classic import AttestationError, BlindAiClient, ModelDatumType
    from blindai.client.own_endorsements import Endorsements
    from blindai.client.results import InferResult, ModelInfo, UploadedModel
    from blindai.client.sync_client import Client

__all__ = [
    "AsyncClient",
    "AttestationError",
    "BlindAiClient",
    "Client",
    "Endorsements",
    "InferResult",
    "ModelDatumType",
    "ModelInfo",
    "UploadedModel",
]

_HOMES = {
    "AsyncClient": "blindai.client.async_client",
    "AttestationError": "blindai.client.classic",
    "BlindAiClient": "blindai.client.classic",
    "Client": "blindai.client.sync_client",
    "Endorsements": "blindai.client.own_endorsements",
    "InferResult": "blindai.client.results",
    "ModelDatumType": "blindai.client.classic",
    "ModelInfo": "blindai.client.results",
    "UploadedModel": "blindai.client.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blindai.client' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
