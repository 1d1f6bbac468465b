"""What the proxy does while the server is away, comes back, or is no longer what was accepted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import grpc.aio
import pytest
from e2e import tiny_models
from e2e.running_server import RunningServer
from proxy.local_proxy import LocalProxy, local_proxy

import blindai
from blindai.errors import PolicyViolationError, WrongServiceError
from blindai.oip.grpc.schema import SERVICE, message_type
from blindai.policies import load_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.network

INFER = "/v2/models/doubler/infer"
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
CANARY = b"canary-of-the-user"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers that have `doubler`, and may be killed."""
    servers: list[RunningServer] = []

    def started(port: int = 0, service: str = "blindai-srv") -> RunningServer:
        log = tmp_path / f"server-{len(servers)}.log"
        servers.append(RunningServer(log, port=port, options=("--service", service)))
        with blindai.connect(servers[-1].url, insecure_simulation=True, service=service) as client:
            client.upload_model(tiny_models.times(tmp_path / "doubler.onnx", 2))
        return servers[-1]

    try:
        yield started
    finally:
        for server in servers:
            server.stop()


async def ask(session: aiohttp.ClientSession, proxy: LocalProxy, method: str, path: str, **options: Any) -> Any:
    async with session.request(method, proxy.http + path, **options) as answer:
        body = await answer.read()
        is_json = answer.content_type == "application/json"
        return answer.status, json.loads(body) if is_json else body.decode()


async def rpc(proxy: LocalProxy, name: str) -> Any:
    async with grpc.aio.insecure_channel(proxy.grpc) as channel:
        method = channel.unary_unary(
            f"/{SERVICE}/{name}",
            response_deserializer=message_type(f"inference.{name}Response").FromString,  # type: ignore[attr-defined]
        )
        return await method(b"", timeout=60)


@pytest.mark.parametrize("then", [("POST", INFER), ("GET", "/v2/health/ready")])
async def test_a_server_that_goes_and_comes_back_is_verified_anew(
    then: tuple[str, str], start: Callable[..., RunningServer]
) -> None:
    first = start()
    async with local_proxy(first.url) as proxy, aiohttp.ClientSession() as session:
        assert (await ask(session, proxy, "POST", INFER, json=ROW))[0] == 200
        first.kill()
        for method, path in (("GET", "/v2/health/ready"), ("POST", INFER), ("DELETE", "/v2/repository/models/doubler")):
            status, said = await ask(session, proxy, method, path, json=ROW if method == "POST" else None)
            assert (status, said["code"]) == (502, "connection_lost"), path
            assert said["error"]
            assert said["hint"]
        assert (await ask(session, proxy, "GET", "/v2/health/live"))[0] == 200  # the proxy's own
        assert not (await rpc(proxy, "ServerReady")).ready
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await rpc(proxy, "ServerMetadata")
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        start(first.port)
        method, path = then
        assert (await ask(session, proxy, method, path, json=ROW if method == "POST" else None))[0] == 200
        assert (await rpc(proxy, "ServerReady")).ready


async def test_a_change_is_never_made_twice_silently(start: Callable[..., RunningServer]) -> None:
    first = start()
    async with local_proxy(first.url) as proxy, aiohttp.ClientSession() as session:
        assert (await ask(session, proxy, "POST", INFER, json=ROW))[0] == 200
        first.kill()
        start(first.port)
        status, said = await ask(session, proxy, "DELETE", "/v2/repository/models/doubler")
        assert (status, said["code"]) == (502, "peer_key_mismatch")
        assert "never repeated silently" in said["error"]
        assert (await ask(session, proxy, "DELETE", "/v2/repository/models/doubler"))[0] == 200


async def test_another_server_in_its_place_gets_nothing(start: Callable[..., RunningServer]) -> None:
    first = start()
    async with local_proxy(first.url) as proxy, aiohttp.ClientSession() as session:
        assert (await ask(session, proxy, "POST", INFER, json=ROW))[0] == 200
        first.kill()
        start(first.port, service="another")
        for method, path in (("POST", INFER), ("GET", "/v2/health/ready"), ("GET", "/v2"), ("POST", INFER)):
            status, said = await ask(session, proxy, method, path, json=ROW if method == "POST" else None)
            assert (status, said["code"]) == (503, "wrong_service"), path
            assert said["error"].startswith("the server is not verified, so nothing was sent: ")
        assert not (await rpc(proxy, "ServerReady")).ready
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc(proxy, "ServerMetadata")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "not verified" in refused.value.details()
        status, page = await ask(session, proxy, "GET", "/")
        assert status == 503
        assert "Not verified, nothing is sent" in page


async def test_nothing_listens_to_a_server_that_is_not_accepted(start: Callable[..., RunningServer]) -> None:
    server = start()
    with pytest.raises(PolicyViolationError):
        async with local_proxy(server.url, policy=load_policy("strict")):
            pytest.fail("it listened")
    with pytest.raises(WrongServiceError):
        async with local_proxy(server.url, service="another"):
            pytest.fail("it listened")


async def test_a_proxy_says_nothing_of_what_it_carries(
    start: Callable[..., RunningServer], caplog: pytest.LogCaptureFixture
) -> None:
    first = start()
    async with local_proxy(first.url) as proxy, aiohttp.ClientSession() as session:
        headers = {"authorization": f"Bearer {CANARY.decode()}"}
        for path in (INFER, f"/v2/models/{CANARY.decode()}/infer"):
            await ask(session, proxy, "POST", path, data=CANARY, headers=headers)
        first.kill()
        await ask(session, proxy, "POST", INFER, data=CANARY, headers=headers)
        start(first.port, service="another")
        await ask(session, proxy, "POST", INFER, data=CANARY, headers=headers)
    assert "not verified" in caplog.text
    assert CANARY.decode() not in caplog.text
