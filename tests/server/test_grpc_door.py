"""The gRPC door of a running server: every RPC, streams in order, deadlines, limits, garbage, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from onnx import TensorProto
from server.grpc_client import (
    TIMEOUT_S,
    GrpcServer,
    Rpcs,
    grpc_server,
    identity,
    infer_request,
    outcome,
    simple,
    upload,
)

from blindai.attester.simulation import SimulationAttester
from blindai.errors import InvalidSettingsError, UnauthenticatedError
from blindai.oip.grpc.failures import Code, RpcError
from blindai.oip.grpc.schema import SERVICE, message_type
from blindai.server.access import open_principal
from blindai.server.budget import BodyBudget
from blindai.server.grpc_door import GrpcDoor
from blindai.server.serve import _grpc_door, create_app
from blindai.server.settings import Settings
from blindai.server.tls_identity import make_tls_identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.network

LIMIT = 1 << 20
CANARY = "canary-7412"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    folder = tmp_path_factory.mktemp("grpc")
    (folder / "server.toml").write_text(f"max_body_bytes = {LIMIT}\n")
    with grpc_server(folder, "--config", str(folder / "server.toml")) as running:
        upload(running.url, folder, {"simple": simple(), "floats": identity(TensorProto.FLOAT)})
        yield running
    text = running.log.read_text()
    assert "Traceback" not in text
    assert " ERROR " not in text
    assert CANARY not in text


@pytest.fixture
def rpcs(server: GrpcServer) -> Iterator[Rpcs]:
    with server.channel() as channel:
        yield Rpcs(channel)


def floats(*values: float, shape: list[int] | None = None) -> dict[str, Any]:
    return {
        "name": "INPUT0",
        "datatype": "FP32",
        "shape": shape or [1, len(values)],
        "contents": {"fp32_contents": values},
    }


def stream_request(number: int, *, broken: bool = False) -> Any:
    return infer_request(floats(number, shape=[2, 2] if broken else None), model="floats", id=str(number))


def test_inference(rpcs: Rpcs) -> None:
    entries = [{"name": f"INPUT{i}", "datatype": "INT32", "shape": [1, 16]} for i in range(2)]
    left, right = np.arange(16, dtype="<i4"), np.full(16, 3, dtype="<i4")
    raw = [left.tobytes(), right.tobytes()]
    answer = rpcs.infer(*entries, model="simple", id="7", raw_input_contents=raw)
    assert (answer.model_name, answer.model_version, answer.id) == ("simple", "1", "7")
    assert [output.name for output in answer.outputs] == ["OUTPUT0", "OUTPUT1"]
    assert list(answer.raw_output_contents) == [(left + right).tobytes(), (left - right).tobytes()]
    wished = rpcs.infer(*entries, model="simple", raw_input_contents=raw, outputs=[{"name": "OUTPUT1"}])
    assert list(wished.raw_output_contents) == [(left - right).tobytes()]


def test_server_and_health_answer(rpcs: Rpcs) -> None:
    assert rpcs.call("ServerLive").live
    assert rpcs.call("ServerReady").ready
    assert rpcs.call("ServerMetadata").name == "blindai"
    assert rpcs.health().status == 1
    assert rpcs.health(SERVICE).status == 1
    assert outcome(lambda: rpcs.health(CANARY)) == "NOT_FOUND"


def test_watching_begins_with_the_status(rpcs: Rpcs) -> None:
    for service, status in (("", 1), (CANARY, 3)):
        watch = rpcs.health(service, "Watch")
        assert next(watch).status == status
        watch.cancel()


def test_streams_answer_in_order_and_go_on_after_failures(rpcs: Rpcs) -> None:
    requests = [stream_request(number, broken=number % 3 == 1) for number in range(60)]
    answers = list(rpcs.stream(iter(requests)))
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(60)]
    assert [bool(answer.error_message) for answer in answers] == [number % 3 == 1 for number in range(60)]
    good = [answer.infer_response.raw_output_contents[0] for answer in answers if not answer.error_message]
    assert good == [np.float32(number).tobytes() for number in range(60) if number % 3 != 1]


def test_streams_answer_before_they_end(rpcs: Rpcs) -> None:
    answered = threading.Event()

    def requests() -> Iterator[Any]:
        yield stream_request(1)
        assert answered.wait(TIMEOUT_S)
        yield stream_request(2)

    answers = rpcs.stream(requests())
    assert next(answers).infer_response.id == "1"
    answered.set()
    assert next(answers).infer_response.id == "2"
    assert next(answers, None) is None


def test_garbage_in_a_stream_is_one_failure(rpcs: Rpcs) -> None:
    answers = list(rpcs.stream(iter([b"\xff\xff", stream_request(2)])))
    assert [bool(answer.error_message) for answer in answers] == [True, False]


def test_streams_end_with_a_status_if_so_wished(rpcs: Rpcs) -> None:
    requests = [stream_request(number, broken=number == 2) for number in range(20)]
    answers, seen = rpcs.stream(iter(requests), metadata=(("triton_grpc_error", "true"),)), []
    with pytest.raises(grpc.RpcError) as caught:
        seen.extend(answers)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [answer.infer_response.id for answer in seen] == ["0", "1"]
    assert rpcs.infer(floats(1), model="floats").id == ""


@pytest.mark.parametrize("raw", [b"\xff" * 20, b"\x0a\xff", CANARY.encode(), b"\x2a\x02\x0a\x05"])
@pytest.mark.parametrize("rpc", ["ModelInfer", "ModelReady", "RepositoryModelLoad"])
def test_garbage_is_refused_and_the_server_lives(rpcs: Rpcs, rpc: str, raw: bytes) -> None:
    assert outcome(lambda: rpcs.call(rpc, raw=raw)) in {"INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND"}
    assert rpcs.call("ServerLive").live


def test_unknown_methods_are_unimplemented(rpcs: Rpcs) -> None:
    for path in (f"/{SERVICE}/Nope", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/x/y"):
        assert outcome(lambda path=path: rpcs.channel.unary_unary(path)(b"", timeout=TIMEOUT_S)) == "UNIMPLEMENTED"
    for rpc in ("SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"):
        assert outcome(lambda rpc=rpc: rpcs.call(rpc)) == "UNIMPLEMENTED"


def test_a_deadline_in_the_past_is_exceeded(rpcs: Rpcs) -> None:
    assert outcome(lambda: rpcs.call("ServerMetadata", timeout=0)) == "DEADLINE_EXCEEDED"
    assert rpcs.call("ServerMetadata").name == "blindai"


def test_messages_up_to_the_limit_and_no_further(rpcs: Rpcs) -> None:
    def echo(count: int) -> str:
        entry = {"name": "INPUT0", "datatype": "FP32", "shape": [1, count]}
        return outcome(lambda: rpcs.infer(entry, model="floats", raw_input_contents=[bytes(4 * count)]))

    assert echo((LIMIT - 1024) // 4) == "OK"
    assert echo(LIMIT // 4) == "RESOURCE_EXHAUSTED"
    assert echo(1) == "OK"


def test_compressed_messages_are_inflated_up_to_the_limit(rpcs: Rpcs) -> None:
    request = infer_request(
        {"name": "INPUT0", "datatype": "FP32", "shape": [1, 1000]}, model="floats", raw_input_contents=[bytes(4000)]
    )
    answer = rpcs.call("ModelInfer", request, compression=grpc.Compression.Gzip)
    assert answer.raw_output_contents[0] == bytes(4000)
    bomb = bytes(200 * LIMIT)
    assert outcome(lambda: rpcs.call("ModelInfer", raw=bomb, compression=grpc.Compression.Gzip)) == "RESOURCE_EXHAUSTED"
    assert rpcs.call("ServerLive").live


def test_many_empty_inputs_do_not_take_the_servers_memory(rpcs: Rpcs) -> None:
    assert outcome(lambda: rpcs.call("ModelInfer", raw=b"\x2a\x00" * (LIMIT // 3))) != "OK"
    assert rpcs.call("ServerLive").live


async def test_requests_side_by_side(server: GrpcServer) -> None:
    credentials = grpc.ssl_channel_credentials(server.certificate())
    kind = message_type("inference.ModelInferResponse")
    async with grpc.aio.secure_channel(server.address, credentials) as channel:
        infer = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=kind.FromString,  # type: ignore[attr-defined]
        )
        answers = await asyncio.gather(*(infer(stream_request(number), timeout=TIMEOUT_S) for number in range(64)))
    assert [answer.id for answer in answers] == [str(number) for number in range(64)]


def test_the_key_is_that_of_the_https_port(server: GrpcServer) -> None:
    host, port = server.url.removeprefix("https://").rsplit(":", 1)
    assert ssl.get_server_certificate((host, int(port))).encode() == server.certificate()


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", {"localhost", "127.0.0.1", "::1"}),
        ("0.0.0.0", {"0.0.0.0", "localhost", "127.0.0.1", "::1"}),  # noqa: S104
        ("192.0.2.1", {"192.0.2.1"}),
        ("models.example", {"models.example"}),
    ],
)
def test_the_certificate_names_what_a_client_may_call_the_server(host: str, names: set[str]) -> None:
    certificate = x509.load_pem_x509_certificate(make_tls_identity(host).certificate_pem)
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert {str(name.value) for name in extension.value} == names


def test_an_end_lets_watchers_know(tmp_path: Path) -> None:
    with grpc_server(tmp_path) as running, running.channel() as channel:
        watch = Rpcs(channel).health("", "Watch")
        assert next(watch).status == 1
        running.process.send_signal(signal.SIGTERM)
        assert next(watch).status == 2
        assert next(watch, None) is None
        assert running.process.wait(TIMEOUT_S) in {0, -signal.SIGTERM}


# ---- The door alone


def door(**changes: Any) -> GrpcDoor:
    settings = Settings(simulation=True, port=0, **changes)
    service: Any = SimpleNamespace(settings=settings, bodies=BodyBudget(max_bytes=1000))  # no call gets further
    tls = make_tls_identity("127.0.0.1")
    return GrpcDoor(service=service, tls=tls, authenticate=lambda _: open_principal(""), is_ready=lambda: True)


async def test_a_taken_port_is_an_error_in_words() -> None:
    first = door()
    port = int((await first.start()).rsplit(":", 1)[1])
    try:
        with pytest.raises(InvalidSettingsError):
            await door(grpc_port=port).start()
    finally:
        await first.stop(0)


async def test_who_is_not_known_is_refused_before_the_message_is_read() -> None:
    asked: list[str | None] = []

    def authenticate(authorization: str | None) -> Any:
        asked.append(authorization)
        raise UnauthenticatedError("no such key")

    refusing = door()
    refusing.authenticate = authenticate
    address = await refusing.start()
    credentials = grpc.ssl_channel_credentials(refusing.tls.certificate_pem)
    try:
        async with grpc.aio.secure_channel(address, credentials) as channel:
            infer = channel.stream_unary(f"/{SERVICE}/ModelInfer")
            call = infer(metadata=(("authorization", "Bearer k"),), timeout=TIMEOUT_S)  # and no message follows
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await call.details() == "no such key"
            assert await channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=TIMEOUT_S) == b"\x08\x01"
    finally:
        await refusing.stop(0)
    assert asked == ["Bearer k"]


def test_messages_take_their_place_among_all_bodies() -> None:
    full = door()
    with full.hold(900):
        with pytest.raises(RpcError) as caught, full.hold(200):
            pass
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
    with full.hold(200):
        assert full.service.bodies.held_bytes == 200
    assert full.service.bodies.held_bytes == 0


async def test_no_door_where_only_sealed_messages_may_come_in(tmp_path: Path) -> None:
    attester = SimulationAttester(random=os.urandom, measurement=bytes(32))
    tls = make_tls_identity("127.0.0.1")
    for require_sealed in (False, True):
        settings = Settings(simulation=True, require_sealed=require_sealed)
        app = create_app(settings, attester=attester, directory=tmp_path / str(require_sealed), tls=tls)
        assert (_grpc_door(app, settings, tls) is None) == require_sealed
        await app.sealed.service.pool.close()
        app.sealed.service.store.close()


def test_ports_are_free_ones_together() -> None:
    assert Settings(port=0).grpc_listen_port == 0
    assert Settings(port=0, grpc_port=7).grpc_listen_port == 7
    assert Settings().grpc_listen_port == Settings().grpc_port
