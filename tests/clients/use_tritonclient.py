"""tritonclient, unmodified, over its four transports: run in the clients' own environment, never imported.

    python use_tritonclient.py HTTP_ADDRESS GRPC_ADDRESS [--tls]

Needs the conformance suite's models `simple` (INPUT0, INPUT1 INT32 [-1,16] → OUTPUT0 = sum, OUTPUT1 = difference) and
`id_bytes` (INPUT0 → OUTPUT0). With `--tls` the addresses are the server's own doors, whose certificate is trusted as
they show it. Prints one line for each transport, and fails on the first wrong answer.
"""

from __future__ import annotations

import asyncio
import queue
import ssl
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

MODEL = "simple"
FIRST = np.arange(16, dtype=np.int32).reshape(1, 16)
SECOND = np.full((1, 16), 7, dtype=np.int32)
TEXT = np.array(["é\0".encode(), b"", b"a"], dtype=object)
PATIENCE_S = 60


@dataclass(frozen=True)
class Doors:
    """Where to ask, and how each transport is told to use TLS."""

    http: str
    grpc: str
    of_http: dict[str, Any] = field(default_factory=dict)
    of_http_aio: dict[str, Any] = field(default_factory=dict)
    of_grpc: dict[str, Any] = field(default_factory=dict)


def tls_doors(http: str, grpc: str, folder: Path) -> Doors:
    host, port = http.rsplit(":", 1)
    certificate = folder / "server.pem"
    certificate.write_text(ssl.get_server_certificate((host, int(port))))
    context = ssl.create_default_context(cafile=str(certificate))
    return Doors(
        http=http,
        grpc=grpc,
        of_http={"ssl": True, "ssl_options": {"ca_certs": str(certificate)}},
        of_http_aio={"ssl": True, "ssl_context": context},
        of_grpc={"ssl": True, "root_certificates": str(certificate)},
    )


def inputs(module: Any) -> list[Any]:
    made = []
    for name, data in (("INPUT0", FIRST), ("INPUT1", SECOND)):
        one = module.InferInput(name, [1, 16], "INT32")
        one.set_data_from_numpy(data)
        made.append(one)
    return made


def check(result: Any) -> int:
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), FIRST + SECOND)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), FIRST - SECOND)
    return 1


def name_of(metadata: Any) -> Any:
    return metadata["name"] if isinstance(metadata, dict) else metadata.name


def use_blocking(module: Any, client: Any) -> int:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert not client.is_model_ready("nobody")
    assert name_of(client.get_server_metadata()) == "blindai"
    assert name_of(client.get_model_metadata(MODEL)) == MODEL
    assert client.get_model_config(MODEL)
    assert client.get_model_repository_index()
    outputs = [module.InferRequestedOutput("OUTPUT1"), module.InferRequestedOutput("OUTPUT0")]
    right = sum(check(client.infer(MODEL, inputs(module), outputs=outputs, request_id="one")) for _ in range(20))
    right += check(client.infer(MODEL, inputs(module), priority=1, timeout=60_000_000))
    assert client.get_inference_statistics(MODEL)
    use_refusals(module, client)
    return right + use_text(module, client)


def use_text(module: Any, client: Any) -> int:
    entry = module.InferInput("INPUT0", [3], "BYTES")
    entry.set_data_from_numpy(TEXT)
    np.testing.assert_array_equal(client.infer("id_bytes", [entry]).as_numpy("OUTPUT0"), TEXT)
    return 1


def use_refusals(module: Any, client: Any) -> None:
    """Each transport wraps them in its own class, with the server's words and its status."""
    for model, version in (("nobody", ""), (MODEL, "9")):
        refusal: Any = None
        try:
            client.infer(model, inputs(module), model_version=version)
        except tritonclient.utils.InferenceServerException as error:
            refusal = error
        assert refusal is not None, f"{model} {version} was answered"
        assert "unknown model" in str(refusal).lower(), refusal
        assert refusal.status() in {"404", "StatusCode.NOT_FOUND"}, refusal.status()


def use_http(doors: Doors) -> int:
    with tritonclient.http.InferenceServerClient(doors.http, concurrency=8, **doors.of_http) as client:
        right = use_blocking(tritonclient.http, client)
        waiting = [client.async_infer(MODEL, inputs(tritonclient.http)) for _ in range(16)]
        right += sum(check(one.get_result()) for one in waiting)
        for coding in ("gzip", "deflate"):
            right += check(client.infer(MODEL, inputs(tritonclient.http), request_compression_algorithm=coding))
        return right


def use_grpc(doors: Doors) -> int:
    with tritonclient.grpc.InferenceServerClient(doors.grpc, **doors.of_grpc) as client:
        right = use_blocking(tritonclient.grpc, client)
        right += check(client.infer(MODEL, inputs(tritonclient.grpc), compression_algorithm="gzip"))
        right += check(client.infer(MODEL, inputs(tritonclient.grpc), client_timeout=PATIENCE_S))
        return right + use_stream(client)


def use_stream(client: Any) -> int:
    """Answers come in order, a failure among them, and each request has its last answer marked."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(32):
        given = inputs(tritonclient.grpc)[: 1 if number == 9 else 2]
        client.async_stream_infer(MODEL, given, request_id=str(number), enable_empty_final_response=True)
    found = [answers.get(timeout=PATIENCE_S) for _ in range(32)]
    client.stop_stream()
    assert [number for number, (_, error) in enumerate(found) if error] == [9], found
    right = [result for result, error in found if not error]
    assert [int(result.get_response().id) for result in right] == [number for number in range(32) if number != 9]
    assert all(result.get_response().parameters["triton_final_response"].bool_param for result in right)
    return sum(map(check, right))


async def use_asyncio(module: Any, client: Any) -> int:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready(MODEL)
    assert name_of(await client.get_model_metadata(MODEL)) == MODEL
    results = await asyncio.gather(*(client.infer(MODEL, inputs(module)) for _ in range(32)))
    return sum(map(check, results))


async def use_http_aio(doors: Doors) -> int:
    async with tritonclient.http.aio.InferenceServerClient(doors.http, **doors.of_http_aio) as client:
        return await use_asyncio(tritonclient.http.aio, client)


async def use_grpc_aio(doors: Doors) -> int:
    async with tritonclient.grpc.aio.InferenceServerClient(doors.grpc, **doors.of_grpc) as client:
        return await use_asyncio(tritonclient.grpc.aio, client)


def main(http: str, grpc: str, *options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        doors = tls_doors(http, grpc, Path(folder)) if "--tls" in options else Doors(http=http, grpc=grpc)
        print(f"tritonclient.http: {use_http(doors)} right answers")
        print(f"tritonclient.http.aio: {asyncio.run(use_http_aio(doors))} right answers")
        print(f"tritonclient.grpc: {use_grpc(doors)} right answers")
        print(f"tritonclient.grpc.aio: {asyncio.run(use_grpc_aio(doors))} right answers")


if __name__ == "__main__":
    main(*sys.argv[1:])
