"""Whether the server lives and is ready, and what it is (OIP, health and server metadata), for who asks through a door.

Nothing here says anything of anybody's models. Leaves out: health asked before anybody is known (`health`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import blindai
from blindai.errors import NotSupportedError
from blindai.server.calls import JSON, Reply, json_reply

if TYPE_CHECKING:
    from blindai.server.calls import Call
    from blindai.server.dispatch import Service
    from blindai.server.routes import Target

# Each works as its page says: https://github.com/triton-inference-server/server/tree/main/docs/protocol
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)


# Paths of Triton's that answer why they are not here (docs/guides/serving.md).
_REGIONS = ("/v2/systemsharedmemory", "/v2/cudasharedmemory")
LEFT_OUT = (
    "/v2/logging",
    "/v2/trace/setting",
    "/v2/models/{model}/trace/setting",
    *(region + path for region in _REGIONS for path in ("/status", "/unregister")),
    *(f"{region}/region/{{id}}/{verb}" for region in _REGIONS for verb in ("status", "register", "unregister")),
)


async def live(_service: Service, call: Call, _target: Target) -> Reply:
    """It answers."""
    await call.read_no_body()
    return Reply(headers=JSON, body=(b'{"live":true}',))


async def ready(service: Service, call: Call, _target: Target) -> Reply:
    """Whether requests are taken: not while models load at start, and not while the server ends."""
    await call.read_no_body()
    if service.readiness.is_ready:
        return Reply(headers=JSON, body=(b'{"ready":true}',))
    return Reply(
        status=503, headers=JSON, body=(b'{"ready":false,"error":"models are still loading, or the server ends"}',)
    )


async def server_metadata(service: Service, call: Call, _target: Target) -> Reply:
    """Name, version and extensions; `service` is ours."""
    await call.read_no_body()
    return json_reply(
        {
            "name": "blindai",
            "version": blindai.__version__,
            "extensions": EXTENSIONS,
            "service": service.settings.service,
        }
    )


async def left_out(_service: Service, _call: Call, _target: Target) -> Reply:
    """What Triton has and a confidential server must not (docs/guides/serving.md).

    Raises:
        NotSupportedError: always.
    """
    raise NotSupportedError(
        "shared memory, tracing and log settings are not served over the network",
        hint="tensors come in the request; nothing else may be read or written by a client",
    )
