"""The gRPC checks against a server of ours, whose models come in by load requests over gRPC; and through the proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from conformance.grpc_checks import CHECKS, load_models
from conformance.models import conformance_models
from proxy.local_proxy import proxy_process
from server.grpc_client import MAX_MESSAGE, GrpcServer, Rpcs, grpc_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    with grpc_server(tmp_path_factory.mktemp("grpc")) as running:
        with running.channel() as channel:
            load_models(Rpcs(channel), conformance_models())
        yield running
    assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize("identifier", CHECKS)
def test_check(server: GrpcServer, identifier: str) -> None:
    with server.channel() as channel:
        CHECKS[identifier](Rpcs(channel))


@pytest.fixture(scope="module")
def through_proxy(server: GrpcServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rpcs]:
    """The same server, in clear to the proxy and sealed from there on."""
    log = tmp_path_factory.mktemp("grpc-proxy") / "stderr.log"
    with (
        proxy_process(server.url, log) as running,
        grpc.insecure_channel(running.at.grpc, options=MAX_MESSAGE) as channel,
    ):
        yield Rpcs(channel)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("identifier", CHECKS)
def test_check_through_the_proxy(through_proxy: Rpcs, identifier: str) -> None:
    CHECKS[identifier](through_proxy)


def test_the_list_is_whole(tell: Callable[[str], None]) -> None:
    tell(f"{len(CHECKS)} of {len(CHECKS)} checks run through the proxy too")
    assert set(CHECKS) == {f"G{number}" for number in range(1, 39)}
