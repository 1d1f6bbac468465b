"""What the front end costs: server CPU per request, at 1, 8 and 32 connections, through each door.

Method: a server of its own (`blindai serve --simulation`) on one core, a load generator on another; each connection has
one request in the air and sends the next when it has the answer, prebuilt bytes, nothing opened or checked. CPU is that
of the server's main process (all its threads, from /proc), and apart from it that of the models' processes; the least
and the median of the rounds, since other work on the machine only adds. Run with
`python bench/front_cost.py [SOURCE]`; SOURCE is another tree's `src`, to compare with.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import uvloop
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import blindai
from blindai.attestation.policy import insecure_simulation_policy
from blindai.client import flows
from blindai.client.attest_flow import attest
from blindai.client.connection import SYSTEM_CLOCK, ClientSettings, Connection
from blindai.client.exchange_flow import SEALED_PATH
from blindai.client.http_sync import SyncTransport
from blindai.client.transport import HttpRequest, parse_server_url
from blindai.oip.rest import InferRequest, encode_infer_request
from blindai.oip.tensors import tensor_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVER_CORE, LOAD_CORE = "0", "1"
CONNECTIONS = (1, 8, 32)
ROUNDS = int(os.environ.get("FRONT_COST_ROUNDS", "5"))
REQUESTS = 2400  # of all connections in a round
SEALED_AHEAD = 300  # a session's window limits how many can be sealed before the first is answered
INPUT = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 16)


def tiny_mlp(path: Path) -> Path:
    """16 → 32 → 4 in FP32."""
    random = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("a", (16, 32)), ("b", (32,)), ("c", (32, 4)), ("d", (4,)))
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "c", "d"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 16), ("y", 4)))
    graph = helper.make_graph(nodes, "mlp", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def head(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """One request's bytes."""
    lines = [f"{method} {path} HTTP/1.1", "host: server", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + body


def health_requests(_url: str, count: int) -> list[bytes]:
    """The cheapest request that there is."""
    return [head("GET", "/v2/health/live")] * count


def tls_requests(_url: str, count: int) -> list[bytes]:
    """A tiny inference in clear inside TLS."""
    buffers, length = encode_infer_request(InferRequest(id="", inputs=(tensor_from(INPUT, name="x"),), outputs=()))
    body = b"".join(buffers)
    fields = {"inference_header_content_length": str(length), "content_type": "application/octet-stream"}
    return [head("POST", "/v2/models/mlp/infer", body, **fields)] * count


def sealed_requests(url: str, count: int) -> list[bytes]:
    """The same inference `count` times in one session, sealed by the client's own flow and not answered yet."""
    settings = ClientSettings(policy=insecure_simulation_policy())
    connection = Connection(settings, clock=SYSTEM_CLOCK, random=os.urandom)
    transport = SyncTransport(parse_server_url(url))
    drive(attest(connection), transport)
    drive(flows.infer(connection, "mlp", INPUT, version=None, outputs=()), transport)  # opens the session
    transport.close()
    sealed = []
    for _ in range(count):
        request = next(flows.infer(connection, "mlp", INPUT, version=None, outputs=()))
        assert request.path == SEALED_PATH
        body = request.body if isinstance(request.body, bytes) else b"".join(request.body or ())
        fields = {name.replace("-", "_"): value for name, value in request.headers}
        sealed.append(head("POST", SEALED_PATH, body, **fields))
        keep.append(request)
    return sealed


keep: list[HttpRequest] = []  # a flow that is dropped would count its request as answered


def drive(flow: Any, transport: SyncTransport) -> Any:
    """Run a client's flow to its end."""
    try:
        request = next(flow)
        while True:
            request = flow.send(transport.send(request))
    except StopIteration as done:
        return done.value


KINDS: dict[str, Callable[[str, int], list[bytes]]] = {
    "health GET": health_requests,
    "TLS door, tiny MLP": tls_requests,
    "sealed session, tiny MLP": sealed_requests,
}


class Sender(asyncio.Protocol):
    """Sends the next request when it has the whole answer."""

    def __init__(self, requests: list[bytes]) -> None:
        self._requests = iter(requests)
        self._received = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready; `start` sends the first."""
        self._transport: Any = transport

    def start(self) -> None:
        """Send the first request."""
        self._transport.write(next(self._requests))

    def connection_lost(self, exc: Exception | None) -> None:
        """Before its end that is a failure."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server ended the connection"))

    def data_received(self, data: bytes) -> None:
        """Look for the end of the answer."""
        self._received += data
        at = self._received.find(b"\r\n\r\n")
        if at < 0:
            return
        top = self._received[:at].lower()
        if not top.startswith(b"http/1.1 200"):
            self.done.set_exception(RuntimeError(repr(self._received)))
            return
        length = int(top.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self._received) < at + 4 + length:
            return
        self._received = b""
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
        else:
            self._transport.write(request)


