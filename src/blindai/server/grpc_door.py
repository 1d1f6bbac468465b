"""The gRPC door: a TLS listener of its own, whose every RPC becomes a call and goes where all calls go.

Plain to whoever holds the TLS key, which the attested keyset names; without reflection, and with no word about itself.
Messages compressed with gzip are read, up to the limit of what they inflate to; answers are never compressed, since
their length would then tell of what is in them.
Leaves out: what RPCs mean (`oip.grpc`), and what is done with a call (`dispatch`).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from blindai.errors import BlindAIError, InvalidSettingsError
from blindai.oip.grpc.failures import RpcError, code_of
from blindai.oip.grpc.handlers import Handlers
from blindai.oip.grpc.translate import RestAnswer, RestRequest
from blindai.server.calls import Call, wire_error
from blindai.server.dispatch import Service, dispatch
from blindai.server.log import LOG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from blindai.server.access import Principal
    from blindai.server.settings import Settings
    from blindai.server.tls_identity import TlsIdentity

_MAX_MESSAGE_BYTES = 2**31 - 1
_REPOSITORY = "/v2/repository/"
_MAX_STREAMS = 128  # RPCs of one connection at a time


@dataclass(slots=True, kw_only=True)
class GrpcDoor:
    """The listener; `start` and `stop` on the server's event loop.

    Attributes:
        service: what stands behind every door.
        tls: the instance's key, as at the HTTPS port.
        authenticate: the principal of an `authorization` metadata value, or of none.
        is_ready: whether requests can be answered now.
    """

    service: Service
    tls: TlsIdentity
    authenticate: Callable[[str | None], Principal]
    is_ready: Callable[[], bool]
    _server: Any = field(default=None, repr=False)
    _handlers: Handlers | None = field(default=None, repr=False)

    async def start(self) -> str:
        """Listen; the address with the port, which the settings may have left open.

        Raises:
            InvalidSettingsError: nobody can listen there.
        """
        settings = self.service.settings
        self._handlers = Handlers(self)
        self._server = grpc.aio.server(
            handlers=[self._handlers],
            options=_options(settings),
            maximum_concurrent_rpcs=settings.max_connections,
        )
        credentials = grpc.ssl_server_credentials([(self.tls.private_key_pem, self.tls.certificate_pem)])
        try:
            port: int = self._server.add_secure_port(_address(settings, settings.grpc_listen_port), credentials)
        except RuntimeError:
            raise InvalidSettingsError(
                f"nothing can listen on {_address(settings, settings.grpc_port)}",
                hint="another grpc_port, or 0 for a free one",
            ) from None
        await self._server.start()
        return _address(settings, port)

    async def stop(self, grace_s: float) -> None:
        """Take no more RPCs, and end when those under way have; cancel them after `grace_s`."""
        if self._handlers is not None:
            self._handlers.close()
        if self._server is not None:
            await self._server.stop(grace_s)

    # ---- What the handlers ask (`oip.grpc.handlers.Door`)

    def admit(self, authorization: str | None) -> Callable[[RestRequest], Awaitable[RestAnswer]]:
        """The principal's way to `dispatch`.

        Raises:
            RpcError: nobody known.
        """
        try:
            principal = self.authenticate(authorization)
        except BlindAIError as error:
            raise _failure(error) from None

        return partial(self._answer, principal)

    async def _answer(self, principal: Principal, request: RestRequest) -> RestAnswer:
        call = Call(
            principal=principal,
            method=request.method,
            path=request.path,
            headers=dict(reversed(request.headers)),  # of two, the first
            body=_pieces(request.body),
            door="grpc",
        )
        if request.path.startswith(_REPOSITORY):  # a client that leaves does not leave a change half done
            reply = await asyncio.shield(asyncio.ensure_future(dispatch(self.service, call)))
        else:
            reply = await dispatch(self.service, call)
        return RestAnswer(status=reply.status, headers=reply.headers, body=tuple(map(memoryview, reply.body)))

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """A message's memory, out of what all bodies share.

        Raises:
            RpcError: there is none left.
        """
        with self.service.bodies.share() as share:
            try:
                share.take(size)
            except BlindAIError as error:
                raise _failure(error) from None
            yield

    async def ready(self) -> bool:
        """Whether requests can be answered now."""
        return self.is_ready()

    def failed(self, error: Exception) -> None:
        """A mistake of ours, by its kind only: its words can hold values."""
        LOG.error("a gRPC request failed: %s", type(error).__name__)


async def _pieces(body: tuple[bytes | memoryview, ...]) -> AsyncIterator[memoryview]:
    for piece in body:
        yield memoryview(piece)


def _failure(error: BlindAIError) -> RpcError:
    status, words = wire_error(error)
    return RpcError(code_of(status), words.message)


def _address(settings: Settings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{port}"


def _options(settings: Settings) -> list[tuple[str, int]]:
    """Bounds of a connection: sizes both ways, streams, and how long a silent or a slow peer is kept."""
    max_message_bytes = min(settings.max_body_bytes, _MAX_MESSAGE_BYTES)
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.absolute_max_metadata_size", 16 * 1024),
        ("grpc.so_reuseport", 0),  # another process could listen beside us and take some of the connections
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.max_connection_idle_ms", 600_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.enable_channelz", 0),
    ]
