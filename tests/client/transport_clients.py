"""The two transports behind one blocking `send`, so that each test runs against both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from blindai.client.http_async import AsyncTransport
from blindai.client.http_sync import SyncTransport
from blindai.client.transport import HttpRequest

if TYPE_CHECKING:
    from blindai.client.transport import HttpResponse, ServerUrl

MIB = 1 << 20


class SyncClient:
    def __init__(self, url: ServerUrl) -> None:
        self.transport = SyncTransport(url)

    def send(self, request: HttpRequest) -> HttpResponse:
        return self.transport.send(request)

    def close(self) -> None:
        self.transport.close()


class AsyncClient:
    """Its event loop stands still between two requests, as behind a caller's long computation."""

    def __init__(self, url: ServerUrl) -> None:
        self.runner = asyncio.Runner()
        self.transport = AsyncTransport(url)

    def send(self, request: HttpRequest) -> HttpResponse:
        return self.runner.run(self.transport.send(request))

    def close(self) -> None:
        self.runner.run(self.transport.close())
        self.runner.run(asyncio.sleep(0.02))  # where aiohttp closed TLS itself, asyncio waits for the server's goodbye
        self.runner.close()


Client = SyncClient | AsyncClient


def post(body: Any = b"data", **changes: Any) -> HttpRequest:
    values: dict[str, Any] = {"method": "POST", "path": "/v1/sealed?a=%2F", "max_body_bytes": 4 * MIB, "timeout_s": 10}
    return HttpRequest(body=body, **{**values, **changes})
