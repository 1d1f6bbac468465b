"""What users hand to `infer`: arrays, lists, dicts, scalars, of every datatype; and what they read if it is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from e2e import tiny_models
from onnx import TensorProto, helper

from blindai.errors import InternalError, InvalidInputError
from blindai.oip.tensors import Datatype

if TYPE_CHECKING:
    from pathlib import Path

    from blindai import Client

pytestmark = pytest.mark.network

DATATYPES: dict[int, tuple[Datatype, Any]] = {
    TensorProto.BOOL: (Datatype.BOOL, [[True, False]]),
    TensorProto.UINT8: (Datatype.UINT8, [[0, 255]]),
    TensorProto.UINT16: (Datatype.UINT16, [[0, 65535]]),
    TensorProto.UINT32: (Datatype.UINT32, [[0, 2**32 - 1]]),
    TensorProto.UINT64: (Datatype.UINT64, [[0, 2**64 - 1]]),
    TensorProto.INT8: (Datatype.INT8, [[-128, 127]]),
    TensorProto.INT16: (Datatype.INT16, [[-(2**15), 2**15 - 1]]),
    TensorProto.INT32: (Datatype.INT32, [[-(2**31), 2**31 - 1]]),
    TensorProto.INT64: (Datatype.INT64, [[-(2**63), 2**63 - 1]]),
    TensorProto.FLOAT16: (Datatype.FP16, [[0.5, -65504.0]]),
    TensorProto.FLOAT: (Datatype.FP32, [[1.5, -(2.0**-126)]]),
    TensorProto.DOUBLE: (Datatype.FP64, [[0.1, -1e308]]),
}


@pytest.fixture
def pair(client: Client, tmp_path: Path) -> str:
    """A model with the inputs a and b, both FP32 [n, 2]."""
    return client.upload_model(tiny_models.sum_and_difference(tmp_path / "pair.onnx")).name


@pytest.fixture
def doubler(client: Client, tmp_path: Path) -> str:
    """Y = 2 x over FP32 [n, 3]."""
    return client.upload_model(tiny_models.times(tmp_path / "doubler.onnx", 2)).name


def test_a_value_comes_back_bit_for_bit_in_its_own_datatype(client: Client, tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", [f"in-{name}"], [f"out-{name}"]) for name, _ in DATATYPES.values()]
    takes = {f"in-{name}": (element, ("n", 2)) for element, (name, _) in DATATYPES.items()}
    gives = {f"out-{name}": (element, ("n", 2)) for element, (name, _) in DATATYPES.items()}
    tiny_models.save(tmp_path / "all-types.onnx", nodes, inputs=takes, outputs=gives)
    client.upload_model(tmp_path / "all-types.onnx")
    arrays = {f"in-{datatype}": np.array(values, datatype.numpy) for datatype, values in DATATYPES.values()}
    lists = {f"in-{datatype}": values for datatype, values in DATATYPES.values()}
    for given in (arrays, lists):
        result = client.infer("all-types", given)
        assert [tensor.datatype for tensor in result.outputs] == [datatype for datatype, _ in DATATYPES.values()]
        for datatype, _ in DATATYPES.values():
            found, expected = result[f"out-{datatype}"], arrays[f"in-{datatype}"]
            assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, (1, 2), expected.tobytes())


def test_bf16_comes_back_as_float32_and_may_be_given_as_any_float(client: Client, tmp_path: Path) -> None:
    client.upload_model(tiny_models.identity(tmp_path / "same-bf16.onnx", TensorProto.BFLOAT16))
    given = np.array([[1.5, -3.0e38]], ml_dtypes.bfloat16)
    for value in (given, given.astype(np.float32), given.astype(np.float64).tolist()):
        result = client.infer("same-bf16", value)
        assert result.outputs[0].datatype is Datatype.BF16
        assert result["y"].dtype == np.float32
        assert np.array_equal(result["y"], given.astype(np.float32))


def test_an_input_with_a_default_may_be_left_out_or_given(client: Client, tmp_path: Path) -> None:
    client.upload_model(tiny_models.plus(tmp_path / "plus.onnx"))
    metadata = client.metadata("plus")
    assert [spec.name for spec in metadata.inputs] == ["x"]
    assert [(spec.name, spec.shape) for spec in metadata.optional_inputs] == [("b", (1,))]
    x = np.array([[1, 2]], np.float32)
    assert client.infer("plus", x)["y"].tolist() == [[11, 12]]
    assert client.infer("plus", {"x": x, "b": [5]})["y"].tolist() == [[6, 7]]
    assert client.infer("plus", {"x": x})["y"].tolist() == [[11, 12]]  # nobody else's default changed
    with pytest.raises(InvalidInputError, match=r"may take \['b'\]"):
        client.infer("plus", {"b": [5]})
    with pytest.raises(InvalidInputError, match="'b'"):
        client.infer("plus", {"x": x, "b": [5, 5]})


def test_weights_that_an_old_format_lists_as_inputs_are_none(client: Client, tmp_path: Path) -> None:
    client.upload_model(tiny_models.plus(tmp_path / "old.onnx", ir_version=3))
    assert client.metadata("old").optional_inputs == ()
    with pytest.raises(InvalidInputError, match="found"):
        client.infer("old", {"x": np.ones((1, 2), np.float32), "b": [5]})


def test_text_goes_in_and_comes_out_as_utf8(client: Client, tmp_path: Path) -> None:
    client.upload_model(tiny_models.text_labels(tmp_path / "labels.onnx"))
    words = ["œuf", "chat", "zèbre"]
    for value in (words, np.array(words), np.array(words, object), [word.encode() for word in words]):
        assert client.infer("labels", value).outputs[0].as_flat() == [b"egg", b"cat", b"?"]


def test_a_flat_list_takes_the_shape_given_at_upload(client: Client, tmp_path: Path) -> None:
    path = tiny_models.times(tmp_path / "shaped.onnx", 2, shape=["n", "m"])
    client.upload_model(path, shape=(2, 3))
    assert client.metadata("shaped").default_shape == (2, 3)
    assert client.infer("shaped", [1, 2, 3, 4, 5, 6])["y"].tolist() == [[2, 4, 6], [8, 10, 12]]
    assert client.infer("shaped", [[1, 2]])["y"].tolist() == [[2, 4]]  # a shape of its own needs no other


def test_a_wrong_count_says_what_was_expected_and_what_was_found(client: Client, tmp_path: Path) -> None:
    client.upload_model(tiny_models.times(tmp_path / "counted.onnx", 2, shape=["n", "m"]), shape=[1, 8])
    with pytest.raises(InvalidInputError, match=r"\[1, 8\], which is 8 values; found 7 values"):
        client.infer("counted", [0.0] * 7)


def test_a_flat_list_fills_the_one_axis_that_the_model_leaves_open(client: Client, doubler: str) -> None:
    assert client.infer(doubler, [1, 2, 3])["y"].shape == (1, 3)
    assert client.infer(doubler, range(6))["y"].shape == (2, 3)
    with pytest.raises(InvalidInputError, match=r"\[-1, 3\], a multiple of 3 values; found 4 values"):
        client.infer(doubler, [1, 2, 3, 4])


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_an_open_axis_takes_any_size(client: Client, doubler: str, rows: int) -> None:
    data = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    assert np.array_equal(client.infer(doubler, data)["y"], 2 * data)


def test_an_array_may_lie_in_memory_in_any_way(client: Client, doubler: str) -> None:
    data = np.arange(24, dtype=np.float32).reshape(3, 8)
    for view in (data.T, data.T[::-1], data.T[1:7:2], data.T.astype(">f4"), np.asfortranarray(data.T)):
        assert np.array_equal(client.infer(doubler, view)["y"], 2 * view)


def test_the_array_of_a_model_with_one_input_may_stand_in_a_list(client: Client, doubler: str) -> None:
    data = np.ones((2, 3), np.float32)
    assert np.array_equal(client.infer(doubler, [data])["y"], 2 * data)
    assert np.array_equal(client.infer(doubler, (data,))["y"], 2 * data)
    assert np.array_equal(client.infer(doubler, [data[0], data[1]])["y"], 2 * data)  # a list of rows


def test_scalars(client: Client, tmp_path: Path) -> None:
    client.upload_model(tiny_models.times(tmp_path / "scalar.onnx", 2, shape=[]))
    for value in (21, 21.0, np.float32(21), np.array(21), [21]):
        output = client.infer("scalar", value)["y"]
        assert (output.shape, float(output)) == ((), 42.0)


def test_an_output_may_go_in_again(client: Client, doubler: str) -> None:
    first = client.infer(doubler, [1, 2, 3])
    assert client.infer(doubler, first.outputs[0])["y"].tolist() == [[4, 8, 12]]


def test_inputs_by_name_or_in_the_models_order(client: Client, pair: str) -> None:
    a, b = np.array([[5, 6]], np.float32), [[1, 2]]
    for inputs in ({"a": a, "b": b}, {"b": b, "a": a}, [a, b], (a, b)):
        result = client.infer(pair, inputs)
        assert result["z"].tolist() == [[4, 4]]


def test_outputs_may_be_chosen(client: Client, pair: str) -> None:
    inputs = {"a": [[5, 6]], "b": [[1, 2]]}
    assert [tensor.name for tensor in client.infer(pair, inputs, outputs=["z"]).outputs] == ["z"]
    assert [tensor.name for tensor in client.infer(pair, inputs, outputs=["z", "y"]).outputs] == ["z", "y"]
    with pytest.raises(InvalidInputError, match="output"):
        client.infer(pair, inputs, outputs=["w"])


@pytest.mark.parametrize("inputs", [{"a": [[1, 2]]}, {"a": [[1, 2]], "b": [[1, 2]], "c": [[1, 2]]}, {}])
def test_missing_and_unknown_inputs_are_named(client: Client, pair: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"\['a', 'b'\], found") as wrong:
        client.infer(pair, inputs)
    assert str(sorted(inputs)) in str(wrong.value)


def test_too_few_inputs_are_counted(client: Client, pair: str) -> None:
    with pytest.raises(InvalidInputError, match=r"takes 2 inputs, \['a', 'b'\]; found 1"):
        client.infer(pair, [[[1, 2]]])
    with pytest.raises(InvalidInputError, match="takes 2 inputs"):
        client.infer(pair, np.ones((1, 2), np.float32))


def test_what_a_datatype_cannot_hold_is_refused_and_not_rounded(client: Client, tmp_path: Path) -> None:
    client.upload_model(tiny_models.identity(tmp_path / "bytes.onnx", TensorProto.UINT8))
    for value in ([[256, 0]], [[-1, 0]], [[0.5, 0]], np.array([[np.nan, 0]]), [["1", "2"]]):
        with pytest.raises(InvalidInputError, match="UINT8"):
            client.infer("bytes", value)
    assert client.infer("bytes", [[255.0, 0.0]])["y"].tolist() == [[255, 0]]


def test_a_wrong_rank_and_ragged_lists_are_refused(client: Client, doubler: str) -> None:
    with pytest.raises(InvalidInputError, match=r"\[-1, 3\]"):
        client.infer(doubler, np.ones((1, 1, 3), np.float32))
    with pytest.raises(InvalidInputError, match="unequal length"):
        client.infer(doubler, [[1, 2, 3], [1, 2]])
    with pytest.raises(InvalidInputError):
        client.infer(doubler, None)


def test_a_model_without_inputs_runs(client: Client, tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["y"], value_floats=[1.0, 2.0])
    tiny_models.save(tmp_path / "constant.onnx", [node], inputs={}, outputs={"y": (TensorProto.FLOAT, [2])})
    client.upload_model(tmp_path / "constant.onnx")
    assert client.infer("constant", {})["y"].tolist() == [1, 2]


def test_a_value_on_which_the_model_fails_breaks_nothing_and_is_not_repeated_in_words(
    client: Client, tmp_path: Path
) -> None:
    client.upload_model(tiny_models.lookup(tmp_path / "table.onnx", [10, 20, 30]))
    with pytest.raises(InternalError, match="failed on this input") as failed:
        client.infer("table", [987654])
    assert "987654" not in f"{failed.value} {failed.value.hint}"
    assert client.infer("table", [2, 0])["y"].tolist() == [30, 10]
