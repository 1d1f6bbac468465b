"""What the server exposes: every door ends here.

`ROUTES` is the whole list. Leaves out: how requests come in (the doors) and who may do what (there is one tenant,
`public`, until access control exists).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import blindai
from blindai.bundle import MODEL_NAME
from blindai.errors import ChannelError, InferenceError, InternalError, ModelNotFoundError, ModelStoreError
from blindai.server import repository
from blindai.server.calls import Call, Reply, error_reply
from blindai.server.infer import infer
from blindai.server.log import LOG
from blindai.server.metrics import Metrics
from blindai.wire import compact_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blindai.server.budget import BodyBudget
    from blindai.server.model_store import ModelStore
    from blindai.server.settings import Settings
    from blindai.server.worker_pool import WorkerPool

    Handler = Callable[["Service", Call, re.Match[str]], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What handlers work on."""

    settings: Settings
    store: ModelStore
    pool: WorkerPool
    bodies: BodyBudget
    metrics: Metrics = field(default_factory=Metrics)


async def dispatch(service: Service, call: Call) -> Reply:
    """Route one request and run it; a failure becomes a reply that says nothing of anybody's data.

    Raises:
        ChannelError: the request itself broke while it was read; only its door can answer that.
    """
    begun_s = time.monotonic()
    reply = await _run(service, call)
    service.metrics.answered(call.door, reply.status, time.monotonic() - begun_s)
    return reply


async def _run(service: Service, call: Call) -> Reply:
    try:
        handler, match = _find(call)
        return await handler(service, call, match)
    except (InferenceError, ModelStoreError) as error:
        LOG.info("request refused: %s", error.code)
        service.metrics.failed(error.code)
        return error_reply(error)
    except ChannelError:
        raise
    except Exception as error:  # noqa: BLE001  # the last line of defence: nobody's data may reach the log or the peer
        LOG.error("request failed: %s", type(error).__name__)  # a traceback can hold values
        service.metrics.failed(InternalError.code)
        return error_reply(error)


async def _server_metadata(service: Service, call: Call, _match: re.Match[str]) -> Reply:
    """OIP §3.2.3."""
    await call.read_no_body()
    members = {
        "name": "blindai",
        "version": blindai.__version__,
        "extensions": ["binary_tensor_data", "model_repository"],
        "service": service.settings.service,
    }
    return Reply(headers=(("content-type", "application/json"),), body=(compact_json(members),))


async def _infer(service: Service, call: Call, match: re.Match[str]) -> Reply:
    call.let_leave_cancel()
    with service.bodies.share() as share:
        return await infer(
            call,
            reference=match["reference"],
            version=match["version"],
            store=service.store,
            pool=service.pool,
            max_body_bytes=service.settings.max_body_bytes,
            share=share,
        )


async def _metadata(service: Service, call: Call, match: re.Match[str]) -> Reply:
    await call.read_no_body()
    return await repository.metadata(
        call.principal,
        reference=match["reference"],
        version=match["version"],
        store=service.store,
        pool=service.pool,
    )


async def _index(service: Service, call: Call, _match: re.Match[str]) -> Reply:
    await call.read_no_body()
    return repository.index(service.store)


async def _upload(service: Service, call: Call, match: re.Match[str]) -> Reply:
    return await repository.upload(
        call, name=match["name"], store=service.store, pool=service.pool, settings=service.settings
    )


async def _delete(service: Service, call: Call, match: re.Match[str]) -> Reply:
    await call.read_no_body()
    return await repository.delete(
        reference=match["reference"], version=match["version"], store=service.store, pool=service.pool
    )


_NAME = MODEL_NAME.pattern.removesuffix(r"\Z")
_MODEL = r"/v2/models/(?P<reference>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_STORED = r"/v2/repository/models/(?P<reference>[^/]+)(?:/versions/(?P<version>[^/]+))?"

ROUTES: tuple[tuple[str, re.Pattern[str], Handler], ...] = (
    ("GET", re.compile(r"/v2"), _server_metadata),
    ("POST", re.compile(_MODEL + "/infer"), _infer),
    ("GET", re.compile(_MODEL), _metadata),
    ("POST", re.compile("/v2/repository/index"), _index),
    ("POST", re.compile(rf"/v2/repository/models/(?P<name>{_NAME})/upload"), _upload),
    ("DELETE", re.compile(_STORED), _delete),
)


def _find(call: Call) -> tuple[Handler, re.Match[str]]:
    for method, path, handler in ROUTES:
        match = path.fullmatch(call.path) if method == call.method else None
        if match:
            return handler, match
    raise ModelNotFoundError("nothing is served under this method and path")
