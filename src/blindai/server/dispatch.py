"""What the server exposes: every door ends here.

`ROUTES` is the whole list, and says which roles may come in where. Leaves out: how requests come in (the doors), who
asks (authentication.py) and whose models it sees (tenant_models.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.errors import (
    ChannelError,
    InferenceError,
    InternalError,
    MethodNotAllowedError,
    ModelNotFoundError,
    ModelStoreError,
)
from blindai.server import access_routes, model_control, model_metadata, openapi, repository, server_metadata
from blindai.server.access import ANY_ROLE, TO_ADMINISTER, TO_INFER, TO_UPLOAD
from blindai.server.calls import Call, Reply, error_reply
from blindai.server.infer import infer
from blindai.server.log import LOG
from blindai.server.metrics import Metrics
from blindai.server.model_states import ModelStates
from blindai.server.readiness import LIVE_PATH, READY_PATH, Readiness
from blindai.server.routes import Route, RouteTable, methods_of
from blindai.server.statistics_view import all_statistics, model_statistics
from blindai.server.store_changes import StoreChanges
from blindai.server.tenant_models import TenantModels

if TYPE_CHECKING:
    from blindai.server.access import Principal, Role
    from blindai.server.authentication import Access
    from blindai.server.budget import BodyBudget
    from blindai.server.model_store import ModelStore
    from blindai.server.quotas import RunSlots
    from blindai.server.routes import Found, Handler
    from blindai.server.settings import Settings
    from blindai.server.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What handlers work on."""

    settings: Settings
    store: ModelStore
    pool: WorkerPool
    bodies: BodyBudget
    access: Access
    runs: RunSlots
    readiness: Readiness = field(default_factory=Readiness)
    metrics: Metrics = field(default_factory=Metrics)
    states: ModelStates = field(default_factory=ModelStates)
    changes: StoreChanges = field(default_factory=StoreChanges)

    def models_of(self, principal: Principal) -> TenantModels:
        """The store as this principal sees it; handlers use nothing else."""
        return TenantModels(store=self.store, tenant=principal.tenant)


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
        found = TABLE.at(call.path)
        method = "GET" if call.method == "HEAD" else call.method
        for route, target in found:
            if route.method == method:
                call.principal.require(route.roles)
                return await route.handler(service, call, target)
        return _not_served(found)
    except (InferenceError, ModelStoreError) as error:
        LOG.info("request refused: %s", error.code)
        service.metrics.failed(error.code)
        return error_reply(_without_frames(error))
    except ChannelError:
        raise
    except Exception as error:  # noqa: BLE001  # the last line of defence: nobody's data may reach the log or the peer
        LOG.error("request failed: %s", type(error).__name__)  # a traceback can hold values
        service.metrics.failed(InternalError.code)
        return error_reply(_without_frames(error))


def _without_frames(error: Exception) -> Exception:
    """Its traceback holds the request, which holds its outcome: all tensors would stay until the collector looked."""
    return error.with_traceback(None)


def _not_served(found: Found) -> Reply:
    if not found:
        return error_reply(ModelNotFoundError("nothing is served under this path"))
    error = MethodNotAllowedError("this path is served under other methods")
    return error_reply(error, ("allow", methods_of(found)))


def _route(method: str, path: str, handler: Handler, roles: frozenset[Role] = ANY_ROLE) -> Route:
    return Route(method=method, path=path, handler=handler, roles=roles)


_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_STORED = "/v2/repository/models/{model}"
_KEYS, _REVOCATIONS = "/v2/access/keys", "/v2/access/revocations"

ROUTES: tuple[Route, ...] = (
    _route("GET", LIVE_PATH, server_metadata.live),
    _route("GET", READY_PATH, server_metadata.ready),
    _route("GET", "/v2", server_metadata.server_metadata),
    _route("GET", "/v2/", server_metadata.server_metadata),
    _route("GET", "/v2/openapi.json", openapi.document),
    _route("GET", "/openapi.json", openapi.document),
    _route("GET", "/v2/models", model_metadata.names),
    _route("GET", "/v2/models/stats", all_statistics),
    *(
        route
        for path in (_MODEL, _VERSION)
        for route in (
            _route("POST", path + "/infer", infer, TO_INFER),
            _route("GET", path, model_metadata.metadata),
            _route("GET", path + "/ready", model_metadata.ready),
            _route("GET", path + "/config", model_metadata.config),
            _route("GET", path + "/stats", model_statistics),
        )
    ),
    _route("POST", "/v2/repository/index", model_control.index),
    _route("POST", _STORED + "/load", model_control.load, TO_UPLOAD),
    _route("POST", _STORED + "/unload", model_control.unload, TO_UPLOAD),
    _route("GET", "/v2/repository/models", repository.models),
    _route("POST", _STORED + "/upload", repository.upload, TO_UPLOAD),
    _route("DELETE", _STORED, repository.delete, TO_UPLOAD),
    _route("DELETE", _STORED + "/versions/{version}", repository.delete, TO_UPLOAD),
    _route("GET", _STORED + "/sharing", access_routes.read_sharing, TO_UPLOAD),
    _route("POST", _STORED + "/sharing", access_routes.decide_sharing, TO_UPLOAD),
    _route("GET", _KEYS, access_routes.list_keys, TO_ADMINISTER),
    _route("POST", _KEYS, access_routes.create_key, TO_ADMINISTER),
    _route("DELETE", _KEYS + "/{id}", access_routes.revoke_key, TO_ADMINISTER),
    _route("GET", _REVOCATIONS, access_routes.list_revocations, TO_ADMINISTER),
    _route("POST", _REVOCATIONS, access_routes.revoke_tokens, TO_ADMINISTER),
    _route("DELETE", _REVOCATIONS + "/{id}", access_routes.lift_revocation, TO_ADMINISTER),
    *(
        _route(method, path, server_metadata.left_out)
        for path in server_metadata.LEFT_OUT
        for method in ("GET", "POST")
    ),
)
TABLE = RouteTable(ROUTES)
