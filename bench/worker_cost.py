"""What a model's process costs: microseconds of the server's and of the process's CPU per request, without network.

    python bench/worker_cost.py [--isolation thread]

A tiny MLP (16 → 32 → 4), `WorkerPool.infer` called by 1, 8 and 32 tasks that each wait for their answer; every request
has one row. `off` joins nothing, `on` joins what waits. Two floors come first. On a busy machine every wake-up finds
cold caches, and costs several times what it does on a quiet one: compare lines of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
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
from blindai.server.runner_start import PoolOptions
from blindai.server.worker_pool import WorkerPool

WINDOWS, WINDOW_S = 60, 0.05  # the best window is the machine's quietest
SECONDS = 1.0


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
    worker = pool.process_ids[0] if pool.process_ids else os.getpid()
    counted = pool.statistics(model)
    windows = []
    for _ in range(WINDOWS):
        done, runs = 0, counted.execution_count
        before = time.process_time(), process_cpu_s(worker)
        await asyncio.gather(*(ask(time.perf_counter() + WINDOW_S) for _ in range(tasks)))
        server_s, worker_s = time.process_time() - before[0], process_cpu_s(worker) - before[1]
        windows.append((server_s / done * 1e6, worker_s / done * 1e6, done / (counted.execution_count - runs)))
    windows.sort()
    best, median = windows[0], windows[len(windows) // 2]
    print(
        f"{isolation:7} {batching:3} {tasks:3} tasks: server {best[0]:5.1f} best {median[0]:6.1f} median, "
        f"process {best[1]:5.1f} best {median[1]:6.1f} median (µs per request), {best[2]:4.1f} rows/run"
    )
    await pool.close()


async def bare_doorbells() -> None:
    """The floor under `alone`: a loop of the same kind and a process that echoes 16 bytes, and nothing else."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = "import socket,sys\ns=socket.socket(fileno=int(sys.argv[1]))\nwhile m:=s.recv(16): s.send(m)"
    process = subprocess.Popen([sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()])  # noqa: ASYNC220  # once
    theirs.close()
    ours.setblocking(False)  # noqa: FBT003  # the standard library's signature
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[bytes]] = []
    loop.add_reader(ours, lambda: waiting.pop().set_result(ours.recv(17)))
    count, before = 0, (0.0, 0.0)
    for second in (0.5, SECONDS):
        count, before = 0, (time.process_time(), process_cpu_s(process.pid))
        until_s = time.perf_counter() + second
        while time.perf_counter() < until_s:
            waiting.append(loop.create_future())
            ours.send(bytes(16))
            await waiting[0]
            count += 1
    server_s, worker_s = time.process_time() - before[0], process_cpu_s(process.pid) - before[1]
    print(f"bare doorbells: {server_s / count * 1e6:6.1f} µs server, {worker_s / count * 1e6:6.1f} µs process")
    loop.remove_reader(ours)
    ours.close()
    process.wait()


async def bare_loop(tasks: int) -> None:
    """The floor under `joined`: tasks that wait for futures, which the loop settles all at once."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []
    done = 0

    def settle() -> None:
        for future in waiting:
            future.set_result(None)
        waiting.clear()

    async def ask(until_s: float) -> None:
        nonlocal done
        while time.perf_counter() < until_s:
            if not waiting:
                loop.call_soon(settle)
            waiting.append(loop.create_future())
            await waiting[-1]
            done += 1

    before = time.process_time()
    await asyncio.gather(*(ask(time.perf_counter() + 1) for _ in range(tasks)))
    print(f"bare loop, {tasks:3} tasks: {(time.process_time() - before) / done * 1e6:6.1f} µs")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--isolation", default="tenant")
    parser.add_argument("--cpu", type=int, default=None, help="pin the server and its process to this CPU")
    chosen = parser.parse_args()
    if chosen.cpu is not None:
        os.sched_setaffinity(0, {chosen.cpu})
    await bare_doorbells()
    await bare_loop(32)
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder) / "store")
        for tasks in (1, 8, 32):
            for batching in ("off", "on"):
                await measure(store, chosen.isolation, batching, tasks)
        store.close()


if __name__ == "__main__":
    uvloop.run(main())
