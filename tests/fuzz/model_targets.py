"""Fuzz targets of models: ONNX files, Triton's configurations, load requests, and what a model's process says."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from fuzz.target import REFUSALS, Target
from server.model_parts import add_model, counting_model, external_model, table_model
from server.triton_models import PIPELINE, SCALER

from blindai.model_guard import check_model
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import TensorSpec
from blindai.server.load_request import read_load
from blindai.server.model_config_json import read_config
from blindai.server.triton_config import parse_config, read_labels, read_plan
from blindai.server.triton_files import Findings
from blindai.server.worker_protocol import (
    Failed,
    FileEntry,
    Load,
    Loaded,
    OutputEntry,
    Result,
    Run,
    SpecEntry,
    TensorEntry,
    check_outputs,
    decode_header,
    encode_header,
    error_of,
    unpack_specs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_MORE = """
dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 100 }
version_policy: { specific: { versions: [ 1, 3 ] } }
optimization { graph { level: 1 } }
parameters: { key: "intra_op_thread_count" value: { string_value: "1" } }
"""


def _pbtxt(data: bytes) -> None:
    findings = Findings()
    message = parse_config(data, "config.pbtxt", findings)
    if message is not None:
        read_plan(message, "m", "config.pbtxt", findings)


def _onnx(data: bytes) -> None:
    check_model(data, {"w.bin": 1 << 20})


def _models() -> Iterator[bytes]:
    yield from (add_model(), counting_model(), table_model(), external_model("w.bin", 8))


def _load(data: bytes) -> None:
    read_load(data, name="m")


def _loads() -> Iterator[bytes]:
    output = {"name": "y", "data_type": "TYPE_FP32", "dims": [2], "label_filename": "l.txt"}
    config = json.dumps({"name": "m", "max_batch_size": 8, "output": [output]})
    files = {"file:1/model.onnx": add_model(), "file:l.txt": b"a\nb"}
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    yield json.dumps({"parameters": {"config": config, **encoded}}).encode()
    yield b""


_KINDS: tuple[Any, ...] = (Load, Run, Loaded, Result, Failed)
_OUTPUTS = (TensorSpec(name="y", datatype=Datatype.FP32, shape=(-1,)),)


def _worker_message(data: bytes) -> None:
    """What stands in shared memory, where a model's process may have written it."""
    kind = _KINDS[data[0] % len(_KINDS)] if data else Load
    message: object = decode_header(data[1:], kind)
    if isinstance(message, Result):
        check_outputs(message.outputs, _OUTPUTS, 1 << 20)
    elif isinstance(message, Loaded):
        unpack_specs((*message.inputs, *message.outputs))
    elif isinstance(message, Failed):
        error_of(message)


def _worker_messages() -> Iterator[bytes]:
    spec = SpecEntry("x", "FP32", (-1, 2))
    for message in (
        Load(
            files=(FileEntry("m.onnx", 3),),
            graph_optimization="all",
            providers=("CPUExecutionProvider",),
            threads=1,
            max_answer_bytes=9,
            max_address_space_bytes=9,
            rows_wanted=True,
        ),
        Run((TensorEntry("x", "FP32", (1, 2), 8),), ("y",)),
        Loaded(
            inputs=(spec,), outputs=(spec,), rows_independent=True, precision="fp32", providers=("CPU",), optional=()
        ),
        Result((OutputEntry((2,), 8),), 1, 2, 3),
        Failed(code="invalid_input", message="m", hint="h"),
    ):
        yield bytes([_KINDS.index(type(message))]) + encode_header(message)


TARGETS = (
    Target(name="onnx_model", run=_onnx, seeds=_models),
    Target(name="triton_pbtxt", run=_pbtxt, seeds=lambda: ((SCALER + _MORE).encode(), PIPELINE.encode())),
    Target(
        name="triton_json",
        run=lambda data: read_config(data, name="m"),
        seeds=lambda: (b'{"name":"m","max_batch_size":8,"instance_group":[{"count":2,"kind":"KIND_CPU"}]}',),
    ),
    Target(name="label_file", run=read_labels, seeds=lambda: (b"cat\ndog\n",)),
    Target(name="load_request", run=_load, seeds=_loads),
    Target(name="worker_message", run=_worker_message, seeds=_worker_messages, refuses=(*REFUSALS, ValueError)),
)
