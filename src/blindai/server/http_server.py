"""Listening sockets and the connections that came of them: accept, watch deadlines, drain.

Leaves out: HTTP itself (http_protocol.py) and what is served (app.py, metrics_listener.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import time
from typing import TYPE_CHECKING

from blindai.server.http_limits import HttpLimits
from blindai.server.http_protocol import HttpConnection

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable

    from blindai.server.http_request import HttpRequest

_SHUTDOWN_S = 5.0  # for the other side's end of TLS


class HttpServer:
    """Serves one handler on any number of sockets; belongs to one event loop.

    Attributes:
        handler: answers one request.
        connections: those that are open.
        is_draining: whether it takes no more requests.
        received_bytes: since it began, as HTTP.
        sent_bytes: likewise.
    """

    def __init__(self, handler: Callable[[HttpRequest], Awaitable[None]], limits: HttpLimits | None = None) -> None:
        self.handler = handler
        self.limits = limits or HttpLimits()
        self.connections: set[HttpConnection] = set()
        self.is_draining = False
        self.received_bytes = self.sent_bytes = 0
        self._listeners: list[asyncio.Server] = []
        self._watching: asyncio.Task[None] | None = None
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._date: tuple[int, bytes] = (0, b"")

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        accepting = await loop.create_server(
            lambda: HttpConnection(self),
            sock=listener,
            ssl=tls,
            backlog=2048,
            ssl_handshake_timeout=None if tls is None else self.limits.head_timeout_s,
            ssl_shutdown_timeout=None if tls is None else _SHUTDOWN_S,
        )
        self._listeners.append(accepting)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def drain(self, timeout_s: float) -> None:
        """Accept nothing more, let running requests end, cut those that take longer than `timeout_s`.

        A connection that only waits is cut at once: a client that keeps one open would never answer the end of its TLS.
        """
        self.is_draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            if connection.is_idle:
                connection.cut()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while tasks := self._tasks():
                    await asyncio.wait(tasks)
                await self._none_left.wait()  # answers that are on their way, as long as their clients read
        await self._cut_all()

    def join(self, connection: HttpConnection) -> None:
        """From a connection: it is open."""
        self.connections.add(connection)
        self._none_left.clear()

    def leave(self, connection: HttpConnection) -> None:
        """From a connection: it has ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._none_left.set()

    def date_line(self) -> bytes:
        """The `Date` header (RFC 9110 §6.6.1)."""
        now_s = int(time.time())
        if now_s != self._date[0]:
            self._date = now_s, f"date: {email.utils.formatdate(now_s, usegmt=True)}\r\n".encode()
        return self._date[1]

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [connection.task for connection in self.connections if connection.task is not None]

    async def _cut_all(self) -> None:
        tasks = self._tasks()
        for connection in list(self.connections):
            connection.cut()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.limits.tick_s)
            now_s = asyncio.get_running_loop().time()
            for connection in list(self.connections):
                connection.check(now_s)
