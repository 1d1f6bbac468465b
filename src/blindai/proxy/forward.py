"""From a local request to a sealed one and back: whose connection it takes, and what its failure looks like.

Each principal (whoever a local `Authorization` header names) has a connection of its own, and so a session of its own;
a request without one takes the proxy's own credential. Leaves out: who listens (`http_front`, `grpc_front`).
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.client.async_client import AsyncClient
from blindai.client.exchange_flow import SealedRequest
from blindai.errors import BlindAIError, InferenceError, ModelStoreError, RejectedEvidenceError
from blindai.wire import compact_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.policy import Policy
    from blindai.client.attestation_view import Attestation

MAX_PRINCIPALS = 256
_RETRY = frozenset({429, 503})
# What may run twice without harm, should the server have forgotten our keys: everything but management.
_REPEATABLE = re.compile(
    r"/v2(/models(/[^/]+(/versions/[^/]+)?(/(infer|ready|config|stats))?|/stats)?|/repository/index)?/?"
)
_PASSED_ON = frozenset(
    {"content-encoding", "accept", "accept-encoding", "if-match", "inference-header-content-length", "retry-after"}
)
_BEARER = "Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """Which server, and what is accepted as proof; as `AsyncClient`'s arguments.

    Attributes:
        credential: gives the API key or token of requests that bring none; None sends none.
    """

    url: str
    policy: Policy
    service: str
    level: str
    timeout_s: float = 120.0
    credential: Callable[[], str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRequest:
    """One request of a local program; `path` percent-encoded, header names in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAnswer:
    """What it gets back."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


class Forwarder:
    """Sends local requests to one server, sealed; belongs to one event loop."""

    def __init__(self, options: ProxyOptions) -> None:
        self._options = options
        self._clients: OrderedDict[str, AsyncClient] = OrderedDict()  # by Authorization, the idlest first
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def server(self) -> str:
        """The address that it forwards to."""
        return self._options.url

    async def verify(self) -> Attestation:
        """What the server proves now; attests it if no living keys are held.

        Raises:
            RejectedEvidenceError: it is not what the policy accepts.
            ChannelError: it cannot be reached, or is another service.
        """
        client = await self._client(None).connect()
        return client.attestation

    async def forward(self, request: LocalRequest) -> LocalAnswer:
        """Answer one request; a failure is an answer too."""
        try:
            return await self._forward(request)
        except (InferenceError, ModelStoreError) as error:
            return refusal(error.status, error)
        except RejectedEvidenceError as error:
            return refusal(503, error, prefix="the server is not verified, so nothing was sent: ")
        except BlindAIError as error:
            return refusal(502, error)

    async def close(self) -> None:
        """Forget every key, session and credential."""
        clients, self._clients = tuple(self._clients.values()), OrderedDict()
        await asyncio.gather(*(client.close() for client in clients), *self._closing)

    async def _forward(self, request: LocalRequest) -> LocalAnswer:
        content_type = next((value for name, value in request.headers if name == "content-type"), "")
        answer = await self._client(request.authorization).send_raw(
            SealedRequest(
                method=request.method,
                path=request.path,
                headers=tuple((name, value) for name, value in request.headers if name in _PASSED_ON),
                content_type=content_type,
                body=lambda: (request.body,),
                repeatable=_REPEATABLE.fullmatch(request.path) is not None,
            )
        )
        ours = (("blindai-level", answer.level), ("blindai-receipt", answer.receipt))
        return LocalAnswer(status=answer.status, headers=(*answer.headers, *ours), body=answer.body)

    def _client(self, authorization: str | None) -> AsyncClient:
        """The principal's own connection; the idlest of too many goes."""
        key = authorization or ""
        if key not in self._clients:
            self._clients[key] = self._open(authorization)
            if len(self._clients) > MAX_PRINCIPALS:
                _, idlest = self._clients.popitem(last=False)
                closing = asyncio.create_task(idlest.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        self._clients.move_to_end(key)
        return self._clients[key]

    def _open(self, authorization: str | None) -> AsyncClient:
        options = self._options
        return AsyncClient(
            options.url,
            policy=options.policy,
            service=options.service,
            level=options.level,
            timeout_s=options.timeout_s,
            token=authorization.removeprefix(_BEARER) if authorization else options.credential,
        )


def refusal(status: int, error: BlindAIError, *, prefix: str = "") -> LocalAnswer:
    """A failure in the protocol's form, with our code and hint beside it."""
    members = {
        "error": f"{prefix}{error}" if str(error) else prefix or error.code,
        "code": error.code,
        "hint": error.hint,
    }
    headers = (("content-type", "application/json"), *((("retry-after", "1"),) if status in _RETRY else ()))
    return LocalAnswer(status=status, headers=headers, body=compact_json(members))
