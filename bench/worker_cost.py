"""What a model's process costs: microseconds of the server's and of the process's CPU per request, without network.

    python bench/worker_cost.py [--isolation thread]

A tiny MLP (16 → 32 → 4), `WorkerPool.infer` called by 1, 8 and 32 tasks that each wait for their answer; every request
has one row. Both sides run where the system puts them. `alone` joins nothing, `joined` lets waiting requests join.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper

from blindai.bundle import UploadHeader
from blindai.oip.tensors import Datatype, Tensor
from blindai.server.model_config import ServingConfig
from blindai.server.model_store import ModelStore
from blindai.server.worker_pool import PoolOptions, WorkerPool

SECONDS = 3.0


def mlp() -> bytes:
    random = np.random.default_rng(1)
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, random.standard_normal(shape).ravel())
        for name, shape in (("w1", (16, 32)), ("w2", (32, 4)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def process_cpu_s(process_id: int) -> float:
    """Of all its threads, in nanoseconds' resolution."""
    threads = Path(f"/proc/{process_id}/task").iterdir()
    return sum(int((thread / "schedstat").read_text("ascii").split()[0]) for thread in threads) / 1e9


async def measure(store: ModelStore, isolation: str, batching: str, tasks: int) -> None:
    data = mlp()
    header = UploadHeader(version=None, files=(("m.onnx", len(data)),), default_shape=None, load=False)
    upload = store.begin_upload("m", header)
    upload.write(data)
    upload.complete()
    model = upload.register()
    object.__setattr__(model, "config", ServingConfig(batching=batching, intra_op_threads=1))
    pool = WorkerPool(store, PoolOptions(isolation=isolation))
    await pool.load(model, "bench")
    array = np.ones((1, 16), dtype=np.float32)
    inputs = (Tensor(name="x", datatype=Datatype.FP32, shape=(1, 16), data=array),)
    done = 0

    async def ask(until_s: float) -> None:
        nonlocal done
        while time.perf_counter() < until_s:
            await pool.infer(model, "bench", inputs)
            done += 1

    await asyncio.gather(*(ask(time.perf_counter() + 0.5) for _ in range(tasks)))
    done = 0
    worker = pool.process_ids[0] if pool.process_ids else os.getpid()
    runs = pool.statistics(model).execution_count
    before = time.process_time(), process_cpu_s(worker), time.perf_counter()
    await asyncio.gather(*(ask(time.perf_counter() + SECONDS) for _ in range(tasks)))
    server_s, worker_s, wall_s = (
        time.process_time() - before[0],
        process_cpu_s(worker) - before[1],
        time.perf_counter() - before[2],
    )
    counted = pool.statistics(model)
    rows = done / (counted.execution_count - runs)
    print(
        f"{isolation:7} {batching:3} {tasks:3} tasks: {server_s / done * 1e6:6.1f} µs server, "
        f"{worker_s / done * 1e6:6.1f} µs process, {wall_s / done * 1e6:6.1f} µs wall, {rows:5.1f} rows/run, "
        f"ORT {counted.compute.compute_infer.ns / counted.compute.compute_infer.count / 1e3:6.1f} µs/run"
    )
    await pool.close()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--isolation", default="tenant")
    parser.add_argument("--cpu", type=int, default=None, help="pin the server and its process to this CPU")
    chosen = parser.parse_args()
    if chosen.cpu is not None:
        os.sched_setaffinity(0, {chosen.cpu})
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder) / "store", bytes(32))
        for tasks in (1, 8, 32):
            for batching in ("off", "on"):
                await measure(store, chosen.isolation, batching, tasks)
        store.close()


if __name__ == "__main__":
    uvloop.run(main())
