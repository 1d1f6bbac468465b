"""Our HTTP server on a free port with a handler of the test's own, and raw bytes to and from it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blindai.errors import ConnectionLostError
from blindai.server.http_server import HttpServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blindai.server.http_limits import HttpLimits
    from blindai.server.http_request import HttpRequest

SOON_S = 10.0


@dataclass(slots=True)
class App:
    """Reads a body and answers its length, or `answer_bytes` after `answer_after_s`; notes how each request ended."""

    answer_bytes: int = 0
    answer_after_s: float = 0.0
    ends: list[str] = field(default_factory=list)

    async def __call__(self, request: HttpRequest) -> None:
        try:
            await self._answer(request)
        except ConnectionLostError:
            self.ends.append("left")
            raise
        self.ends.append("answered")

    async def _answer(self, request: HttpRequest) -> None:
        size = 0
        async for piece in request.body():
            size += len(piece)
        await asyncio.sleep(self.answer_after_s)
        if not self.answer_bytes:
            await request.answer(200, str(size).encode())
            return
        await request.begin(200, ())
        for _ in range(0, self.answer_bytes, 65536):
            await request.write(bytes(65536))
        await request.end()


@dataclass(frozen=True, slots=True)
class Running:
    port: int
    state: HttpServer
    opened: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened.append(writer)
        return reader, writer

    async def close_all(self) -> None:
        """Every connection that a test opened, whatever the test did with it."""
        for writer in self.opened:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def is_empty(self) -> bool:
        """Whether every connection is gone, soon."""
        async with asyncio.timeout(SOON_S):
            while self.state.connections:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)
        return True


@asynccontextmanager
async def running(app: Any, limits: HttpLimits) -> AsyncIterator[Running]:
    server = HttpServer(app, limits)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.listen(listener)
    site = Running(listener.getsockname()[1], server)
    try:
        yield site
    finally:
        await server.drain(0)
        await site.close_all()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end of the connection, which must come."""
    received = bytearray()
    async with asyncio.timeout(SOON_S):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                received += piece
    return bytes(received)


async def exchange(server: Running, request: bytes) -> bytes:
    reader, writer = await server.connect()
    writer.write(request)
    answer = await answer_of(reader)
    writer.close()
    return answer
