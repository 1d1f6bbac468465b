"""The client: verify the enclave, then upload models and infer.

`blindai.connect` opens a `Client`; `AsyncClient` is its twin for asyncio; `BlindAiClient` is the API of the 0.3 line.
"""

from __future__ import annotations

from blindai.client.async_client import AsyncClient
from blindai.client.classic import AttestationError, BlindAiClient, ModelDatumType
from blindai.client.results import InferResult, ModelInfo, UploadedModel
from blindai.client.sync_client import Client

__all__ = [
    "AsyncClient",
    "AttestationError",
    "BlindAiClient",
    "Client",
    "InferResult",
    "ModelDatumType",
    "ModelInfo",
    "UploadedModel",
]
