"""`blindai.client.connect` with the habits of 0.4 and 0.5, against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from e2e import tiny_models
from onnx import TensorProto

from blindai.client import ModelDatumType, TensorInfo, connect
from blindai.errors import InvalidInputError, ModelNotFoundError, PolicyViolationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blindai.client import BlindAiConnection

pytestmark = pytest.mark.network
EIGHT = list(range(8))


@pytest.fixture
def connection(server_url: str) -> Iterator[BlindAiConnection]:
    with connect(server_url, simulation=True) as opened:
        yield opened


@pytest.fixture
def tokens(connection: BlindAiConnection, tmp_path: Path) -> str:
    path = tiny_models.identity(tmp_path / "tokens-05.onnx", TensorProto.INT64, ["batch", "sequence"])
    return connection.upload_model(str(path), shape=(1, 8), dtype="int64").model_id


def test_a_connection_is_a_context_manager(server_url: str) -> None:
    host, port = server_url.removeprefix("https://").split(":")
    with connect(host, "blindai-srv", None, None, True, 50052, int(port), True, "") as connection:  # noqa: FBT003
        assert connection.is_connected()
    assert not connection.is_connected()
    with pytest.raises(ConnectionError, match="Not connected"):
        connection.predict(None, [1])


def test_simulation_has_to_be_asked_for(server_url: str) -> None:
    with pytest.raises(PolicyViolationError):
        connect(server_url)


@pytest.mark.parametrize("name", ["model_name", "model_id"])
def test_a_model_is_named_run_and_deleted(connection: BlindAiConnection, tmp_path: Path, name: str) -> None:
    model_id = f"named-by-{name.replace('_', '-')}"
    uploaded = connection.upload_model(tiny_models.times(tmp_path / "m.onnx", 3), sign=True, **{name: model_id})  # type: ignore[arg-type]
    assert uploaded.model_id == model_id
    assert connection.run_model(model_id, [1, 2, 3], sign=True).output == [3.0, 6.0, 9.0]
    connection.delete_model(model_id)
    with pytest.raises(ModelNotFoundError):
        connection.run_model(model_id, [1, 2, 3])


@pytest.mark.parametrize(
    "given",  # tensors, dtype, shape
    [
        (EIGHT, None, None),  # a flat list, which 0.5 documented and never took
        (EIGHT, ModelDatumType.I64, (1, 8)),
        (EIGHT, "int64", [1, 8]),
        (EIGHT, np.int64, None),
        ([EIGHT], ["int64"], [(1, 8)]),
        ([EIGHT], None, [[1, 8]]),
        (np.array([EIGHT]), None, None),
        ([np.array([EIGHT])], None, None),
        ([np.array([EIGHT])], "int64", None),
        (np.array([EIGHT], np.int32), np.dtype("int64"), None),
        ([EIGHT], "int64", None),
    ],
)
def test_predict_takes_every_form(connection: BlindAiConnection, tokens: str, given: tuple[Any, Any, Any]) -> None:
    response = connection.predict(tokens, *given)
    assert [tensor.as_flat() for tensor in response.output] == [EIGHT]
    assert response.output[0].as_numpy().shape == (1, 8)
    assert response.is_signed()
    response.validate(EIGHT, allow_simulation_mode=True)


def test_predict_takes_several_inputs(connection: BlindAiConnection, tmp_path: Path) -> None:
    model = tiny_models.sum_and_difference(tmp_path / "sum-05.onnx")
    model_id = connection.upload_model(
        model, tensor_inputs=[TensorInfo([1, 2], "float32", "a"), ([1, 2], ModelDatumType.F32)]
    ).model_id
    for dtype, shape in ((None, None), (["float32"] * 2, [(1, 2), (1, 2)]), (ModelDatumType.F32, [(1, 2)] * 2)):
        given = [np.ones((1, 2), np.float32)] * 2 if shape is None else [[1, 1], [1, 1]]
        assert connection.predict(model_id, given, dtype, shape).output[0].as_flat() == [2.0, 2.0]
    with pytest.raises(InvalidInputError, match="2 tensors come with 1 types"):
        connection.predict(model_id, [[1, 1], [1, 1]], ["float32"])


def test_tensor_inputs_are_held_to_the_model(connection: BlindAiConnection, tmp_path: Path) -> None:
    model = tiny_models.times(tmp_path / "held-05.onnx", 2)
    with pytest.raises(InvalidInputError, match="dtype says INT64"):
        connection.upload_model(model, tensor_inputs=[TensorInfo((1, 3), ModelDatumType.I64)])


def test_a_wrong_type_or_shape_is_said(connection: BlindAiConnection, tokens: str) -> None:
    with pytest.raises(InvalidInputError, match="INT64"):
        connection.predict(tokens, EIGHT, "float32", (1, 8))
    with pytest.raises(InvalidInputError, match="which is 7 values"):
        connection.predict(tokens, EIGHT, "int64", (1, 7))
    with pytest.raises(InvalidInputError, match="no ModelDatumType"):
        connection.predict(tokens, EIGHT, "quaternion")
