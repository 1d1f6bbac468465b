"""The pinned-TLS door: the SDK over it does what it does sealed, says less about it, and plain HTTP works too."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import TYPE_CHECKING

import numpy as np
import pytest
from e2e.tiny_models import times

import blindai
from blindai.errors import (
    ConnectionLostError,
    InvalidInputError,
    InvalidReceiptError,
    ModelChangedError,
    ModelNotFoundError,
)
from blindai.oip.rest import InferRequest, encode_infer_request
from blindai.oip.tensors import tensor_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.running_server import RunningServer

    from blindai import Client

pytestmark = pytest.mark.network
VALUES = np.array([[1, 2, 3]], dtype=np.float32)


@pytest.fixture(scope="module")
def pinned(server_url: str) -> Iterator[Client]:
    with blindai.connect(server_url, insecure_simulation=True, transport="tls") as connected:
        yield connected


@pytest.fixture
def raw(server_url: str) -> Iterator[http.client.HTTPSConnection]:
    """What knows nothing of BlindAI."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = server_url.removeprefix("https://").split(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=20)
    yield connection
    connection.close()


def test_every_call_works_over_pinned_tls(pinned: Client, client: Client, tmp_path: Path) -> None:
    uploaded = pinned.upload_model(times(tmp_path / "pinned.onnx", 2))
    assert pinned.infer("pinned", VALUES)["y"].tolist() == (2 * VALUES).tolist()
    assert pinned.infer(f"pinned@{uploaded.digest}", VALUES, outputs=["y"])["y"].tolist() == (2 * VALUES).tolist()
    assert client.infer("pinned", VALUES)["y"].tolist() == (2 * VALUES).tolist()  # one server behind both doors
    assert [spec.name for spec in pinned.metadata("pinned").inputs] == ["x"]
    assert pinned.models() == client.models()
    assert pinned.delete_model("pinned") == 1
    with pytest.raises(ModelNotFoundError):
        pinned.infer("pinned", VALUES)


async def test_the_async_client_does_too(server_url: str, tmp_path: Path) -> None:
    async with blindai.AsyncClient(server_url, insecure_simulation=True, transport="tls") as connected:
        await connected.upload_model(times(tmp_path / "pinned_async.onnx", 3), progress=False)
        result = await connected.infer("pinned_async", VALUES)
        assert result["y"].tolist() == (3 * VALUES).tolist()
        assert connected.attestation.level == "simulated"
        assert await connected.delete_model("pinned_async") == 1


def test_a_large_upload_and_a_large_answer_pass(pinned: Client, tmp_path: Path) -> None:
    pinned.upload_model(times(tmp_path / "pinned_large.onnx", 2), progress=False)
    values = np.ones((1_000_000, 3), dtype=np.float32)
    assert np.array_equal(pinned.infer("pinned_large", values)["y"], 2 * values)
    pinned.delete_model("pinned_large")


def test_a_model_that_was_replaced_is_noticed(pinned: Client, client: Client, tmp_path: Path) -> None:
    pinned.upload_model(times(tmp_path / "pinned_changed.onnx", 2))
    pinned.infer("pinned_changed", VALUES)
    client.upload_model(times(tmp_path / "pinned_changed.onnx", 5))
    assert pinned.infer("pinned_changed", VALUES)["y"].tolist() == (5 * VALUES).tolist()
    assert ModelChangedError.status == 412


def test_there_is_no_receipt_and_asking_for_one_says_why(pinned: Client, tmp_path: Path) -> None:
    uploaded = pinned.upload_model(times(tmp_path / "unsigned.onnx", 2))
    result = pinned.infer("unsigned", VALUES)
    for ask in (lambda: uploaded.receipt, lambda: result.receipt, result.proof, result.opening):
        with pytest.raises(InvalidReceiptError, match="signs no receipts"):
            ask()


