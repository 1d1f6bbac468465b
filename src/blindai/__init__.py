"""Confidential AI inference: verify the enclave by remote attestation, then send it data.

    import blindai
    with blindai.connect("https://host:50051", policy="policy.toml") as client:
        client.upload_model("m.onnx")
        client.infer("m", array)

Nothing is imported until it is asked for, so that `import blindai` is cheap and has no side effect.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0a1"
__all__ = ["AsyncClient", "Client", "Endorsements", "Policy", "__version__", "connect"]

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blindai.attestation.policy import Policy
    from blindai.client.async_client import AsyncClient
    from blindai.client.own_endorsements import Endorsements
    from blindai.client.sync_client import Client
    from blindai.endorsements.documents import Source


def connect(  # noqa: PLR0913  # a choice each, by keyword
    url: str,
    *,
    policy: str | Path | Policy | None = None,
    service: str = "blindai-srv",
    level: str | None = None,
    transport: str = "sealed",
    insecure_simulation: bool = False,
    sessions: bool = True,
    padding: bool = True,
    receipts: bool = True,
    timeout_s: float = 120.0,
    api_key: str | None = None,
    token: str | Callable[[], str] | None = None,
    endorsements: Endorsements | Source | None = None,
) -> Client:
    """Verify the server at `url` and open a `Client` to it; the arguments and errors are those of `Client`."""
    from blindai.client.sync_client import Client  # noqa: PLC0415  # see the module's docstring

    return Client(
        url,
        policy=policy,
        service=service,
        level=level,
        transport=transport,
        insecure_simulation=insecure_simulation,
        sessions=sessions,
        padding=padding,
        receipts=receipts,
        timeout_s=timeout_s,
        api_key=api_key,
        token=token,
        endorsements=endorsements,
    )


_HOMES = {
    "AsyncClient": "blindai.client.async_client",
    "Client": "blindai.client.sync_client",
    "Endorsements": "blindai.client.own_endorsements",
    "Policy": "blindai.attestation.policy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blindai' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
