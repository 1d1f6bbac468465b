"""Servers for these tests: one that most share, and as many of its own as a test asks for.

Leaves out: a server inside the test's process; here everything crosses a real socket, as it does for users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e.running_server import RunningServer

import blindai

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai import Client


def _require_quiet(server: RunningServer) -> None:
    """No request may break the server's own code, whatever it holds."""
    lines = server.log.splitlines()
    bad = [line for line in lines if "Traceback" in line or " ERROR " in line or "Error:" in line]
    assert not bad, server.log


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server that tests share: each gives its models names of its own."""
    server = RunningServer(tmp_path_factory.mktemp("server") / "stderr.log")
    try:
        yield server.url
    finally:
        server.stop()
    _require_quiet(server)


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers that are empty and may be killed."""
    servers: list[RunningServer] = []

    def start(port: int = 0, options: tuple[str, ...] = ()) -> RunningServer:
        servers.append(RunningServer(tmp_path_factory.mktemp("server") / "stderr.log", port=port, options=options))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.stop()
    for server in servers:
        _require_quiet(server)


@pytest.fixture
def empty_server(start_server: Callable[..., RunningServer]) -> RunningServer:
    """A server that nobody else uses."""
    return start_server()


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    """A client of the shared server."""
    with blindai.connect(server_url, insecure_simulation=True) as connected:
        yield connected
