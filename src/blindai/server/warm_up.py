"""Runs a small model once, so that what libraries open on first use is open before the sandbox closes.

Text is part of it: ONNX Runtime's StringNormalizer wants the system's conversion tables and the locale `en_US.UTF-8`.
A model that names another locale cannot load it afterwards.
Leaves out: a stored model's own warm-up, which its configuration names.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from blindai.errors import BlindAIError
from blindai.oip.tensors import Datatype, Tensor
from blindai.server.engine import Engine, RunSwitch


def warm_up() -> None:
    """Load and run a model of our own; one thread, so that none is left over.

    A machine without the locale cannot run the text model, nor could it later.
    """
    numbers = np.zeros(2, np.float32)
    _run("Identity", TensorProto.FLOAT, Tensor(name="x", datatype=Datatype.FP32, shape=(2,), data=numbers))
    _run(
        "Identity",
        TensorProto.BFLOAT16,
        Tensor(name="x", datatype=Datatype.BF16, shape=(2,), data=numbers.view("<u2")[:2]),
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


def _run(operator: str, element: int, tensor: Tensor, **attributes: str) -> None:
    infos = [helper.make_tensor_value_info(name, element, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    engine = Engine(threads=1)
    engine.load({"m.onnx": model.SerializeToString()}, rows_wanted=True)
    engine.run((tensor,), (), RunSwitch())
