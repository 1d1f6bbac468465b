"""A model's metadata round-trips exactly; nothing else is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.errors import InvalidInputError
from blindai.oip.metadata import ModelMetadata, decode_metadata, encode_metadata
from blindai.oip.tensors import Datatype, TensorSpec

NAMES = st.text(st.characters(codec="utf-8"), max_size=6)
DIGEST = "sha256:" + "0f" * 32


def metadata(**changes: Any) -> ModelMetadata:
    members: dict[str, Any] = {
        "name": "digits",
        "versions": ("1", "2"),
        "platform": "onnxruntime_onnx",
        "inputs": (TensorSpec(name="x", datatype=Datatype.FP32, shape=(-1, 8)),),
        "outputs": (TensorSpec(name="y", datatype=Datatype.BYTES, shape=()),),
        "version": "2",
        "digest": DIGEST,
        "precision": "fp32",
        "default_shape": None,
        **changes,
    }
    return ModelMetadata(**members)


@given(
    specs=st.lists(
        st.builds(
            TensorSpec,
            name=NAMES,
            datatype=st.sampled_from(Datatype),
            shape=st.lists(st.integers(-1, 2**63 - 1), max_size=16).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    default_shape=st.none() | st.lists(st.integers(-1, 2**63 - 1), max_size=16).map(tuple),
    name=NAMES,
)
def test_metadata_round_trips(specs: tuple[TensorSpec, ...], default_shape: tuple[int, ...] | None, name: str) -> None:
    described = metadata(inputs=specs, outputs=specs, optional_inputs=specs, default_shape=default_shape, name=name)
    assert decode_metadata(encode_metadata(described)) == described


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"versions": [1]},
        {"digest": "sha256:00"},
        {"digest": DIGEST + "\n"},
        {"digest": DIGEST.upper()},
        {"precision": "int4"},
        {"precision": None},
        {"default_shape": [-2]},
        {"default_shape": [1] * 17},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]},
        {"inputs": [{"name": "x", "datatype": "FP8", "shape": []}]},
        {"surprise": 1},
    ],
    ids=str,
)
def test_metadata_of_another_form_is_refused(changes: dict[str, Any]) -> None:
    changed = {**json.loads(encode_metadata(metadata())), **changes}
    with pytest.raises(InvalidInputError):
        decode_metadata(json.dumps(changed).encode())
