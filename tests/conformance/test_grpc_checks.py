"""The gRPC checks against a server of ours, whose models come in by load requests over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance.grpc_checks import CHECKS, load_models
from conformance.models import conformance_models
from server.grpc_client import GrpcServer, Rpcs, grpc_server

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_the_list_is_whole() -> None:
    assert set(CHECKS) == {f"G{number}" for number in range(1, 39)}