@pytest.mark.parametrize("level", ["fresh", "cached"])
def test_a_level_above_pinned_tls_is_refused_before_anything_is_sent(level: str) -> None:
    with pytest.raises(InvalidInputError, match="nothing is better than 'pinned-tls'"):
        blindai.connect("https://127.0.0.1:1", insecure_simulation=True, transport="tls", level=level)


def test_pinned_tls_without_tls_and_an_unknown_transport_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="needs an https"):
        blindai.connect("http://127.0.0.1:1", insecure_simulation=True, transport="tls")
    with pytest.raises(InvalidInputError, match="transport is one of"):
        blindai.connect("https://127.0.0.1:1", insecure_simulation=True, transport="quic")


def test_the_attestation_says_that_the_level_is_no_better_and_names_the_key(pinned: Client) -> None:
    assert pinned.attestation.level == "simulated"
    assert pinned.attestation.keyset.kind == "epoch"
    assert len(pinned.attestation.keyset.tls) == 1
    assert "keyset.tls" in {finding.code for finding in pinned.attestation.findings}


def test_another_server_in_its_place_is_attested_before_it_is_asked(
    start_server: Callable[..., RunningServer],
) -> None:
    first = start_server()
    with blindai.connect(first.url, insecure_simulation=True, transport="tls") as connected:
        assert connected.models() == ()
        before = connected.attestation.keyset.tls
        first.kill()
        second = start_server(port=first.port)
        try:
            assert connected.models() == ()
        except ConnectionLostError:  # the end of the idle connection was not seen yet
            assert connected.models() == ()
        assert connected.attestation.keyset.tls != before
        second.kill()


def test_plain_http_infers(raw: http.client.HTTPSConnection, client: Client, tmp_path: Path) -> None:
    client.upload_model(times(tmp_path / "plain.onnx", 2))
    buffers, length = encode_infer_request(InferRequest(id="", inputs=(tensor_from(VALUES, name="x"),), outputs=()))
    body = b"".join(buffers)
    for framed in (body, iter([body[:10], body[10:]])):
        headers = {"Inference-Header-Content-Length": str(length), "Blindai-Client": "me"}
        raw.request("POST", "/v2/models/pl%61in/infer", framed, headers, encode_chunked=True)
        answer = raw.getresponse()
        data = answer.read()
        assert answer.status == 200
        assert answer.getheader("cache-control") == "no-store"
        assert data.endswith((2 * VALUES).tobytes())
        assert answer.getheader("server") is None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/nope", 404),
        ("GET", "/v2/models/a%2Fb", 404),
        ("GET", "/v2/models/a%2fb", 404),
        ("GET", "/v2/models/%ff", 404),
        ("GET", "/v2/models/a%0Ab", 404),
        ("GET", "/v2/models/../../etc/passwd", 404),
        ("TRACE", "/v2", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v1/sealed", 405),
    ],
)
def test_errors_are_json(raw: http.client.HTTPSConnection, method: str, path: str, status: int) -> None:
    raw.request(method, path)
    answer = raw.getresponse()
    assert answer.status == status
    assert answer.getheader("content-type") == "application/json"
    assert json.loads(answer.read())["error"]
    assert (answer.getheader("allow") is not None) == (status == 405)


def test_head_answers_as_get_does_without_the_body(raw: http.client.HTTPSConnection) -> None:
    raw.request("GET", "/v2")
    answer = raw.getresponse()
    length = str(len(answer.read()))
    raw.request("HEAD", "/v2")
    answer = raw.getresponse()
    assert (answer.status, answer.getheader("content-length"), answer.read()) == (200, length, b"")


def test_a_header_that_decides_something_stands_there_once(raw: http.client.HTTPSConnection) -> None:
    raw.putrequest("GET", "/v2")
    raw.putheader("authorization", "Bearer a")
    raw.putheader("authorization", "Bearer b")
    raw.endheaders()
    answer = raw.getresponse()
    assert answer.status == 400
    assert "authorization stands there twice" in json.loads(answer.read())["error"]
