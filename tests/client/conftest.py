"""A scripted HTTPS server, and each of the two transports to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from client.scripted_server import Server, server_context
from client.transport_clients import AsyncClient, Client, SyncClient

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def tls_context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return server_context(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(tls_context: ssl.SSLContext) -> Iterator[Server]:
    server = Server(tls_context)
    yield server
    server.stop()


@pytest.fixture(params=[SyncClient, AsyncClient], ids=["sync", "async"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    client = request.param(server.url)
    yield client
    client.close()
