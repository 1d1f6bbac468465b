"""`BlindAiClient` with the calls of the 0.3 line's README, against a real server."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from e2e import tiny_models
from onnx import TensorProto, helper

import blindai
from blindai.client import BlindAiClient, ModelDatumType
from blindai.client.connection import SYSTEM_CLOCK
from blindai.errors import (
    ConnectionLostError,
    InvalidInputError,
    ModelNotFoundError,
    PolicyViolationError,
    RejectedEvidenceError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.running_server import RunningServer

pytestmark = pytest.mark.network


def connect(url: str) -> BlindAiClient:
    """As a script of that time does it: host and port apart."""
    host, port = url.removeprefix("https://").split(":")
    client = BlindAiClient()
    client.connect_server(addr=host, simulation=True, attested_port=int(port))
    return client


@pytest.fixture
def classic(server_url: str) -> Iterator[BlindAiClient]:
    with connect(server_url) as client:
        yield client


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A model that takes int64 [batch, sequence], as a DistilBERT does."""
    return tiny_models.identity(tmp_path / "tokens.onnx", TensorProto.INT64, ["batch", "sequence"])


def test_the_numbers_of_the_element_types() -> None:
    names = ["F32", "F64", "I32", "I64", "U32", "U64", "U8", "U16", "I8", "I16", "Bool"]
    assert [(item.name, item.value) for item in ModelDatumType] == list(zip(names, range(11), strict=True))


def test_one_client_uploads_and_a_new_one_runs_what_was_uploaded_last(server_url: str, tokens: Path) -> None:
    uploader = BlindAiClient()
    uploader.connect_server(addr=server_url, simulation=True)
    response = uploader.upload_model(
        model=str(tokens), shape=np.zeros((1, 8)).shape, dtype=ModelDatumType.I64, dtype_out=ModelDatumType.I64
    )
    assert (response.model_id, response.is_signed(), response.is_simulation_mode()) == ("tokens", True, True)

    user = BlindAiClient()
    user.connect_server(addr=server_url, simulation=True)
    answer = user.run_model(list(range(8)))
    assert answer.output == list(range(8))
    assert isinstance(answer.output, list)
    assert (answer.is_signed(), answer.is_simulation_mode()) == (True, True)
    assert b"receipt" in answer.proof.encode()
    with pytest.raises(InvalidInputError, match=r"\[1, 8\], which is 8 values; found 7"):
        user.run_model(list(range(7)))
    for client in (uploader, user):
        client.close_connection()


@pytest.mark.parametrize(
    "form", ["https://{host}", "{host}", "https://{host}/", "https://{host}:{port}", "{host}:{port}"]
)
def test_an_address_has_a_scheme_and_a_port_or_not(server_url: str, form: str) -> None:
    host, port = server_url.removeprefix("https://").split(":")
    client = BlindAiClient(debug_mode=True)
    client.connect_server(
        form.format(host=host, port=port),
        "blindai-srv",
        None,
        None,
        True,  # noqa: FBT003  # by position, as the 0.3 signature allows
        50052,
        int(port),
    )
    assert client.is_connected()
    client.close_connection()


def test_connected_or_not(classic: BlindAiClient, tokens: Path) -> None:
    assert classic.is_connected()
    classic.close_connection()
    assert not classic.is_connected()
    for call in (
        lambda: classic.run_model([1]),
        lambda: classic.upload_model(str(tokens)),
        lambda: classic.delete_model("m"),
    ):
        with pytest.raises(ConnectionError, match="Not connected to the server") as closed:
            call()
        assert isinstance(closed.value, ConnectionLostError)
    classic.close_connection()  # twice does no harm
    assert not BlindAiClient().is_connected()


def test_no_model_was_uploaded(empty_server: RunningServer) -> None:
    with connect(empty_server.url) as client, pytest.raises(ModelNotFoundError, match="Cannot find the model"):
        client.run_model([1, 2, 3])


