"""Runs a small model once, so that what libraries open on first use is open before the sandbox closes.

Text is part of it: ONNX Runtime's StringNormalizer wants the system's conversion tables and the locale `en_US.UTF-8`.
A model that names another locale cannot load it afterwards.
Leaves out: a stored model's own warm-up, which its configuration names.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from blindai.errors import BlindAIError
from blindai.oip.tensors import Datatype, Tensor
from blindai.pipeline.run import picture_decoder
from blindai.server.engine import Engine, RunSwitch, provider_options
from blindai.server.execution_providers import CPU, OPENVINO

if TYPE_CHECKING:
    from collections.abc import Iterable

LIBRARIES = Path(ort.__file__).parent / "capi"  # of ONNX Runtime and its execution providers


def warm_up() -> None:
    """Load and run a model of our own; one thread, so that none is left over.

    A machine without the locale cannot run the text model, nor could it later; nor one without Pillow decode pictures.
    """
    picture_decoder()
    run_numbers((CPU,))
    _run(
        "Identity",
        TensorProto.BFLOAT16,
        Tensor(name="x", datatype=Datatype.BF16, shape=(2,), data=np.zeros(2, "<u2")),
    )
    try:
        text = np.array([b"a", b"b"], dtype=object)
        _run(
            "StringNormalizer",
            TensorProto.STRING,
            Tensor(name="x", datatype=Datatype.BYTES, shape=(2,), data=text),
            case_change_action="UPPER",
        )
    except BlindAIError:
        pass


def open_providers(names: Iterable[str]) -> None:
    """Open what these providers read once, and hold it open for as long as this process and its forks live."""
    if OPENVINO in names:
        _open_provider(OPENVINO)


def libraries_of(names: Iterable[str]) -> Path | None:
    """The folder of libraries that one of these providers reads for every model, and then compiles kernels for."""
    return LIBRARIES if OPENVINO in names else None


def run_numbers(providers: tuple[str, ...]) -> None:
    """Double two numbers on the first of these providers that can.

    Raises:
        InvalidModelError: none can.
    """
    numbers = Tensor(name="x", datatype=Datatype.FP32, shape=(2,), data=np.zeros(2, np.float32))
    _run("Add", TensorProto.FLOAT, numbers, inputs=2, providers=providers)


def _run(
    operator: str,
    element: int,
    tensor: Tensor,
    *,
    inputs: int = 1,
    providers: tuple[str, ...] = (CPU,),
    **attributes: str,
) -> None:
    engine = Engine(threads=1, providers=providers)
    engine.load({"m.onnx": _model(operator, element, inputs, **attributes)}, rows_wanted=True)
    engine.run((tensor,), (), RunSwitch())


@functools.cache  # which keeps the session
def _open_provider(name: str) -> Any:
    """A session that the provider gets no node of: its libraries and the machine's description are read, by no thread.

    OpenVINO knows no text, and starts its threads only to compile.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        _model("Identity", TensorProto.STRING, 1), options, providers=[provider_options(name, 1)], enable_fallback=0
    )


def _model(operator: str, element: int, inputs: int, **attributes: str) -> bytes:
    infos = [helper.make_tensor_value_info(name, element, ["n"]) for name in ("x", "y")]
    node = helper.make_node(operator, ["x"] * inputs, ["y"], **attributes)
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())
