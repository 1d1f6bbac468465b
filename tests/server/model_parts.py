"""Small models, and looks at the processes that run them, for the tests of the worker runtime."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from blindai.bundle import UploadHeader
from blindai.oip.tensors import Datatype, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blindai.server.model_config import ServingConfig
    from blindai.server.model_store import ModelStore, StoredModel
    from blindai.server.worker_pool import WorkerPool

SOON_S = 20.0
FOREVER = 10**12


def serialise(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initialisers: Sequence[onnx.TensorProto] = (),
) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initialisers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def add_model(constant: float = 1.0) -> bytes:
    """Y = x + constant, over float [n]."""
    value = helper.make_tensor("w", TensorProto.FLOAT, [], [constant])
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    return serialise([helper.make_node("Add", ["x", "w"], ["y"])], infos[:1], infos[1:], [value])


def counting_model() -> bytes:
    """Counts to x one by one, so that x says how long a run takes."""
    scalar = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("i", "before", "after")]
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    one = helper.make_tensor("one", TensorProto.INT64, [], [1])
    body = helper.make_graph(
        [helper.make_node("Add", ["before", "one"], ["after"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [scalar[0], flags[0], scalar[1]],
        [flags[1], scalar[2]],
        [one],
    )
    constants = [
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in "xy"]
    loop = helper.make_node("Loop", ["x", "true", "zero"], ["y"], body=body)
    return serialise([loop], infos[:1], infos[1:], constants)


def external_model(location: str, count: int, offset: int = 0) -> bytes:
    """Y = sum(w) + x, with `count` floats w in another file."""
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[count], data_location=TensorProto.EXTERNAL)
    for key, entry in (("location", location), ("offset", str(offset)), ("length", str(4 * count))):
        weights.external_data.add(key=key, value=entry)
    nodes = [
        helper.make_node("ReduceSum", ["w"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    return serialise(nodes, infos[:1], infos[1:], [weights])


def stored(
    store: ModelStore, files: bytes | dict[str, bytes], name: str = "m", config: ServingConfig | None = None
) -> StoredModel:
    files = files if isinstance(files, dict) else {"m.onnx": files}
    sizes = tuple((path, len(data)) for path, data in files.items())
    upload = store.begin_upload(name, UploadHeader(version=None, files=sizes, default_shape=None, load=False))
    for data in files.values():
        upload.write(data)
    upload.complete()
    model = upload.register()
    return dataclasses.replace(model, config=config) if config else model


def table_model() -> bytes:
    """Y = the rows of a table of three floats at x, over int64 [n, 1]; a number past its end fails."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [10, 20, 30])
    x = helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    return serialise([helper.make_node("Gather", ["table", "x"], ["y"])], [x], [y], [table])


def sum_model() -> bytes:
    """Y = the sum over all rows of x, over float [n, 2], whatever is said of its output: it does not keep rows."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 2])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    return serialise([helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)], [x], [y], [axes])


def floats(*values: float) -> tuple[Tensor, ...]:
    data = np.array(values, dtype=np.float32)
    return (Tensor(name="x", datatype=Datatype.FP32, shape=data.shape, data=data),)


def count_to(number: int) -> tuple[Tensor, ...]:
    return (Tensor(name="x", datatype=Datatype.INT64, shape=(), data=np.array(number, dtype=np.int64)),)


async def added(pool: WorkerPool, model: StoredModel, *values: float) -> list[float]:
    (output,) = await pool.infer(model, "public", floats(*values))
    return [float(value) for value in output.data]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110  # another process sets no event
            await asyncio.sleep(0.01)


async def until_busy(process_id: int) -> None:
    """Wait until the process runs its model: it has used a tenth of a second more than loading took."""
    start = cpu_seconds(process_id)
    await until(lambda: cpu_seconds(process_id) > start + 0.1)


def cpu_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_fork_servers() -> list[int]:
    """Children of this process that models' processes are forked from, or dead and not waited for."""
    lines = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in _children(os.getpid())}
    return [child for child, line in lines.items() if not line or b"blindai.server.fork_server" in line]


def own_workers() -> list[int]:
    """Processes that were forked from them, dead ones included until they are waited for."""
    return [process for fork_server in own_fork_servers() for process in _children(fork_server)]


def _children(process_id: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text("ascii").split()]