async def load(url: str, kind: str, connections: int) -> None:
    """Open all connections, say so, wait for a word, send everything, say so."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    each = min(REQUESTS // connections, SEALED_AHEAD if kind.startswith("sealed") else REQUESTS)
    senders = []
    for _ in range(connections):
        make = functools.partial(Sender, KINDS[kind](url, each))
        _, sender = await loop.create_connection(make, host, int(port), ssl=context)
        senders.append(sender)
    print(each * connections, flush=True)
    sys.stdin.readline()
    for sender in senders:
        sender.start()
    await asyncio.gather(*(sender.done for sender in senders))
    print("done", flush=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU per request, and requests in a second."""

    front: float
    worker: float
    rate: float


def exact_cpu_s(process: int) -> float:
    """CPU time of all threads of a process, in nanoseconds' steps, which /proc's ticks of 10 ms are not."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{process}/task").glob("*/schedstat")) / 1e9


def children(process: int) -> list[int]:
    """The models' processes."""
    return [
        int(child) for path in Path(f"/proc/{process}/task").glob("*/children") for child in path.read_text().split()
    ]


def measure(server: int, url: str, kind: str, connections: int) -> Cost:
    """One round."""
    command = ["taskset", "-c", LOAD_CORE, sys.executable, __file__, "--load", url, kind, str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        count = int(process.stdout.readline())
        front, worker, begun_s = exact_cpu_s(server), sum(map(exact_cpu_s, children(server))), time.monotonic()
        process.stdin.write("go\n")
        process.stdin.flush()
        if process.stdout.readline() != "done\n":
            raise RuntimeError("the load failed")
        took_s = time.monotonic() - begun_s
        front = exact_cpu_s(server) - front
        worker = sum(map(exact_cpu_s, children(server))) - worker
    return Cost(front / count * 1e6, worker / count * 1e6, count / took_s)


def serving(source: str | None) -> Iterator[tuple[int, str]]:
    """A server on its own core, until the generator ends."""
    environment = {**os.environ, **({"PYTHONPATH": source} if source else {})}
    entry = [sys.executable, *json.loads(os.environ.get("FRONT_COST_ENTRY", '["-m", "blindai.cli.main", "serve"]'))]
    command = ["taskset", "-c", SERVER_CORE, *entry, "--simulation", "--port", "0", "--log-level", "warning"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().split()[1]
        finally:
            process.terminate()
            process.wait(20)


def main(source: str | None) -> None:
    """Measure every kind at every number of connections."""
    found: dict[tuple[str, int], list[Cost]] = {}
    running = serving(source)
    server, url = next(running)
    with tempfile.TemporaryDirectory() as folder, blindai.connect(url, insecure_simulation=True) as client:
        client.upload_model(tiny_mlp(Path(folder) / "mlp.onnx"))
        for _ in range(ROUNDS):
            for kind in KINDS:
                for connections in CONNECTIONS:
                    if (kind, connections) not in found or found[kind, connections]:
                        found.setdefault((kind, connections), []).extend(attempt(server, url, kind, connections))
    running.close()  # type: ignore[attr-defined]  # a generator
    table = Table(
        "request",
        "connections",
        "front µs",
        "worker µs",
        "requests/s",
        title=f"CPU per request: {source or 'this tree'}",
    )
    for (kind, connections), costs in found.items():
        if costs:
            fronts = [cost.front for cost in costs]
            worker, rate = (statistics.median(getattr(cost, name) for cost in costs) for name in ("worker", "rate"))
            front = f"{min(fronts):.0f}–{statistics.median(fronts):.0f}"
            table.add_row(kind, str(connections), front, f"{worker:.0f}", f"{rate:.0f}")
    Console(width=110).print(table)


def attempt(server: int, url: str, kind: str, connections: int) -> list[Cost]:
    """A tree without that door answers otherwise, and is not measured there."""
    try:
        return [measure(server, url, kind, connections)]
    except (RuntimeError, ValueError):
        return []


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        uvloop.run(load(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
