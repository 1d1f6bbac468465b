"""Plain OIP over gRPC on this machine: the same RPCs as the server's own door, forwarded as sealed requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

import grpc.aio

from blindai.errors import BlindAIError
from blindai.oip.grpc.handlers import Handlers
from blindai.oip.grpc.translate import RestAnswer, RestRequest
from blindai.proxy.forward import LocalRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.oip.grpc.handlers import Answerer
    from blindai.proxy.forward import Forwarder

MAX_MESSAGE_BYTES = (1 << 31) - 1
_LOG = logging.getLogger("blindai.proxy")


class ProxyDoor:
    """What the RPCs need of the proxy (`handlers.Door`)."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    def admit(self, authorization: str | None) -> Answerer:
        """Anybody of this machine; the server decides about the credential."""
        return partial(self._answer, authorization)

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """The memory is the user's own."""
        del size
        yield

    async def ready(self) -> bool:
        """Whether the server is verified."""
        try:
            await self._forwarder.verify()
        except BlindAIError:
            return False
        return True

    def failed(self, error: Exception) -> None:
        """Say that something of ours broke, and nothing of the request."""
        _LOG.error("a request failed: %s", type(error).__name__)

    async def _answer(self, authorization: str | None, request: RestRequest, deadline_s: float | None) -> RestAnswer:
        async with asyncio.timeout_at(deadline_s):
            answer = await self._forwarder.forward(
                LocalRequest(
                    method=request.method,
                    path=request.path,
                    headers=request.headers,
                    body=b"".join(request.body),
                    authorization=authorization,
                )
            )
        return RestAnswer(status=answer.status, headers=answer.headers, body=(answer.body,))


async def start_grpc(forwarder: Forwarder, address: str) -> tuple[grpc.aio.Server, int]:
    """Listen without TLS, since only this machine can reach it; returns the server and its port.

    Raises:
        OSError: the port is taken.
    """
    handlers = Handlers(ProxyDoor(forwarder))
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    server = grpc.aio.server(handlers=[handlers], options=[*options, ("grpc.so_reuseport", 0)])
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}") from error
    await server.start()
    return server, port
