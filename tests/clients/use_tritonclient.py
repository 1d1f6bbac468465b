"""tritonclient, unmodified, over its four transports: run in the clients' own environment, never imported.

    python use_tritonclient.py HTTP_ADDRESS GRPC_ADDRESS

Needs the model `simple` (INPUT0, INPUT1 INT32 [-1,16] → OUTPUT0 = sum, OUTPUT1 = difference).
Prints one line for each transport, and fails on the first wrong answer.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

MODEL = "simple"
FIRST = np.arange(16, dtype=np.int32).reshape(1, 16)
SECOND = np.full((1, 16), 7, dtype=np.int32)


def inputs(module: Any) -> list[Any]:
    made = []
    for name, data in (("INPUT0", FIRST), ("INPUT1", SECOND)):
        one = module.InferInput(name, [1, 16], "INT32")
        one.set_data_from_numpy(data)
        made.append(one)
    return made


def check(result: Any) -> None:
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), FIRST + SECOND)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), FIRST - SECOND)


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
    for _ in range(20):
        check(client.infer(MODEL, inputs(module), outputs=outputs, request_id="one"))
    check(client.infer(MODEL, inputs(module)))
    assert client.get_inference_statistics(MODEL)
    refusal = ""
    try:
        client.infer("nobody", inputs(module))
    except Exception as error:  # noqa: BLE001  # each transport wraps it in its own class
        refusal = str(error)
    assert "unknown model" in refusal.lower(), refusal
    return 21


def use_http(address: str) -> int:
    with tritonclient.http.InferenceServerClient(address, concurrency=8) as client:
        count = use_blocking(tritonclient.http, client)
        waiting = [client.async_infer(MODEL, inputs(tritonclient.http)) for _ in range(16)]
        for one in waiting:
            check(one.get_result())
        zipped = client.infer(MODEL, inputs(tritonclient.http), request_compression_algorithm="gzip")
        check(zipped)
        return count + 17


def use_grpc(address: str) -> int:
    answers: list[Any] = []
    with tritonclient.grpc.InferenceServerClient(address) as client:
        count = use_blocking(tritonclient.grpc, client)
        client.start_stream(lambda result, error: answers.append((result, error)))
        for number in range(32):
            client.async_stream_infer(MODEL, inputs(tritonclient.grpc), request_id=str(number))
        client.stop_stream()
    assert [result.get_response().id for result, error in answers if not error] == [str(n) for n in range(32)], answers
    for result, _ in answers:
        check(result)
    return count + 32


async def use_asyncio(module: Any, client: Any) -> int:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready(MODEL)
    assert name_of(await client.get_model_metadata(MODEL)) == MODEL
    results = await asyncio.gather(*(client.infer(MODEL, inputs(module)) for _ in range(32)))
    for result in results:
        check(result)
    return len(results)


async def use_http_aio(address: str) -> int:
    async with tritonclient.http.aio.InferenceServerClient(address) as client:
        return await use_asyncio(tritonclient.http.aio, client)


async def use_grpc_aio(address: str) -> int:
    async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
        return await use_asyncio(tritonclient.grpc.aio, client)


def main(http: str, grpc: str) -> None:
    print(f"tritonclient.http: {use_http(http)} right answers")
    print(f"tritonclient.http.aio: {asyncio.run(use_http_aio(http))} right answers")
    print(f"tritonclient.grpc: {use_grpc(grpc)} right answers")
    print(f"tritonclient.grpc.aio: {asyncio.run(use_grpc_aio(grpc))} right answers")


if __name__ == "__main__":
    main(*sys.argv[1:])
