"""KServe's two clients, unmodified; see use_tritonclient.py for the model.

python use_kserve.py HTTP_ADDRESS GRPC_ADDRESS
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

MODEL = "simple"
FIRST = np.arange(16, dtype=np.int32).reshape(1, 16)
SECOND = np.full((1, 16), 7, dtype=np.int32)


def request(*, binary: bool) -> InferRequest:
    made = []
    for name, data in (("INPUT0", FIRST), ("INPUT1", SECOND)):
        one = InferInput(name, [1, 16], "INT32")
        one.set_data_from_numpy(data, binary_data=binary)
        made.append(one)
    return InferRequest(model_name=MODEL, infer_inputs=made)


def check(response: object) -> None:
    outputs = {output.name: output.as_numpy() for output in response.outputs}  # type: ignore[attr-defined]
    np.testing.assert_array_equal(outputs["OUTPUT0"].reshape(1, 16), FIRST + SECOND)
    np.testing.assert_array_equal(outputs["OUTPUT1"].reshape(1, 16), FIRST - SECOND)


async def use_rest(address: str) -> int:
    client, base = InferenceRESTClient(RESTConfig(protocol="v2")), f"http://{address}"
    assert await client.is_server_live(base)
    assert await client.is_server_ready(base)
    assert await client.is_model_ready(base, MODEL)
    for binary in (False, True):
        check(await client.infer(base, request(binary=binary), model_name=MODEL))
    await client.close()
    return 2


async def use_grpc(address: str) -> int:
    client = InferenceGRPCClient(address)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready(MODEL)
    for _ in range(8):
        check(await client.infer(request(binary=True)))
    await client.close()
    return 8


async def main(http: str, grpc: str) -> None:
    print(f"kserve InferenceRESTClient: {await use_rest(http)} right answers")
    print(f"kserve InferenceGRPCClient: {await use_grpc(grpc)} right answers")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
