"""Fuzz targets of a server's doors: HTTP, REST with binary tensors, gRPC, credentials, and what operators configure."""

from __future__ import annotations

import asyncio
import functools
import gzip
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from access.tenants import Keys, access_toml, claims_at, draw_keys, signed
from fakes.network import FakeTransport
from fuzz.target import REFUSALS, Target, join_parts, split_parts

from blindai.oip.answers import InferResponse, decode_infer_response, encode_infer_response
from blindai.oip.grpc.failures import RpcError
from blindai.oip.grpc.schema import decode, methods
from blindai.oip.grpc.translate import SUPPORTED, RestAnswer, from_rest, to_rest
from blindai.oip.grpc.weight import memory_of
from blindai.oip.metadata import decode_metadata
from blindai.oip.raw_request import raw_request
from blindai.oip.rest import decode_infer_request
from blindai.oip.tensors import Datatype, Tensor, TensorSpec, decode_tensor
from blindai.proxy.messages import LocalRequest, credential_of, sealed_request
from blindai.server.access_file import parse_access_file
from blindai.server.authentication import Access
from blindai.server.content_encoding import inflated
from blindai.server.http_head import path_of
from blindai.server.http_protocol import HttpConnection
from blindai.server.http_server import HttpServer
from blindai.server.routes import decoded
from blindai.server.settings import load_settings
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from blindai.server.http_request import HttpRequest

_WALL_S = 1_800_000_000.0
_RPCS = {method.name: method for method in methods("inference.GRPCInferenceService")}


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


# --- HTTP


async def _answered(data: bytes) -> None:
    """A connection that sends these bytes in two pieces, to a handler that reads what it is sent."""

    async def handle(request: HttpRequest) -> None:
        async for _ in request.body():
            pass
        await request.answer(200, b"ok")

    connection = HttpConnection(HttpServer(handle))
    connection.connection_made(FakeTransport())
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        connection.data_received(piece)
        await asyncio.sleep(0)
    connection.connection_lost(None)
    if connection.task is not None:
        await asyncio.wait([connection.task])


def _http(data: bytes) -> None:
    _loop().run_until_complete(_answered(data))


def _requests() -> Iterator[bytes]:
    yield b"POST /v2/models/m/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody"
    chunked = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    yield chunked + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    yield b"GET http://a/v2?x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"


def _target(data: bytes) -> None:
    decoded(path_of(data))


async def _collected(encoding: str, body: bytes) -> None:
    async def pieces() -> AsyncIterator[memoryview]:
        for at in range(0, len(body), 100):
            yield memoryview(body[at : at + 100])

    async for _ in inflated(pieces(), encoding):
        pass


def _inflated(data: bytes) -> None:
    encoding, body = split_parts(data, 2)
    _loop().run_until_complete(_collected(encoding.decode("latin-1"), body))


def _local(data: bytes) -> None:
    """What a local program sends to the proxy."""
    method, path, name, value = (part.decode("latin-1") for part in split_parts(data, 4))
    request = LocalRequest(method=method, path=path, headers=((name, value), ("authorization", value)))
    credential_of(request)
    sealed_request(request)


# --- REST


def _infer_request(data: bytes) -> None:
    length, body = split_parts(data, 2)
    decode_infer_request(body, int.from_bytes(length[:4], "big") if length else None)


def _infer_answer(data: bytes) -> None:
    length, body = split_parts(data, 2)
    decode_infer_response(body, int.from_bytes(length[:4], "big") if length else None)


def _tensors() -> tuple[Tensor, ...]:
    return (
        decode_tensor(bytes(24), name="x", datatype=Datatype.FP32, shape=(2, 3)),
        decode_tensor(b"\2\0\0\0ab\0\0\0\0", name="s", datatype=Datatype.BYTES, shape=(2,)),
    )


def _infer_requests() -> Iterator[bytes]:
    plain = {
        "id": "1",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1.5, 2], [3, 4e3]]},
            {"name": "s", "datatype": "BYTES", "shape": [1], "data": ["é"]},
            {"name": "b", "datatype": "BOOL", "shape": [], "data": [True]},
        ],
        "outputs": [{"name": "y", "parameters": {"classification": 2}}],
        "parameters": {"priority": 1, "binary_data_output": True},
    }
    yield join_parts(b"", json.dumps(plain).encode())
    sized = {"name": "x", "datatype": "INT8", "shape": [4], "parameters": {"binary_data_size": 4}}
    header = json.dumps({"inputs": [sized]}).encode()
    yield join_parts(len(header).to_bytes(4, "big"), header + b"tail")


def _infer_answers() -> Iterator[bytes]:
    answer = InferResponse(model_name="m", model_version="1", id="", outputs=_tensors())
    buffers, length = encode_infer_response(answer)
    yield join_parts((length or 0).to_bytes(4, "big"), b"".join(map(bytes, buffers)))


def _metadata() -> Iterator[bytes]:
    spec = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
    members = {
        "name": "m", "versions": ["1"], "platform": "onnx", "inputs": [spec], "outputs": [spec], "version": "1",
        "digest": "sha256:" + "a" * 64, "precision": "fp32", "default_shape": [-1, 3],
    }  # fmt: skip
    yield json.dumps(members).encode()


_SPECS = tuple(
    TensorSpec(name="x", datatype=datatype, shape=shape)
    for datatype in (Datatype.BYTES, Datatype.FP32, Datatype.BOOL, Datatype.BF16)
    for shape in ((-1,), (2, -1), (0, -1), ())
)


def _raw(data: bytes) -> None:
    spec = _SPECS[data[0] % len(_SPECS) if data else 0]
    raw_request(memoryview(data[1:]), (spec,), model="m", batched=bool(data and data[0] & 1))


