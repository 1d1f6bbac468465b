"""Plain OIP over gRPC on this machine: the same RPCs as the server's own door, forwarded as sealed requests."""

from __future__ import annotations

import contextlib
import errno
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc.aio

from blindai.oip.grpc.handlers import Handlers
from blindai.oip.grpc.translate import RestAnswer, RestRequest
from blindai.proxy.messages import LocalRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from blindai.proxy.forward import Forwarder

_MAX_MESSAGE_BYTES = (1 << 31) - 1
_OK = 200
_LOG = logging.getLogger("blindai.proxy")


class ProxyDoor:
    """What the RPCs need of the proxy (`handlers.Door`)."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def admit(self, authorization: str | None) -> Callable[[RestRequest], Awaitable[RestAnswer]]:
        """Anybody of this machine; the server decides about the credential."""
        return partial(self._answer, authorization)

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """The memory is the user's own."""
        del size
        yield

    async def ready(self) -> bool:
        """Whether the server is verified, and says that it is ready."""
        return (await self._forwarder.ready()).status == _OK

    def failed(self, error: Exception) -> None:
        """Say that something of ours broke, and nothing of the request."""
        _LOG.error("a request failed: %s", type(error).__name__)

    async def _answer(self, authorization: str | None, request: RestRequest) -> RestAnswer:
        who = (("authorization", authorization),) if authorization is not None else ()
        answer = await self._forwarder.forward(
            LocalRequest(
                method=request.method,
                path=request.path,
                headers=(*request.headers, *who),
                body=b"".join(request.body),
            )
        )
        return RestAnswer(status=answer.status, headers=answer.headers, body=(answer.body,))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcFront:
    """A running listener, and the port that it got."""

    port: int
    _server: Any = field(repr=False)
    _handlers: Handlers = field(repr=False)

    async def stop(self, grace_s: float) -> None:
        """Take no more RPCs, and end when those under way have; cancel them after `grace_s`."""
        self._handlers.close()
        await self._server.stop(grace_s)


async def start_grpc(forwarder: Forwarder, address: str) -> GrpcFront:
    """Listen without TLS, since only this machine can reach it.

    Raises:
        OSError: the port is taken.
    """
    handlers = Handlers(ProxyDoor(forwarder))
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.so_reuseport", 0),  # another process could listen beside us and take some of the connections
    ]
    server = grpc.aio.server(handlers=[handlers], options=options)
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(errno.EADDRINUSE, "nothing can listen there", address) from None
    await server.start()
    return GrpcFront(port=port, _server=server, _handlers=handlers)
