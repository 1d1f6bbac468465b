"""What a server says of a model: its inputs and outputs (OIP v2 REST, model metadata), and which model exactly.

`version`, `digest`, `precision`, `default_shape` and `optional_inputs` are ours beside the protocol's members.
A client takes names, datatypes and shapes from here, so sizes are bounded before anything is computed with them.
Leaves out: whether the digest is that of the model wished for (the client compares it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from blindai.oip.datatypes import MAX_AXIS, MAX_RANK, Datatype
from blindai.oip.json_data import decode_json
from blindai.oip.tensors import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

Precision = Literal["fp32", "fp16", "bf16", "fp64", "int8-dynamic", "int8-static", "mixed"]
_Pattern = Annotated[tuple[Annotated[int, Meta(ge=-1, le=MAX_AXIS)], ...], Meta(max_length=MAX_RANK)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """What a server says of a model.

    Attributes:
        name: of the model.
        versions: every version that the server has.
        platform: `onnxruntime_onnx`.
        inputs: what the model expects.
        outputs: what it answers.
        version: the one described here.
        digest: `sha256:<hex>`, of the model's manifest.
        precision: of the model's numbers, by its graph; receipts name the same.
        default_shape: the shape that a flat list for the first input takes, if one was given at upload.
        optional_inputs: inputs with a default in the model, which a request may leave out.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str
    digest: str
    precision: Precision
    default_shape: tuple[int, ...] | None
    optional_inputs: tuple[TensorSpec, ...] = ()


class _Spec(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    datatype: Datatype
    shape: _Pattern


class _Metadata(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: list[_Spec]
    outputs: list[_Spec]
    version: str
    digest: Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
    precision: Precision
    default_shape: _Pattern | None
    optional_inputs: list[_Spec] = []


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Metadata)


def encode_metadata(metadata: ModelMetadata) -> bytes:
    """As JSON, with `optional_inputs` only where there are any."""
    return _encoder.encode(
        _Metadata(
            name=metadata.name,
            versions=metadata.versions,
            platform=metadata.platform,
            inputs=_write_specs(metadata.inputs),
            outputs=_write_specs(metadata.outputs),
            version=metadata.version,
            digest=metadata.digest,
            precision=metadata.precision,
            default_shape=metadata.default_shape,
            optional_inputs=_write_specs(metadata.optional_inputs),
        )
    )


def decode_metadata(data: bytes | memoryview) -> ModelMetadata:
    """The inverse of `encode_metadata`.

    Raises:
        InvalidInputError: malformed.
    """
    message = decode_json(_decoder, data, "the model's metadata")
    return ModelMetadata(
        name=message.name,
        versions=message.versions,
        platform=message.platform,
        inputs=_read_specs(message.inputs),
        outputs=_read_specs(message.outputs),
        version=message.version,
        digest=message.digest,
        precision=message.precision,
        default_shape=message.default_shape,
        optional_inputs=_read_specs(message.optional_inputs),
    )


def _write_specs(specs: Sequence[TensorSpec]) -> list[_Spec]:
    return [_Spec(spec.name, spec.datatype, spec.shape) for spec in specs]


def _read_specs(entries: Sequence[_Spec]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=entry.name, datatype=entry.datatype, shape=entry.shape) for entry in entries)
