"""From a local request to a sealed one and back: whose connection it takes, and what its failure looks like.

Each principal (whoever a local `Authorization` header names) has a connection of its own, and so a session of its own;
a request without one takes the proxy's own credential. An answer of the server is passed on as it came, failures too;
what fails on the way is answered 502, and what fails because the server is not verified, 503.
Leaves out: what crosses the seal (`messages`), and who listens (`http_front`, `grpc_front`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.client.async_client import AsyncClient
from blindai.errors import (
    BlindAIError,
    EndorsementsUnavailableError,
    InferenceError,
    ModelStoreError,
    RejectedEvidenceError,
    WrongOperatorError,
    WrongServiceError,
)
from blindai.proxy.messages import LocalAnswer, LocalRequest, credential_of, refusal, sealed_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.policy import Policy
    from blindai.client.attestation_view import Attestation
    from blindai.client.own_endorsements import Endorsements

MAX_IDLE_PRINCIPALS = 256
READY_PATH = "/v2/health/ready"
_UNVERIFIED = (RejectedEvidenceError, EndorsementsUnavailableError, WrongServiceError, WrongOperatorError)
_LOG = logging.getLogger("blindai.proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """Which server, and what is accepted as proof; as `AsyncClient`'s arguments.

    Attributes:
        credential: gives the API key or token of requests that bring none; None sends none.
        endorsements: the proxy's own, in place of those that the server staples.
    """

    url: str
    policy: Policy
    service: str
    level: str
    timeout_s: float = 120.0
    credential: Callable[[], str] | None = field(default=None, repr=False)
    endorsements: Endorsements | None = None


@dataclass(slots=True, kw_only=True)
class _Principal:
    """One principal's connection, and how many of its requests are under way."""

    client: AsyncClient
    running: int = 0


class Forwarder:
    """Sends local requests to one server, sealed; belongs to one event loop."""

    def __init__(self, options: ProxyOptions) -> None:
        self._options = options
        self._endorsements = options.endorsements.open() if options.endorsements else None  # one for all principals
        self._principals: OrderedDict[str | None, _Principal] = OrderedDict()  # by credential, the idlest first
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def server(self) -> str:
        """The address that it forwards to."""
        return self._options.url

    async def verify(self) -> Attestation:
        """What the server proves; attests it if no living keys are held.

        Raises:
            RejectedEvidenceError: it is not what the policy accepts.
            ChannelError: it cannot be reached, or is another service.
        """
        client = self._principal(None).client
        await client.connect()
        return client.attestation

    async def ready(self) -> LocalAnswer:
        """Whether the server is verified, and says that it is ready."""
        return await self.forward(LocalRequest(method="GET", path=READY_PATH))

    async def forward(self, request: LocalRequest) -> LocalAnswer:
        """Answer one request; a failure is an answer too."""
        try:
            return await self._forward(request)
        except (InferenceError, ModelStoreError) as error:  # ours: the server's own come as answers
            return refusal(error, status=error.status)
        except _UNVERIFIED as error:
            _LOG.warning("the server is not verified: %s", error)
            return refusal(error, status=503, prefix="the server is not verified, so nothing was sent: ")
        except BlindAIError as error:
            return refusal(error, status=502)

    async def close(self) -> None:
        """Forget every key, session and credential."""
        principals, self._principals = tuple(self._principals.values()), OrderedDict()
        await asyncio.gather(*(principal.client.close() for principal in principals), *self._closing)

    async def _forward(self, request: LocalRequest) -> LocalAnswer:
        sealed, principal = sealed_request(request), self._principal(credential_of(request))
        principal.running += 1
        try:
            answer = await principal.client.send_raw(sealed)
        finally:
            principal.running -= 1
        receipt = (("blindai-receipt", answer.receipt),) if answer.receipt else ()
        return LocalAnswer(
            status=answer.status,
            headers=(*answer.headers, ("blindai-level", answer.level), *receipt),
            body=answer.body,
        )

    def _principal(self, credential: str | None) -> _Principal:
        """The principal's own connection; of too many, the idlest goes."""
        found = self._principals.get(credential)
        if found is None:
            found = self._principals[credential] = _Principal(client=self._open(credential))
            self._close_idlest()
        self._principals.move_to_end(credential)
        return found

    def _close_idlest(self) -> None:
        if len(self._principals) <= MAX_IDLE_PRINCIPALS:
            return
        idle = [key for key, principal in self._principals.items() if key is not None and not principal.running][:-1]
        for credential in idle[:1]:
            closing = asyncio.create_task(self._principals.pop(credential).client.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _open(self, credential: str | None) -> AsyncClient:
        options = self._options
        return AsyncClient(
            options.url,
            policy=options.policy,
            service=options.service,
            level=options.level,
            timeout_s=options.timeout_s,
            token=options.credential if credential is None else credential,
            endorsements=self._endorsements,
        )
