"""Which operators a model may use, and which names and shapes it may give.

All of `ai.onnx` and `ai.onnx.ml`, and of ONNX Runtime's own domain what exporters and quantisers write.
Of that domain's other operators some read files (`EPContext`), generate text in loops of their own (`BeamSearch`), or
are for training, and all have been looked at less.
Leaves out: whether an operator's attributes and inputs fit it, which ONNX Runtime checks when it loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.errors import InvalidModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx

MIN_OPSET = 7
MAX_OPSET = 28
MAX_RANK = 16
MAX_NAME_BYTES = 1024
MICROSOFT_OPERATORS = frozenset(
    {
        # quantised models (onnxruntime.quantization, Olive)
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat",
        "MatMulInteger16", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized", "QAttention", "QGemm",
        "QEmbedLayerNormalization", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv",
        "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean", "QLinearSigmoid",
        "QLinearSoftmax", "QLinearWhere",
        # transformers whose operators were fused (onnxruntime.transformers, Optimum, the GenAI builder)
        "Attention", "MultiHeadAttention", "DecoderMaskedMultiHeadAttention", "GroupQueryAttention", "RotaryEmbedding",
        "EmbedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SkipGroupNorm",
        "SimplifiedLayerNormalization", "LayerNormalization", "Gelu", "FastGelu", "BiasGelu", "QuickGelu",
        "BiasSoftmax", "BiasSplitGelu", "FusedMatMul", "TransposeMatMul", "FusedGemm", "RelativePositionBias",
        "GatedRelativePositionBias", "NhwcMaxPool",
        # convolutions that ONNX Runtime's optimiser fused
        "FusedConv", "MaxpoolWithMask", "ConvTransposeWithDynamicPads",
        # what torch's exporter wrote before ai.onnx had them
        "Trilu", "Inverse", "GridSample", "Irfft", "Rfft", "ComplexMul",
        # what skl2onnx writes
        "CDist", "Tokenizer", "MurmurHash3",
    }
)  # fmt: skip
_STANDARD_DOMAINS = frozenset({"", "ai.onnx.ml"})


def plain_domain(domain: str) -> str:
    """`ai.onnx` and the empty name are one domain."""
    return "" if domain == "ai.onnx" else domain


def check_opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> None:
    """Refuse operator sets that are older or newer than what is known.

    Raises:
        InvalidModelError: with what to do.
    """
    for entry in imports:
        check_name(entry.domain)
        if plain_domain(entry.domain) == "" and not MIN_OPSET <= entry.version <= MAX_OPSET:
            raise InvalidModelError(
                f"the model uses ONNX operator set {entry.version}, {MIN_OPSET} to {MAX_OPSET} are accepted",
                hint="Export again with another opset_version; `blindai optimize --to fp32` upgrades an older one.",
            )


def check_operator(node: onnx.NodeProto) -> None:
    """Refuse an operator that is neither standard nor on the list.

    Raises:
        InvalidModelError: with what to do.
    """
    domain = plain_domain(node.domain)
    if domain in _STANDARD_DOMAINS or (domain == "com.microsoft" and node.op_type in MICROSOFT_OPERATORS):
        return
    raise InvalidModelError(
        "the model uses an operator outside ai.onnx, ai.onnx.ml and the listed ones of com.microsoft",
        hint="Export again without custom operators; save optimised models with level `extended` at most.",
    )


def check_name(name: str) -> None:
    """Refuse a long name, and one that is not UTF-8: protobuf then hands bytes over.

    Raises:
        InvalidModelError: without the name.
    """
    if not isinstance(name, str):
        raise InvalidModelError("a name in the model is not UTF-8")
    if len(name) > MAX_NAME_BYTES or (not name.isascii() and len(name.encode()) > MAX_NAME_BYTES):
        raise InvalidModelError(f"a name in the model is longer than {MAX_NAME_BYTES} bytes")


def check_names(names: Iterable[str]) -> None:
    """Each of them, as `check_name`."""
    for name in names:
        check_name(name)


def check_value(value: onnx.ValueInfoProto) -> None:
    """The name and shape of an input, output or value in between, whatever it is a sequence or option of.

    Raises:
        InvalidModelError: what is wrong with it.
    """
    check_name(value.name)
    kind = value.type
    while (which := kind.WhichOneof("value")) in ("sequence_type", "optional_type", "map_type"):
        inner = getattr(kind, which)
        kind = inner.value_type if which == "map_type" else inner.elem_type
    if which not in ("tensor_type", "sparse_tensor_type"):
        return
    axes = getattr(kind, which).shape.dim
    # Some exporters write -1 for an axis of any size, and ONNX Runtime reads it so.
    check_shape([0 if axis.dim_value == -1 else axis.dim_value for axis in axes])
    check_names(axis.dim_param for axis in axes)


def check_shape(axes: Iterable[int]) -> None:
    """Refuse too many axes, and sizes below zero.

    Raises:
        InvalidModelError: with what to do.
    """
    axes = list(axes)
    if len(axes) > MAX_RANK:
        raise InvalidModelError(f"a tensor of the model has more than {MAX_RANK} axes")
    if any(axis < 0 for axis in axes):
        raise InvalidModelError(
            "a size in the model is below zero", hint="Give an axis of any size a name (dim_param)."
        )
