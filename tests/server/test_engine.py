"""What the engine loads and runs, and what it says when a request does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from blindai.errors import InternalError, InvalidInputError, InvalidModelError
from blindai.oip.tensors import Datatype, Tensor, TensorSpec
from blindai.server.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

NUMPY: dict[int, tuple[Datatype, Any]] = {
    TensorProto.BOOL: (Datatype.BOOL, np.bool_),
    TensorProto.UINT8: (Datatype.UINT8, np.uint8),
    TensorProto.UINT16: (Datatype.UINT16, np.uint16),
    TensorProto.UINT32: (Datatype.UINT32, np.uint32),
    TensorProto.UINT64: (Datatype.UINT64, np.uint64),
    TensorProto.INT8: (Datatype.INT8, np.int8),
    TensorProto.INT16: (Datatype.INT16, np.int16),
    TensorProto.INT32: (Datatype.INT32, np.int32),
    TensorProto.INT64: (Datatype.INT64, np.int64),
    TensorProto.FLOAT16: (Datatype.FP16, np.float16),
    TensorProto.FLOAT: (Datatype.FP32, np.float32),
    TensorProto.DOUBLE: (Datatype.FP64, np.float64),
    TensorProto.BFLOAT16: (Datatype.BF16, np.uint16),
}


def serialise(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initialisers: Sequence[onnx.TensorProto] = (),
) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initialisers))
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def info(name: str, element: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def identity(element: int, shape: Sequence[int | str] = ("n", 2)) -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    return serialise([node], [info("x", element, shape)], [info("y", element, shape)])


def add_model() -> bytes:
    """Y = a + b, z = a - b, over float [n, 2]."""
    nodes = [helper.make_node("Add", ["a", "b"], ["y"]), helper.make_node("Sub", ["a", "b"], ["z"])]
    values = {name: info(name, TensorProto.FLOAT, ["n", 2]) for name in "abyz"}
    return serialise(nodes, [values["a"], values["b"]], [values["y"], values["z"]])


def loaded(model: bytes, **files: bytes) -> Engine:
    engine = Engine()
    engine.load({"m.onnx": model, **files})
    return engine


def tensor(name: str, datatype: Datatype, data: Any) -> Tensor:
    return Tensor(name=name, datatype=datatype, shape=data.shape, data=data)


def floats(name: str, *rows: Sequence[float]) -> Tensor:
    return tensor(name, Datatype.FP32, np.array(rows, dtype=np.float32))


@pytest.mark.parametrize("element", NUMPY)
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_every_datatype_goes_in_and_comes_out(element: int, rows: int) -> None:
    datatype, dtype = NUMPY[element]
    data: np.ndarray[Any, Any] = (np.arange(rows * 2).reshape(rows, 2) % 2).astype(dtype)
    engine = loaded(identity(element))
    assert engine.inputs == (TensorSpec(name="x", datatype=datatype, shape=(-1, 2)),)
    (output,) = engine.run((tensor("x", datatype, data),), ())
    assert (output.name, output.datatype, output.shape) == ("y", datatype, (rows, 2))
    np.testing.assert_array_equal(output.data, data)


def test_text_goes_in_and_comes_out_as_bytes() -> None:
    engine = loaded(identity(TensorProto.STRING))
    data = np.array([[b"plain", "caf\u00e9".encode()], [b"", b"with\0zero"]], dtype=object)
    (output,) = engine.run((tensor("x", Datatype.BYTES, data),), ())
    assert output.data.tolist() == data.tolist()
    assert all(type(item) is bytes for item in output.data.flat)


def test_refuses_text_that_is_not_utf_8_without_quoting_it() -> None:
    engine = loaded(identity(TensorProto.STRING))
    data = np.array([[b"secret\xff", b""]], dtype=object)
    with pytest.raises(InvalidInputError, match="UTF-8") as raised:
        engine.run((tensor("x", Datatype.BYTES, data),), ())
    assert "secret" not in str(raised.value) + raised.value.hint


def test_scalars_go_in_and_come_out() -> None:
    engine = loaded(identity(TensorProto.FLOAT, ()))
    (output,) = engine.run((tensor("x", Datatype.FP32, np.array(2.5, dtype=np.float32)),), ())
    assert output.shape == ()
    assert output.data == 2.5


def test_bf16_is_computed_beside_other_datatypes() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "b"], ["y"]),
        helper.make_node("Cast", ["y"], ["z"], to=TensorProto.BFLOAT16),
    ]
    inputs = [info("x", TensorProto.BFLOAT16, ["n"]), info("b", TensorProto.FLOAT, ["n"])]
    outputs = [info("y", TensorProto.FLOAT, ["n"]), info("z", TensorProto.BFLOAT16, ["n"])]
    engine = loaded(serialise(nodes, inputs, outputs))
    one = tensor("x", Datatype.BF16, np.array([0x3F80, 0xC000], dtype=np.uint16))  # 1, -2
    half = tensor("b", Datatype.FP32, np.array([0.5, 0.5], dtype=np.float32))
    wide, narrow = engine.run((half, one), ())
    assert wide.data.tolist() == [1.5, -1.5]
    assert narrow.data.tolist() == [0x3FC0, 0xBFC0]


def test_outputs_come_as_wished() -> None:
    engine = loaded(add_model())
    inputs = (floats("b", [1, 2]), floats("a", [10, 20]))
    assert [output.name for output in engine.run(inputs, ())] == ["y", "z"]
    z, y = engine.run(inputs, ("z", "y"))
    assert z.data.tolist() == [[9, 18]]
    assert y.data.tolist() == [[11, 22]]
    (only,) = engine.run(inputs, ("z",))
    assert only.name == "z"


@pytest.mark.parametrize("wished", [("x",), ("y", "y"), ("",)])
def test_refuses_outputs_that_the_model_does_not_have(wished: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError) as raised:
        loaded(add_model()).run((floats("a", [1, 2]), floats("b", [1, 2])), wished)
    assert "y FP32 [-1, 2]" in raised.value.hint


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "'a' is missing"),
        ((floats("b", [1, 2]),), "'a' is missing"),
        ((floats("a", [1, 2]), floats("b", [1, 2]), floats("secret", [1])), "does not have"),
        ((floats("a", [1, 2]), floats("a", [1, 2]), floats("b", [1, 2])), "twice"),
        ((floats("a", [1, 2]), tensor("b", Datatype.FP64, np.zeros((1, 2)))), "FP64, the model expects FP32"),
        ((floats("a", [1, 2]), floats("b", [1, 2, 777])), r"expects \[-1, 2\]"),
        ((floats("a", [1, 2]), tensor("b", Datatype.FP32, np.zeros(2, dtype=np.float32))), r"expects \[-1, 2\]"),
        ((floats("a", [1, 2]), tensor("b", Datatype.FP32, np.zeros((1, 1, 2), dtype=np.float32))), r"\[-1, 2\]"),
    ],
)
def test_says_what_the_model_expects_and_not_what_came(inputs: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as raised:
        loaded(add_model()).run(inputs, ())
    words = str(raised.value) + raised.value.hint
    assert "secret" not in words
    assert "777" not in words


def test_a_failure_inside_the_model_quotes_nothing() -> None:
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [1, 2, 3])
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    model = serialise([node], [info("x", TensorProto.INT64, ["n"])], [info("y", TensorProto.FLOAT, ["n"])], [table])
    engine = loaded(model)
    with pytest.raises(InternalError) as raised:
        engine.run((tensor("x", Datatype.INT64, np.array([987654], dtype=np.int64)),), ())
    assert "987654" not in str(raised.value) + raised.value.hint
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    (output,) = engine.run((tensor("x", Datatype.INT64, np.array([2], dtype=np.int64)),), ())
    assert output.data.tolist() == [3]


def with_external_weights(location: str) -> bytes:
    """Y = x + w, with four floats w in another file from its sixteenth byte on."""
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, entry in (("location", location), ("offset", "16"), ("length", "16")):
        weights.external_data.add(key=key, value=entry)
    values = [info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    return serialise([helper.make_node("Add", ["x", "w"], ["y"])], values[:1], values[1:], [weights])


def test_weights_come_from_a_file_of_the_same_upload() -> None:
    data = bytes(16) + np.arange(4, dtype="<f4").tobytes()
    engine = Engine()
    buffer = bytearray(data)
    with memoryview(buffer) as view:
        engine.load({"m.onnx.data": view, "m.onnx": with_external_weights("m.onnx.data")})
    buffer[:] = b"\xff" * len(buffer)  # the engine has its own copy: the file may be unmapped
    (output,) = engine.run((tensor("x", Datatype.FP32, np.ones(4, dtype=np.float32)),), ())
    assert output.data.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("location", ["/etc/passwd", "../../../../../../etc/passwd", "etc/passwd", "passwd"])
def test_weights_never_come_from_the_machine(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/etc")
    with pytest.raises(InvalidModelError, match="same upload"):
        loaded(with_external_weights(location), **{"m.onnx.data": bytes(32)})


def test_explains_how_to_export_a_classifier_with_tensors() -> None:
    node = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    model = serialise([node], [info("x", TensorProto.FLOAT, ["n", 2])], [helper.make_value_info("y", kind)])
    with pytest.raises(InvalidModelError, match="not a tensor") as raised:
        loaded(model)
    assert "zipmap=False" in raised.value.hint


def test_refuses_element_types_outside_the_protocol() -> None:
    with pytest.raises(InvalidModelError, match="element type"):
        loaded(identity(TensorProto.FLOAT8E4M3FN))


def test_a_model_that_onnx_runtime_cannot_load_is_invalid() -> None:
    node = helper.make_node("NoSuchOperator", ["secret-input"], ["y"])
    values = [info("secret-input", TensorProto.FLOAT, [1]), info("y", TensorProto.FLOAT, [1])]
    with pytest.raises(InvalidModelError, match="cannot load") as raised:
        loaded(serialise([node], values[:1], values[1:]))
    assert "secret" not in str(raised.value) + raised.value.hint


def test_axes_of_any_size_are_minus_one() -> None:
    engine = loaded(identity(TensorProto.FLOAT, ("batch", -1, 3)))
    assert engine.inputs[0].shape == (-1, -1, 3)
    assert engine.outputs[0].shape == (-1, -1, 3)
