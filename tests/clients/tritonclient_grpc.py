"""tritonclient's gRPC clients, unmodified, against a running gRPC door: `python tritonclient_grpc.py HOST:PORT`.

Runs in an environment of its own that has tritonclient[grpc] and blindai[grpc]; the first is no dependency of ours.
The server has the models `simple` (INT32, sum and difference), `id_fp32` and `id_bytes` (INPUT0 → OUTPUT0).
Both packages have messages of the same names, and must fit into one process.
"""

from __future__ import annotations

import asyncio
import queue
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

import blindai.oip.grpc.translate  # noqa: F401  # beside tritonclient's messages of the same names

STEPS: list[str] = []


def simple_inputs() -> tuple[list[Any], Any, Any]:
    left, right = np.arange(16, dtype=np.int32).reshape(1, 16), np.full((1, 16), 3, np.int32)
    inputs = [triton.InferInput(f"INPUT{i}", [1, 16], "INT32") for i in range(2)]
    inputs[0].set_data_from_numpy(left)
    inputs[1].set_data_from_numpy(right)
    return inputs, left, right


def told(step: str) -> None:
    STEPS.append(step)
    print("ok", step)


def sync_client(address: str, certificate: str) -> None:
    client = triton.InferenceServerClient(address, ssl=True, root_certificates=certificate)
    assert client.is_server_live()
    assert client.is_server_ready()
    told("live and ready")
    assert client.get_server_metadata().name == "blindai"
    metadata = client.get_model_metadata("simple")
    assert [(tensor.name, tensor.datatype) for tensor in metadata.inputs] == [("INPUT0", "INT32"), ("INPUT1", "INT32")]
    told("metadata")
    inputs, left, right = simple_inputs()
    outputs = [triton.InferRequestedOutput("OUTPUT1"), triton.InferRequestedOutput("OUTPUT0")]
    answer = client.infer("simple", inputs, outputs=outputs, request_id="7", client_timeout=20)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), left + right)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), left - right)
    assert answer.get_response().id == "7"
    told("infer")
    compressed = client.infer("simple", inputs, compression_algorithm="gzip")
    np.testing.assert_array_equal(compressed.as_numpy("OUTPUT0"), left + right)
    told("infer with gzip")
    text = np.array([["é\0".encode(), b"", b"a"]], dtype=object)
    entry = triton.InferInput("INPUT0", [1, 3], "BYTES")
    entry.set_data_from_numpy(text)
    np.testing.assert_array_equal(client.infer("id_bytes", [entry]).as_numpy("OUTPUT0"), text)
    told("bytes")
    refused(client)
    streamed(client)
    client.close()


def refused(client: Any) -> None:
    inputs, _, _ = simple_inputs()
    for model, version in (("nope", ""), ("simple", "9")):
        try:
            client.infer(model, inputs, model_version=version)
        except triton.InferenceServerException as error:
            status = str(error.status())
        else:
            status = "OK"
        assert status == "StatusCode.NOT_FOUND", status
    client.infer("simple", inputs, priority=1, timeout=1_000_000)
    told("failures")


def streamed(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    inputs, left, right = simple_inputs()
    client.async_stream_infer("simple", inputs, request_id="1", enable_empty_final_response=True)
    client.async_stream_infer("simple", inputs[:1], request_id="2")
    client.async_stream_infer("simple", inputs, request_id="3")
    found = [answers.get(timeout=20) for _ in range(3)]
    assert [error is None for _, error in found] == [True, False, True], found
    assert found[2][0].get_response().id == "3"
    np.testing.assert_array_equal(found[0][0].as_numpy("OUTPUT0"), left + right)
    assert found[0][0].get_response().parameters["triton_final_response"].bool_param
    client.stop_stream()
    told("stream")


async def aio_client(address: str, certificate: str) -> None:
    async with triton_aio.InferenceServerClient(address, ssl=True, root_certificates=certificate) as client:
        assert await client.is_server_live()
        inputs, left, right = simple_inputs()
        answers = await asyncio.gather(*(client.infer("simple", inputs, request_id=str(i)) for i in range(32)))
        assert [answer.get_response().id for answer in answers] == [str(i) for i in range(32)]
        np.testing.assert_array_equal(answers[9].as_numpy("OUTPUT1"), left - right)
    told("aio")


def main(address: str) -> None:
    host, port = address.rsplit(":", 1)
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / "server.pem"
        certificate.write_text(ssl.get_server_certificate((host, int(port))))
        sync_client(address, str(certificate))
        asyncio.run(aio_client(address, str(certificate)))


if __name__ == "__main__":
    main(sys.argv[1])
