"""Programs that nobody here wrote, unmodified, through the local proxy: `make test-clients`.

Each runs in an environment of its own, which an environment variable names; the proxy and the server run from here.
Leaves out: what each script asks (`use_*.py`), and how perf_analyzer is fetched (`perf_analyzer.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conformance.server_under_test import ServerUnderTest
from proxy.local_proxy import LocalProxy, proxy_process
from server.grpc_client import GrpcServer, grpc_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.clients, pytest.mark.network]

FOLDER = Path(__file__).parent
REQUESTS = 400
ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A server with the conformance suite's models, and a proxy before it."""

    server: GrpcServer
    proxy: LocalProxy

    @property
    def http(self) -> str:
        """Host and port, as most of these clients want them."""
        return self.proxy.http.removeprefix("http://")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("clients")
    ports = ("--grpc-port", "0", "--metrics-port", "0")
    with grpc_server(folder, *ports) as server, proxy_process(server.url, folder / "proxy.log") as running:
        ServerUnderTest(server.url).install()
        yield World(server=server, proxy=running.at)
    for log in (folder / "proxy.log", server.log):
        assert "Traceback" not in log.read_text()


def named(variable: str) -> Path:
    """What `make test-clients` says in an environment variable."""
    found = os.environ.get(variable)
    if not found:
        pytest.skip(f"{variable} names no environment: make test-clients")
    return Path(found).resolve()


def output_of(*command: str | Path) -> str:
    """What a program prints; it must succeed."""
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=500)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"[-8000:]
    return ended.stdout


@pytest.fixture
def told(tell: Callable[[str], None]) -> Callable[[str], None]:
    """`tell`, and how long the test took."""
    begun_s = time.monotonic()
    return lambda text: tell(f"{text}; {time.monotonic() - begun_s:.1f} s")


@pytest.mark.parametrize("through", ["proxy", "TLS doors"])
def test_tritonclient(world: World, through: str, told: Callable[[str], None]) -> None:
    python, script = named("BLINDAI_CLIENTS_VENV") / "bin/python", FOLDER / "use_tritonclient.py"
    if through == "proxy":
        found = output_of(python, script, world.http, world.proxy.grpc)
    else:
        found = output_of(python, script, world.server.url.removeprefix("https://"), world.server.address, "--tls")
    lines = found.splitlines()
    assert len(lines) == 4
    assert all(line.endswith("right answers") for line in lines)
    told("; ".join(lines))


def test_kserve(world: World, told: Callable[[str], None]) -> None:
    python = named("BLINDAI_CLIENTS_VENV") / "bin/python"
    lines = output_of(python, FOLDER / "use_kserve.py", world.http, world.proxy.grpc).splitlines()
    assert len(lines) == 2
    told("; ".join(lines))


def row(number: int) -> list[int]:
    return [number + column for column in range(16)]


def request(number: int) -> dict[str, object]:
    entry = {"datatype": "INT32", "shape": [1, 16]}
    return {
        "inputs": [{**entry, "name": "INPUT0", "data": row(number)}, {**entry, "name": "INPUT1", "data": [number] * 16}]
    }


def test_mlserver_infer(world: World, tmp_path: Path, told: Callable[[str], None]) -> None:
    """It sends a file of requests over REST (its gRPC is not written yet), and says which answer is whose."""
    asked, answered = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    asked.write_text("".join(json.dumps(request(number)) + "\n" for number in range(ROWS)))
    program = named("BLINDAI_MLSERVER_VENV") / "bin/mlserver"
    output_of(program, "infer", "-u", world.http, "-m", "simple", "-i", asked, "-o", answered, "--workers", "4")
    answers = [json.loads(line) for line in answered.read_text().splitlines()]
    found = {answer["parameters"]["batch_index"]: [out["data"] for out in answer["outputs"]] for answer in answers}
    assert found == {
        number: [[value + number for value in row(number)], [value - number for value in row(number)]]
        for number in range(ROWS)
    }
    told(f"{len(found)} right answers")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_perf_analyzer(world: World, protocol: str, told: Callable[[str], None]) -> None:
    address = world.http if protocol == "http" else world.proxy.grpc
    found = output_of(
        sys.executable, FOLDER / "perf_analyzer.py", named("BLINDAI_PERF_ANALYZER"), "-m", "simple", "-u", address,
        "-i", protocol, "--shared-memory", "none", "--concurrency-range", "8", "--request-count", str(REQUESTS),
    )  # fmt: skip
    assert "failed" not in found.lower()
    ours, its = (int(re.findall(rf"{name} count: (\d+)", found)[0]) for name in ("Request", "Successful request"))
    assert ours == REQUESTS
    assert its > 0  # the server's own statistics, read while the last requests may still run
    rate = float(re.findall(r"Throughput: ([\d.]+) infer/sec", found)[0])
    assert rate > 0
    told(f"{rate:.0f} inferences/s, p50 {re.findall(r'p50 latency: ([0-9]+) usec', found)[0]} µs at 8 at a time")


def test_curl(world: World, tmp_path: Path, told: Callable[[str], None]) -> None:
    curl = shutil.which("curl")
    assert curl, "curl is not installed"
    assert output_of(curl, "-sSf", f"{world.proxy.http}/v2/health/ready") == '{"ready":true}'
    body = tmp_path / "request.json"
    body.write_text(json.dumps(request(3)))
    url = f"{world.proxy.http}/v2/models/simple/infer"
    outputs = json.loads(output_of(curl, "-sSf", "-d", f"@{body}", url))["outputs"]
    assert [output["data"] for output in outputs] == [[v + 3 for v in row(3)], [v - 3 for v in row(3)]]
    large = tmp_path / "large.bin"  # above 1 MiB curl waits for `100 Continue`
    large.write_bytes(bytes(2 << 20))
    status = output_of(curl, "-sS", "-o", tmp_path / "said", "-w", "%{http_code}", "--data-binary", f"@{large}", url)
    assert status == "400"
    told("ready, JSON inference, refusal of a large body")
