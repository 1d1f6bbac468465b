"""Who uses the server during a soak, and who harms it: each actor goes on until the time is over.

Sync actors run in threads, async ones in the event loop. Every answer is judged by `Tally`, every error counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from e2e.tiny_models import times
from server.grpc_client import Rpcs, infer_request
from soak.tally import RawError, Tally

from blindai.errors import ModelNotFoundError
from blindai.oip.rest import InferRequest, decode_infer_response, encode_infer_request
from blindai.oip.tensors import tensor_from

if TYPE_CHECKING:
    import http.client
    from pathlib import Path

    from soak.soak_models import SoakModel
    from soak.soaked_server import SoakedServer

_KILL_EVERY_S = 4.0
_PATIENCE_S, _MORE_PATIENCE = 0.02, 1.1  # so that about half are answered
_JSON_EVERY = 4
_VISITS = 20
_LENGTH = "inference-header-content-length"


@dataclass(slots=True, kw_only=True)
class Soak:
    """What actors share.

    Attributes:
        visiting: by tenant, the model that is being uploaded and deleted over and over, as (name, factor).
    """

    server: SoakedServer
    models: tuple[SoakModel, ...]
    folder: Path
    ends_s: float
    tally: Tally = field(default_factory=Tally)
    visiting: dict[str, tuple[str, float]] = field(default_factory=dict)

    def goes_on(self) -> bool:
        """Whether time is left."""
        return time.monotonic() < self.ends_s


def sync_sdk(soak: Soak, name: str, tenant: str, **options: Any) -> None:
    """`Client`, one request after the other."""
    random = np.random.default_rng(len(name))
    with soak.server.client(tenant, **options) as client:
        while soak.goes_on():
            model, x = _next(soak, random)
            with soak.tally.attempt(name):
                answer = client.infer(model.name, x)["y"]
                soak.tally.judge(name, answer, model.right_answer(x), exact=model.is_exact)


async def async_sdk(soak: Soak, name: str, tenant: str, *, width: int, **options: Any) -> None:
    """`AsyncClient`, so many requests at a time on one client."""
    async with soak.server.async_client(tenant, **options) as client:

        async def go_on(seed: int) -> None:
            random = np.random.default_rng([len(name), seed])
            while soak.goes_on():
                model, x = _next(soak, random)
                with soak.tally.failures_of(name) as pause:
                    result = await client.infer(model.name, x)
                    soak.tally.judge(name, result["y"], model.right_answer(x), exact=model.is_exact)
                await asyncio.sleep(pause[0] if pause else 0)

        await asyncio.gather(*map(go_on, range(width)))


async def canceller(soak: Soak, name: str, tenant: str) -> None:
    """Leaves a little while after it has asked, now before and now after the answer."""
    random, patience_s = np.random.default_rng(3), _PATIENCE_S
    async with soak.server.async_client(tenant) as client:
        while soak.goes_on():
            model, x = _next(soak, random)
            with soak.tally.failures_of(name) as pause:
                try:
                    async with asyncio.timeout(random.uniform(0, patience_s)):
                        result = await client.infer(model.name, x)
                except TimeoutError:
                    soak.tally.event("cancelled requests")
                    patience_s *= _MORE_PATIENCE
                    continue
                patience_s /= _MORE_PATIENCE
                soak.tally.judge(name, result["y"], model.right_answer(x), exact=model.is_exact)
            await asyncio.sleep(pause[0] if pause else 0.01)


def raw_oip(soak: Soak, name: str, tenant: str) -> None:
    """HTTPS and nothing else: binary tensors, and every fourth request all JSON."""
    random = np.random.default_rng(4)
    connection, count = soak.server.https(), 0
    while soak.goes_on():
        model, x = _next(soak, random)
        count += 1
        try:
            with soak.tally.attempt(name):
                answer = _ask(connection, soak.server.keys[tenant], model.name, x, is_json=count % _JSON_EVERY == 0)
                soak.tally.judge(name, answer, model.right_answer(x), exact=model.is_exact)
        except ValueError:
            soak.tally.unknown.append(f"{name}: an answer that cannot be read")
            connection.close()
    connection.close()


def _ask(connection: http.client.HTTPSConnection, key: str, model: str, x: Any, *, is_json: bool) -> Any:
    headers = {"authorization": f"Bearer {key}"}
    if is_json:
        tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}
        body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    else:
        pieces, length = encode_infer_request(InferRequest(inputs=(tensor_from(x, name="x"),)))
        body, headers[_LENGTH] = b"".join(pieces), str(length)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body=body, headers=headers)
        response = connection.getresponse()
        answer = response.read()
    except OSError:
        connection.close()
        raise
    if response.status != 200:
        error = json.loads(answer)
        raise RawError(error["code"], error["error"])
    length_header = response.headers[_LENGTH]
    return decode_infer_response(answer, int(length_header)).outputs[0].data


def raw_grpc(soak: Soak, name: str, tenant: str) -> None:
    """ModelInfer with raw contents, as tritonclient sends it."""
    random = np.random.default_rng(5)
    address = soak.server.running.address("grpc")
    host, port = address.rsplit(":", 1)
    credentials = grpc.ssl_channel_credentials(ssl.get_server_certificate((host, int(port))).encode())
    metadata = (("authorization", f"Bearer {soak.server.keys[tenant]}"),)
    with grpc.secure_channel(address, credentials) as channel:
        rpcs = Rpcs(channel)
        while soak.goes_on():
            model, x = _next(soak, random)
            entry = {"name": "x", "datatype": "FP32", "shape": list(x.shape)}
            request = infer_request(entry, model=model.name, raw_input_contents=[x.tobytes()])
            with soak.tally.attempt(name):
                answer = rpcs.call("ModelInfer", request, metadata=metadata)
                found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(answer.outputs[0].shape)
                soak.tally.judge(name, found, model.right_answer(x), exact=model.is_exact)


def uploader(soak: Soak, name: str, tenant: str, **options: Any) -> None:
    """Uploads a model that nobody has seen, asks it, and deletes it."""
    count = 0
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with soak.server.client(tenant, **options) as client:
        while soak.goes_on():
            count += 1
            factor = float(count + 1)
            path = times(soak.folder / f"{tenant}-visitor-{count}.onnx", factor)
            with soak.tally.attempt(name):
                client.upload_model(path, progress=False)
                soak.tally.event("uploads")
                soak.visiting[tenant] = path.stem, factor
                for _ in range(_VISITS):
                    soak.tally.judge(name, client.infer(path.stem, x)["y"], x * np.float32(factor), exact=True)
            with soak.tally.attempt(name), contextlib.suppress(ModelNotFoundError):  # its upload had failed
                client.delete_model(path.stem)
                soak.tally.event("deletions")
            path.unlink()
            time.sleep(0.2)


async def chaser(soak: Soak, name: str, tenant: str) -> None:
    """Asks the model that comes and goes, whether or not it is there."""
    random = np.random.default_rng(6)
    async with soak.server.async_client(tenant, level="cached") as client:
        while soak.goes_on():
            await asyncio.sleep(0.05)
            if tenant not in soak.visiting:
                continue
            model, factor = soak.visiting[tenant]
            x = random.standard_normal((2, 3)).astype(np.float32)
            with soak.tally.failures_of(name):
                result = await client.infer(model, x)
                soak.tally.judge(name, result["y"], x * np.float32(factor), exact=True)


async def killer(soak: Soak) -> None:
    """`kill -9` of a model's process, any of them."""
    random = np.random.default_rng(7)
    while soak.goes_on():
        await asyncio.sleep(_KILL_EVERY_S)
        processes = soak.server.running.model_processes()
        if processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(random.choice(processes)), signal.SIGKILL)
                soak.tally.event("killed processes")


def _next(soak: Soak, random: np.random.Generator) -> tuple[SoakModel, Any]:
    model = soak.models[int(random.integers(len(soak.models)))]
    return model, model.draw(random)
