"""A gRPC client of a running server for tests, with our own messages, and models to ask it about."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from onnx import TensorProto, helper

import blindai
from blindai.oip.grpc.schema import HEALTH_SERVICE, SERVICE, Message, message_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import onnx

TIMEOUT_S = 20.0
_STOP_S = 15
MAX_MESSAGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcServer:
    """A running `blindai serve --simulation`: where it listens, and its log."""

    url: str
    address: str
    log: Path
    process: subprocess.Popen[bytes]

    def certificate(self) -> bytes:
        """What a client pins."""
        host, port = self.address.rsplit(":", 1)
        return ssl.get_server_certificate((host, int(port))).encode()

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        credentials = grpc.ssl_channel_credentials(self.certificate())
        with grpc.secure_channel(self.address, credentials, options=MAX_MESSAGE) as channel:
            yield channel


@contextlib.contextmanager
def grpc_server(folder: Path, *options: str) -> Iterator[GrpcServer]:
    """A server that ends with the block."""
    command = [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", "--port", "0", *options]
    log = folder / "stderr.log"
    with log.open("wb") as stderr, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            assert process.stdout is not None
            told = dict(process.stdout.readline().decode().split() for _ in ("ready", "metrics", "grpc"))
            yield GrpcServer(url=told["ready"], address=told["grpc"], log=log, process=process)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


class Rpcs:
    """Every RPC of the inference service as a function of fields, on one channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def call(self, rpc: str, message: Message | None = None, *, raw: bytes | None = None, **options: Any) -> Any:
        """One RPC; `raw` sends these bytes whatever they are."""
        method = self.channel.unary_unary(
            f"/{SERVICE}/{rpc}",
            request_serializer=lambda found: found if isinstance(found, bytes) else found.SerializeToString(),
            response_deserializer=message_type(f"inference.{rpc}Response").FromString,  # type: ignore[attr-defined]
        )
        sent = raw if raw is not None else message or request_of(rpc)
        return method(sent, timeout=options.pop("timeout", TIMEOUT_S), **options)

    def infer(self, *inputs: dict[str, Any], model: str, **fields: Any) -> Any:
        return self.call("ModelInfer", infer_request(*inputs, model=model, **fields))

    def stream(self, requests: Any, **options: Any) -> Any:
        method = self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=lambda found: found if isinstance(found, bytes) else found.SerializeToString(),
            response_deserializer=message_type("inference.ModelStreamInferResponse").FromString,  # type: ignore[attr-defined]
        )
        return method(requests, timeout=TIMEOUT_S, **options)

    def health(self, service: str = "", rpc: str = "Check") -> Any:
        make = self.channel.unary_unary if rpc == "Check" else self.channel.unary_stream
        method = make(
            f"/{HEALTH_SERVICE}/{rpc}",
            request_serializer=lambda found: found.SerializeToString(),
            response_deserializer=message_type("grpc.health.v1.HealthCheckResponse").FromString,  # type: ignore[attr-defined]
        )
        return method(message_type("grpc.health.v1.HealthCheckRequest")(service=service), timeout=TIMEOUT_S)


def request_of(rpc: str, **fields: Any) -> Message:
    return message_type(f"inference.{rpc}Request")(**fields)


def infer_request(*inputs: dict[str, Any], model: str, **fields: Any) -> Message:
    return request_of("ModelInfer", model_name=model, inputs=list(inputs), **fields)


def outcome(call: Any) -> str:
    """The status code's name that a call without arguments ends with."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


# ---- Models


def upload(url: str, folder: Path, models: dict[str, onnx.ModelProto]) -> None:
    with blindai.connect(url, insecure_simulation=True) as client:
        for name, model in models.items():
            path = folder / f"{name}.onnx"
            path.write_bytes(model.SerializeToString())
            client.upload_model(path, name=name)


def model_of(nodes: Sequence[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any]) -> onnx.ModelProto:
    takes, gives = (
        [helper.make_tensor_value_info(name, *face) for name, face in faces.items()] for faces in (inputs, outputs)
    )
    graph = helper.make_graph(list(nodes), "g", takes, gives)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def simple() -> onnx.ModelProto:
    """Triton's: the sum and the difference of two rows of 16 numbers."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    face = (TensorProto.INT32, ["n", 16])
    return model_of(nodes, {"INPUT0": face, "INPUT1": face}, {"OUTPUT0": face, "OUTPUT1": face})


def identity(element: int, shape: Sequence[int | str] = ("n", "k")) -> onnx.ModelProto:
    face = (element, shape)
    return model_of([helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])], {"INPUT0": face}, {"OUTPUT0": face})
