"""Makes a smaller variant of a model, for its owner (`blindai optimize`): another model with another digest.

Leaves out: how the two compare (variant_report.py). No server calls this.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper, version_converter
from onnxruntime.quantization import QuantType, quantize_dynamic

from blindai.errors import InvalidModelError
from blindai.oip.datatypes import narrow_to_bf16
from blindai.server.variant_targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_INLINE_BYTES = 1024 * 1024 * 1024  # protobuf ends at 2 GiB
_MATRIX = 2  # axes of what is narrowed: matrices and kernels; biases and scales are small, and their error is not
_UPGRADED_OPSET = 13
_QUANTIZABLE = frozenset({"MatMul", "Gemm", "Conv", "LSTM", "Attention", "EmbedLayerNormalization"})


def read_model(path: Path) -> onnx.ModelProto:
    """Read a model with its external data.

    Raises:
        InvalidModelError: it is not one.
    """
    try:
        model = onnx.load(path)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise InvalidModelError(
            f"{path.name} cannot be read as an ONNX model: {error}", hint="Export the model to ONNX first."
        ) from None
    if not model.HasField("graph") or not _opset(model):
        raise InvalidModelError(f"{path.name} has no graph or no operator set", hint="Export the model to ONNX first.")
    return model


def upgrade(model: onnx.ModelProto, least: int) -> tuple[onnx.ModelProto, tuple[int, int] | None]:
    """The model in operator set `least` or a newer one, and from where to where it was converted, if it was.

    Raises:
        InvalidModelError: an operator of the model cannot be converted.
    """
    opset = _opset(model)
    if opset >= least:
        return model, None
    try:
        return version_converter.convert_version(model, _UPGRADED_OPSET), (opset, _UPGRADED_OPSET)
    except Exception as error:  # noqa: BLE001  # onnx's C++ raises RuntimeError and ConvertError, and others
        raise InvalidModelError(
            f"the model cannot be converted from operator set {opset}: {error}",
            hint=f"Export it again with opset_version={_UPGRADED_OPSET} or newer.",
        ) from None


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)


def make_variant(model: onnx.ModelProto, to: Target) -> onnx.ModelProto:
    """The model in another precision; the original is left as it is.

    Raises:
        InvalidModelError: there is nothing in it that this would make smaller.
    """
    if to is Target.FP32:
        return model
    return _quantized(model) if to is Target.INT8 else _narrowed(model, to)


def _quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights in 8 bits, ranges of everything else computed at each run."""
    nothing = InvalidModelError(
        "the model has no matrix product, convolution or recurrent layer that dynamic int8 would make smaller",
        hint="Forests and the like stay as they are; bf16 and fp16 narrow large tables.",
    )
    if not any(node.op_type in _QUANTIZABLE for node in model.graph.node):
        raise nothing
    with tempfile.TemporaryDirectory(prefix="blindai-optimize-") as folder, _quiet():
        path = Path(folder) / "model.onnx"
        try:
            quantize_dynamic(
                _copy(model), path, per_channel=True, weight_type=QuantType.QInt8, use_external_data_format=True
            )
        except Exception as error:  # noqa: BLE001  # the quantiser raises what it meets
            raise InvalidModelError(f"ONNX Runtime cannot quantise the model: {error}") from None
        quantized = onnx.load(path)
    if not any(node.op_type.startswith("DynamicQuantize") for node in quantized.graph.node):
        raise nothing
    return quantized


def _narrowed(model: onnx.ModelProto, to: Target) -> onnx.ModelProto:
    """Weights of 16 bits, each cast to fp32 before use: ONNX Runtime's CPU provider has no bf16 matrix product."""
    narrow = _copy(model)
    graph = narrow.graph
    names = {name for node in graph.node for name in (*node.input, *node.output)}
    kept = {value.name for value in (*graph.input, *graph.output)}
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < _MATRIX or tensor.name in kept:
            continue
        wide = tensor.name
        stored = f"{wide}.{to.value}"
        if stored in names:
            raise InvalidModelError(f"the model already has a tensor {stored!r}")
        tensor.CopyFrom(_narrow_tensor(tensor, stored, to))
        casts.append(helper.make_node("Cast", [stored], [wide], to=TensorProto.FLOAT, name=f"{wide}.wide"))
    if not casts:
        raise InvalidModelError("the model keeps no matrix or kernel in fp32, so there is nothing to narrow")
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return narrow


def _narrow_tensor(tensor: onnx.TensorProto, name: str, to: Target) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if to is Target.BF16:
        bits, element = narrow_to_bf16(values), TensorProto.BFLOAT16
    else:
        limit = float(np.finfo(np.float16).max)
        bits, element = np.clip(values, -limit, limit).astype("<f2"), TensorProto.FLOAT16
    return TensorProto(name=name, dims=tensor.dims, data_type=element, raw_data=bits.tobytes())


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = type(model)()
    copied.CopyFrom(model)
    return copied


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def write_model(model: onnx.ModelProto, path: Path, *, external: bool) -> None:
    """Write a model, with its weights in `<path>.data` if the original had them outside or they are large."""
    data = path.with_name(f"{path.name}.data")
    path.parent.mkdir()  # a new folder: onnx appends to data that is there
    if external or model.ByteSize() > _MAX_INLINE_BYTES:
        onnx.save(
            _copy(model), path, save_as_external_data=True, location=data.name, size_threshold=1024,
            convert_attribute=False,
        )  # fmt: skip
    else:
        onnx.save(model, path)
