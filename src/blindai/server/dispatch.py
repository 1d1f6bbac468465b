"""What the server exposes: every door ends here.

`ROUTES` is the whole list, and says which roles may come in where. Leaves out: how requests come in (the doors), who
asks (authentication.py) and whose models it sees (tenant_models.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import blindai
from blindai.bundle import MODEL_NAME
from blindai.errors import ChannelError, InferenceError, ModelNotFoundError, ModelStoreError
from blindai.server import access_routes, repository
from blindai.server.access import ANY_ROLE, TO_ADMINISTER, TO_INFER, TO_UPLOAD
from blindai.server.calls import Call, Reply, error_reply
from blindai.server.infer import infer
from blindai.server.log import LOG
from blindai.server.tenant_models import TenantModels
from blindai.wire import compact_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blindai.server.access import Principal, Role
    from blindai.server.authentication import Access
    from blindai.server.budget import BodyBudget
    from blindai.server.model_store import ModelStore
    from blindai.server.quotas import RunSlots
    from blindai.server.settings import Settings
    from blindai.server.sharing import Sharing
    from blindai.server.worker_pool import WorkerPool

    Handler = Callable[["Service", Call, re.Match[str]], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What handlers work on."""

    settings: Settings
    store: ModelStore
    pool: WorkerPool
    bodies: BodyBudget
    access: Access
    sharing: Sharing
    runs: RunSlots

    def models_of(self, principal: Principal) -> TenantModels:
        """The store as this principal sees it; handlers use nothing else."""
        return TenantModels(store=self.store, sharing=self.sharing, tenant=principal.tenant)


async def dispatch(service: Service, call: Call) -> Reply:
    """Route one request and run it; a failure becomes a reply that says nothing of anybody's data.

    Raises:
        ChannelError: the request itself broke while it was read; only its door can answer that.
    """
    try:
        handler, match, roles = _find(call)
        call.principal.require(roles)
        return await handler(service, call, match)
    except (InferenceError, ModelStoreError) as error:
        LOG.info("request refused: %s", error.code)
        return error_reply(error)
    except ChannelError:
        raise
    except Exception as error:  # noqa: BLE001  # the last line of defence: nobody's data may reach the log or the peer
        LOG.error("request failed: %s", type(error).__name__)  # a traceback can hold values
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
    with service.runs.run(call.principal.tenant), service.bodies.share() as share:
        return await infer(
            call,
            reference=match["reference"],
            version=match["version"],
            store=service.models_of(call.principal),
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
        store=service.models_of(call.principal),
        pool=service.pool,
    )


async def _index(service: Service, call: Call, _match: re.Match[str]) -> Reply:
    await call.read_no_body()
    return repository.index(service.models_of(call.principal))


async def _upload(service: Service, call: Call, match: re.Match[str]) -> Reply:
    return await repository.upload(
        call,
        name=match["name"],
        store=service.models_of(call.principal),
        pool=service.pool,
        settings=service.settings,
    )


async def _delete(service: Service, call: Call, match: re.Match[str]) -> Reply:
    await call.read_no_body()
    return await repository.delete(
        reference=match["reference"],
        version=match["version"],
        store=service.models_of(call.principal),
        pool=service.pool,
    )


_NAME = MODEL_NAME.pattern.removesuffix(r"\Z")
_MODEL = r"/v2/models/(?P<reference>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_STORED = r"/v2/repository/models/(?P<reference>[^/]+)(?:/versions/(?P<version>[^/]+))?"

_NAMED = rf"/v2/repository/models/(?P<name>{_NAME})"
_REVOCATIONS, _KEYS = "/v2/access/revocations", "/v2/access/keys"

# Method, path, handler, and the roles of which one suffices.
ROUTES: tuple[tuple[str, re.Pattern[str], Handler, frozenset[Role]], ...] = (
    ("GET", re.compile(r"/v2"), _server_metadata, ANY_ROLE),
    ("POST", re.compile(_MODEL + "/infer"), _infer, TO_INFER),
    ("GET", re.compile(_MODEL), _metadata, ANY_ROLE),
    ("POST", re.compile("/v2/repository/index"), _index, ANY_ROLE),
    ("POST", re.compile(_NAMED + "/upload"), _upload, TO_UPLOAD),
    ("DELETE", re.compile(_STORED), _delete, TO_UPLOAD),
    ("GET", re.compile(_NAMED + "/sharing"), access_routes.read_sharing, TO_UPLOAD),
    ("POST", re.compile(_NAMED + "/sharing"), access_routes.decide_sharing, TO_UPLOAD),
    ("GET", re.compile(_KEYS), access_routes.list_keys, TO_ADMINISTER),
    ("POST", re.compile(_KEYS), access_routes.create_key, TO_ADMINISTER),
    ("DELETE", re.compile(_KEYS + r"/(?P<id>[a-z0-9-]{1,32})"), access_routes.revoke_key, TO_ADMINISTER),
    ("GET", re.compile(_REVOCATIONS), access_routes.list_revocations, TO_ADMINISTER),
    ("POST", re.compile(_REVOCATIONS), access_routes.revoke_tokens, TO_ADMINISTER),
    ("DELETE", re.compile(_REVOCATIONS + r"/(?P<id>[0-9a-f]{12})"), access_routes.lift_revocation, TO_ADMINISTER),
)


def _find(call: Call) -> tuple[Handler, re.Match[str], frozenset[Role]]:
    for method, path, handler, roles in ROUTES:
        match = path.fullmatch(call.path) if method == call.method else None
        if match:
            return handler, match, roles
    raise ModelNotFoundError("nothing is served under this method and path")