def test_the_element_types_are_named_as_they_were(classic: BlindAiClient, tmp_path: Path) -> None:
    for dtype, element, values in (
        (ModelDatumType.F64, TensorProto.DOUBLE, [0.1, 1e300]),
        (ModelDatumType.I32, TensorProto.INT32, [-1, 2]),
        (ModelDatumType.Bool, TensorProto.BOOL, [True, False]),
    ):
        path = tiny_models.identity(tmp_path / f"classic-{dtype.name}.onnx", element, [1, 2])
        classic.upload_model(str(path), shape=(1, 2), dtype=dtype, dtype_out=dtype)
        assert classic.run_model(values).output == values
        classic.upload_model(str(path))  # without a shape, the model's own
        assert classic.run_model(values).output == values


def test_what_contradicts_the_model_is_refused_and_leaves_nothing_behind(
    empty_server: RunningServer, tokens: Path
) -> None:
    with connect(empty_server.url) as client, blindai.connect(empty_server.url, insecure_simulation=True) as observer:
        with pytest.raises(InvalidInputError, match="'x' is INT64, dtype says FP32"):
            client.upload_model(str(tokens), shape=(1, 8), dtype=ModelDatumType.F32)
        assert observer.models() == ()
        with pytest.raises(InvalidInputError, match=r"\[-1, -1\]"):
            client.upload_model(str(tokens), shape=(8,), dtype=ModelDatumType.I64)
        assert observer.models() == ()
        with pytest.raises(InvalidInputError, match="no ModelDatumType"):
            client.upload_model(str(tokens), shape=(1, 8), dtype=99)
        assert observer.models() == ()

        client.upload_model(str(tokens), shape=(1, 8), dtype=ModelDatumType.I64)
        with pytest.raises(InvalidInputError, match="dtype says"):
            client.upload_model(str(tokens), shape=(1, 8), dtype=ModelDatumType.F32)
        assert client.run_model(list(range(8))).output == list(range(8))  # the right one stays


def test_a_model_without_inputs_is_uploaded_and_run(classic: BlindAiClient, tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["y"], value_floats=[1.5, 2.5])
    path = tiny_models.save(tmp_path / "classic-constant.onnx", [node], inputs={}, outputs={"y": (1, [2])})
    assert classic.upload_model(str(path)).model_id == "classic-constant"
    assert classic.run_model([], model_id="classic-constant").output == [1.5, 2.5]
    with pytest.raises(InvalidInputError, match="no inputs"):
        classic.upload_model(str(path), shape=(1, 2))


def test_keys_that_end_after_a_run_do_not_cost_its_result(classic: BlindAiClient, tokens: Path) -> None:
    """What a response says of the server is what was attested for it: nothing is asked again."""
    classic.upload_model(str(tokens), shape=(1, 2), dtype=ModelDatumType.I64)
    classic.run_model([1, 2], model_id="tokens")
    client = classic._client
    assert client is not None
    keyset = client._connection.living_keyset()
    moments = iter([time.time()])
    client._connection.clock = replace(SYSTEM_CLOCK, wall=lambda: next(moments, time.time() + 1e6))
    response = classic.run_model([1, 2], model_id="tokens")
    assert (response.output, response.is_simulation_mode()) == ([1, 2], True)
    assert client._connection.attested is keyset


def test_several_models_are_told_apart_by_name(classic: BlindAiClient, tmp_path: Path) -> None:
    for factor in (2, 3):
        path = tiny_models.times(tmp_path / f"classic-{factor}.onnx", factor)
        assert classic.upload_model(str(path), model_name=f"times-{factor}").model_id == f"times-{factor}"
    assert classic.run_model([1, 2, 3], model_id="times-2").output == [2, 4, 6]
    assert classic.run_model(np.ones((2, 3), np.float32)).output == [3.0] * 6
    classic.delete_model("times-2")
    with pytest.raises(ModelNotFoundError):
        classic.run_model([1, 2, 3], model_id="times-2")


def test_a_simulated_server_is_refused_unless_the_caller_says_otherwise(server_url: str) -> None:
    client = BlindAiClient()
    with pytest.raises(PolicyViolationError) as refused:
        client.connect_server(server_url)
    assert isinstance(refused.value, RejectedEvidenceError)
    assert "simulation" in refused.value.hint
    assert not client.is_connected()


def test_nobody_listens() -> None:
    client = BlindAiClient()
    with pytest.raises(ConnectionError, match="cannot connect"):
        client.connect_server("127.0.0.1", simulation=True, attested_port=1)
    assert not client.is_connected()
