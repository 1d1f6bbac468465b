"""The server that this suite asks: a process of its own with the suite's models in it.

It is asked at its pinned-TLS door, and once more through a local proxy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance.server_under_test import ServerUnderTest
from e2e.running_server import RunningServer
from proxy.local_proxy import proxy_process

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it answers."""
    running = RunningServer(tmp_path_factory.mktemp("conformance") / "stderr.log")
    try:
        ServerUnderTest(running.url).install()
        yield running.url
    finally:
        running.stop()
    quiet = [line for line in running.log.splitlines() if "Traceback" in line or " ERROR " in line]
    assert not quiet, quiet
    assert "canary" not in running.log


@pytest.fixture(scope="session")
def server(server_url: str) -> ServerUnderTest:
    """The same, to be asked."""
    return ServerUnderTest(server_url)


@pytest.fixture(scope="session")
def through_proxy(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerUnderTest]:
    """The same, asked through `blindai proxy`: in clear here, sealed from there on."""
    log = tmp_path_factory.mktemp("conformance-proxy") / "stderr.log"
    with proxy_process(server_url, log) as running:
        yield ServerUnderTest(running.at.http)
    assert "Traceback" not in log.read_text()
    assert "canary" not in log.read_text()