# --- gRPC


def _rpc(data: bytes) -> None:
    name, raw = split_parts(data, 2)
    method = _RPCS.get(name.decode("latin-1"))
    if method is None:
        return
    memory_of(method.name, raw)
    message: Any = decode(method.request, raw)
    request = to_rest(method.name, message)
    if request.path.endswith("/infer"):
        length = int(dict(request.headers)["inference-header-content-length"])
        decode_infer_request(b"".join(request.body), length)


def _rpcs() -> Iterator[bytes]:
    for name in sorted(SUPPORTED):
        kind: Any = _RPCS[name].request
        known = {field.name for field in kind.DESCRIPTOR.fields}
        yield join_parts(
            name.encode(), kind(**{key: "m" for key in ("name", "model_name") if key in known}).SerializeToString()
        )
    infer: Any = _RPCS["ModelInfer"].request
    typed = {"name": "x", "datatype": "INT8", "shape": [2], "contents": {"int_contents": [1, 2]}}
    raw = {"name": "x", "datatype": "FP32", "shape": [1]}
    parameters = {"priority": {"int64_param": 1}, "s": {"string_param": "x"}}
    for more in ({"inputs": [typed], "parameters": parameters}, {"inputs": [raw], "raw_input_contents": [b"abcd"]}):
        yield join_parts(b"ModelInfer", infer(model_name="m", **more).SerializeToString())


def _rpc_answer(data: bytes) -> None:
    """What a server answers to the proxy."""
    name, status, length, body = split_parts(data, 4)
    rpc = name.decode("latin-1")
    if rpc in SUPPORTED:
        headers = (("inference-header-content-length", length.decode("latin-1")),)
        from_rest(rpc, RestAnswer(status=int.from_bytes(status[:2], "big"), headers=headers, body=(body,)))


def _rpc_answers() -> Iterator[bytes]:
    ok = (200).to_bytes(2, "big")
    for answer in _infer_answers():
        length, body = split_parts(answer, 2)
        yield join_parts(b"ModelInfer", ok, str(int.from_bytes(length, "big")).encode(), body)
    yield join_parts(b"ModelMetadata", ok, b"", next(_metadata()))
    yield join_parts(b"RepositoryIndex", ok, b"", b'[{"name":"m","version":"1","state":"READY","reason":""}]')
    yield join_parts(b"ModelConfig", ok, b"", b'{"name":"m","max_batch_size":8}')
    yield join_parts(b"ModelReady", (404).to_bytes(2, "big"), b"", b'{"error":"x","hint":"y"}')


# --- credentials and configuration


@functools.cache
def _keys() -> Keys:
    return draw_keys()


@functools.cache
def _access() -> Access:
    file = parse_access_file(access_toml(_keys()).encode(), source="access.toml")
    return Access(file, service="blindai-srv", wall=lambda: _WALL_S)


def _authorization(data: bytes) -> None:
    _access().authenticate(data.decode("utf-8", "replace"), "")


def _authorizations() -> Iterator[bytes]:
    yield f"Bearer {_keys().text['alpha-infer']}".encode()
    yield f"bearer {signed(_keys(), claims_at(_WALL_S))}".encode()


def _signed_token(data: bytes) -> None:
    """A known issuer signs any claims."""
    signing = ".".join(base64url_encode(part) for part in split_parts(data, 2))
    token = f"{signing}.{base64url_encode(_keys().issuer.sign(signing.encode()))}"
    _access().authenticate(f"Bearer {token}", "")


def _claims() -> Iterator[bytes]:
    head = json.dumps({"alg": "EdDSA", "typ": "JWT"}).encode()
    for more in ({}, {"aud": ["x", "blindai-srv"], "nbf": 1, "tenant": "alpha"}):
        yield join_parts(head, json.dumps({**claims_at(_WALL_S), **more}).encode())


def _settings(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        load_settings(Path(file.name), {})


TARGETS = (
    Target(name="http_connection", run=_http, seeds=_requests),
    Target(name="http_target", run=_target, seeds=lambda: (b"http://a:1/x?y", b"/v2/models/%C3%A9", b"*")),
    Target(
        name="content_encoding",
        run=_inflated,
        seeds=lambda: (join_parts(b"gzip", gzip.compress(b"abc" * 99, mtime=0)),),
    ),
    Target(
        name="proxy_request",
        run=_local,
        seeds=lambda: (join_parts(b"POST", b"/v2/models/m/infer", b"content-type", b"Bearer x"),),
    ),
    Target(name="infer_request", run=_infer_request, seeds=_infer_requests),
    Target(name="infer_answer", run=_infer_answer, seeds=_infer_answers),
    Target(name="model_metadata", run=decode_metadata, seeds=_metadata),
    Target(name="raw_request", run=_raw, seeds=lambda: (b"\0\2\0\0\0ab", b"\x04" + bytes(8), b"\x07\0\0\0\0")),
    Target(name="grpc_request", run=_rpc, seeds=_rpcs, refuses=(*REFUSALS, RpcError)),
    Target(name="grpc_answer", run=_rpc_answer, seeds=_rpc_answers, refuses=(RpcError,)),
    Target(name="authorization", run=_authorization, seeds=_authorizations),
    Target(name="signed_token", run=_signed_token, seeds=_claims),
    Target(
        name="access_file",
        run=lambda data: parse_access_file(data, source="access.toml"),
        seeds=lambda: (access_toml(_keys(), quotas="max_models = 2").encode(),),
    ),
    Target(
        name="settings",
        run=_settings,
        seeds=lambda: (b'simulation = true\nport = 50051\nservice = "x"\nmax_models = 3\n',),
    ),
)
