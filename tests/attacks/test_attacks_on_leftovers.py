"""What one tenant leaves behind reaches no other, and nothing of anybody's data reaches a log, a metric or an error.

Over a running server with two tenants. Leaves out: the same inside one process (tests/server/test_worker_isolation.py),
the operator's whole view (tests/cli/test_canary.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import ssl
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from attacks.serving_site import Site, infer_json, running_site
from e2e.tiny_models import text_labels
from onnx import TensorProto, helper
from server.grpc_client import Rpcs, infer_request

from blindai.errors import BlindAIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai import Client

pytestmark = pytest.mark.network

INFER = "/v2/models/model/infer"
_OUTSIDE = (2**62, -(2**62), 2**40, 10**6, -(10**6), *range(4, 512, 17), *range(-512, -4, 17))
_ARENAS = {"memfd:requests", "memfd:answers"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("leftovers")) as running:
        yield running


def gather_model() -> bytes:
    """Y = data[at]: with a place outside `data` it would read whatever lies there."""
    infos = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in ("data", "at", "y")]
    graph = helper.make_graph([helper.make_node("Gather", ["data", "at"], ["y"])], "g", infos[:2], infos[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def test_one_tenants_leftovers_reach_no_other(site: Site, tell: Callable[[str], None]) -> None:
    path, secret = site.folder / "gather.onnx", int.from_bytes(secrets.token_bytes(7), "big")
    path.write_bytes(gather_model())
    others = set(site.server.running.model_processes())
    with site.server.client("alpha") as alpha, site.server.client("beta") as beta:
        assert alpha.upload_model(path).digest == beta.upload_model(path).digest
        assert len(set(site.server.running.model_processes()) - others) == 2  # the same file, and a process each
        left = np.full(100_000, secret)
        for _ in range(3):
            assert (alpha.infer("gather", {"data": left, "at": np.arange(1000)})["y"] == secret).all()
        read, holding = arenas_holding(site, struct.pack("<q", secret))
        outcomes = [read_outside(beta, at, secret) for at in _OUTSIDE]
        for client in (alpha, beta):
            client.delete_model("gather")
    assert outcomes == ["refused"] * len(_OUTSIDE)
    assert not holding
    tell(f"{len(outcomes)} reads outside were refused; {read} shared memories of the server hold no value of before")


def read_outside(client: Client, at: int, secret: int) -> str:
    try:
        answer = client.infer("gather", {"data": np.arange(4), "at": np.array([at])})["y"]
    except BlindAIError as error:
        return "told" if str(secret) in str(error) + error.hint else "refused"
    return "leaked" if (answer == secret).any() else "answered"


def arenas_holding(site: Site, value: bytes) -> tuple[int, int]:
    """How many of the server's memory files could be read, and how many of them hold the value (needs root)."""
    read = holding = 0
    with contextlib.suppress(PermissionError):
        for link in Path(f"/proc/{site.server.running.process_id}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if link.readlink().name.partition(" ")[0] in _ARENAS:
                    read += 1
                    holding += value in written_parts(link)
    return read, holding


def written_parts(path: Path) -> bytes:
    """What was ever written to a sparse file."""
    parts, at = [], 0
    with path.open("rb", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break  # nothing more
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            parts.append(os.pread(file.fileno(), at - start, start))
    return b"".join(parts)


# ---- Canaries (Z13), and no answer from memory (Z14)


def test_a_canary_is_in_no_log_metric_or_error_text(site: Site, tell: Callable[[str], None]) -> None:
    canary = f"canary{secrets.token_hex(16)}"
    number = float(int.from_bytes(secrets.token_bytes(3), "big")) + 0.5
    words = [canary, repr(number), *site.server.keys.values()]
    text_labels(site.folder / "labels.onnx")
    with site.server.client("alpha") as client:
        client.upload_model(site.folder / "labels.onnx")
        assert client.infer("labels", np.array([canary], object))["y"].tolist() == [b"?"]
    text = {"name": "x", "datatype": "BYTES", "shape": [1], "data": [canary]}
    broken: list[Any] = [
        {"inputs": [{**text, "shape": [2]}]}, {"inputs": [{**text, "datatype": "FP32"}]}, {"inputs": [text, text]},
        {"inputs": [{**text, "datatype": "INT64", "data": [canary]}]}, {"inputs": [{**text, "data": {canary: canary}}]},
        {"inputs": [{**text, "data": [number]}]}, {"inputs": [{**text, "parameters": {"binary_data_size": canary}}]},
        {"inputs": canary}, canary, [canary], f'{{"inputs": "{canary}'.encode(), canary.encode(),
        infer_json([number, 1, 2], [1, 2]), infer_json([number, 1, 2], [1, 3], datatype="INT8"),
    ]  # fmt: skip
    answers = [
        site.raw.ask("POST", f"/v2/models/{name}/infer", body) for name in ("labels", "model") for body in broken
    ]
    binary = canary.encode() + b"\xff"
    header = json.dumps({"inputs": [{**{k: v for k, v in text.items() if k != "data"},
                                     "parameters": {"binary_data_size": len(binary) + 4}}]}).encode()  # fmt: skip
    answers.append(site.raw.ask("POST", "/v2/models/labels/infer", header + struct.pack("<I", len(binary)) + binary,
                                inference_header_content_length=str(len(header))))  # fmt: skip
    answers.append(site.raw.ask("POST", INFER, canary.encode(), content_encoding="gzip"))
    nobody = type(site.raw)(site.server.running.url, headers={"authorization": f"Bearer blindai_{canary}_{canary}"})
    answers.append(nobody.ask("GET", "/v2/models"))
    assert all(400 <= answer.status < 500 for answer in answers), [answer.status for answer in answers]
    details = [grpc_details(site, canary)]
    metrics = json.dumps(site.server.metrics())
    texts = [*(answer.body.decode() for answer in answers), *details, metrics, site.server.running.log]
    assert not [(word, text[:200]) for word in words for text in texts if word in text]
    tell(f"{len(texts) - 2} errors, the metrics and {len(site.server.running.log)} bytes of log at debug: no canary")


def grpc_details(site: Site, canary: str) -> str:
    address = site.server.running.address("grpc")
    host, port = address.rsplit(":", 1)
    credentials = grpc.ssl_channel_credentials(ssl.get_server_certificate((host, int(port))).encode())
    request = infer_request(
        {"name": "x", "datatype": "INT64", "shape": [3]}, model="labels", raw_input_contents=[canary.encode()]
    )
    with grpc.secure_channel(address, credentials) as channel:
        try:
            Rpcs(channel).call("ModelInfer", request, metadata=(("authorization", site.authorization),))
        except grpc.RpcError as error:
            return str(error.details())
    raise AssertionError("it was answered")


def test_the_same_request_is_computed_again(site: Site) -> None:
    def counts() -> tuple[int, int]:
        (statistics,) = site.raw.ask("GET", "/v2/models/model/stats").json["model_stats"]
        assert statistics["inference_stats"]["cache_hit"]["count"] == 0
        return statistics["inference_count"], statistics["execution_count"]

    before = counts()
    answers = [site.raw.ask("POST", INFER, infer_json()) for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
    assert counts() == (before[0] + 2, before[1] + 2)
    assert not {"age", "etag", "x-cache"} & answers[1].headers.keys()
