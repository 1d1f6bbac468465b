"""The models of the conformance suite: made with onnx, written as a Triton repository, or put in by load requests.

Leaves out: what is asked of them (the `checks_*` files).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx

    Face = Mapping[str, tuple[int, Sequence[int | str]]]

_TYPES: dict[int, str] = {
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.BFLOAT16: "TYPE_BF16",
    TensorProto.STRING: "TYPE_STRING",
    TensorProto.BOOL: "TYPE_BOOL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformanceModel:
    """One model.

    Attributes:
        name: in the repository.
        file: the ONNX file.
        config: `config.pbtxt`.
        config_json: the same as JSON, for a load request.
    """

    name: str
    file: bytes
    config: str
    config_json: str


def _model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Face,
    outputs: Face,
    max_batch_size: int = 0,
    initialisers: Sequence[onnx.TensorProto] = (),
) -> ConformanceModel:
    takes, gives = (
        [helper.make_tensor_value_info(tensor, element, shape) for tensor, (element, shape) in face.items()]
        for face in (inputs, outputs)
    )
    graph = helper.make_graph(list(nodes), "g", takes, gives, list(initialisers))
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', f"max_batch_size: {max_batch_size}"]
    for side, face in (("input", inputs), ("output", outputs)):
        for tensor, (element, shape) in face.items():
            dims = [axis if isinstance(axis, int) else -1 for axis in shape][bool(max_batch_size) :]
            default = " optional: true" if tensor in {initialiser.name for initialiser in initialisers} else ""
            if dims or max_batch_size:
                lines.append(f'{side} {{ name: "{tensor}" data_type: {_TYPES[element]} dims: {dims}{default} }}')
    batching = ', "dynamic_batching": {}' if max_batch_size else ""
    if max_batch_size:
        lines.append("dynamic_batching { }")
    return ConformanceModel(
        name=name,
        file=bytes(file),
        config="\n".join(lines) + "\n",
        config_json=f'{{"name": "{name}", "max_batch_size": {max_batch_size}{batching}}}',
    )


def _identity(name: str, element: int, shape: Sequence[int | str], *, max_batch_size: int = 0) -> ConformanceModel:
    node = helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])
    face = (element, shape)
    return _model(name, [node], inputs={"INPUT0": face}, outputs={"OUTPUT0": face}, max_batch_size=max_batch_size)


def _simple() -> ConformanceModel:
    """Triton's: sum and difference of two rows of sixteen."""
    face = (TensorProto.INT32, ("n", 16))
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    return _model(
        "simple",
        nodes,
        inputs={"INPUT0": face, "INPUT1": face},
        outputs={"OUTPUT0": face, "OUTPUT1": face},
        max_batch_size=8,
    )


def _optional() -> ConformanceModel:
    """An input with a default: an initialiser that the caller may override."""
    face = (TensorProto.FLOAT, ("n",))
    default = numpy_helper.from_array(np.array([10], np.float32), "INPUT1")
    node = helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"])
    return _model(
        "id_opt",
        [node],
        inputs={"INPUT0": face, "INPUT1": (TensorProto.FLOAT, (1,))},
        outputs={"OUTPUT0": face},
        initialisers=[default],
    )


def _constant() -> ConformanceModel:
    """A model without inputs."""
    value = numpy_helper.from_array(np.array([1, 2], np.float32))
    node = helper.make_node("Constant", [], ["OUTPUT0"], value=value)
    return _model("id_none", [node], inputs={}, outputs={"OUTPUT0": (TensorProto.FLOAT, (2,))})


def conformance_models() -> tuple[ConformanceModel, ...]:
    """All of them."""
    return (
        _simple(),
        _identity("id_fp32", TensorProto.FLOAT, ("n", "m"), max_batch_size=8),
        _identity("id_fp16", TensorProto.FLOAT16, ("n", "m")),
        _identity("id_bf16", TensorProto.BFLOAT16, ("n",)),
        _identity("id_bytes", TensorProto.STRING, ("n",)),
        _identity("id_bool", TensorProto.BOOL, ("n",)),
        _identity("id_u64", TensorProto.UINT64, ("n",)),
        _identity("id_i64nb", TensorProto.INT64, (4,)),
        _identity("id_scalar", TensorProto.FLOAT, ()),
        _optional(),
        _constant(),
    )


def write_repository(folder: Path) -> None:
    """As Triton reads it: NAME/config.pbtxt and NAME/1/model.onnx."""
    for model in conformance_models():
        (folder / model.name / "1").mkdir(parents=True)
        (folder / model.name / "config.pbtxt").write_text(model.config)
        (folder / model.name / "1" / "model.onnx").write_bytes(model.file)
