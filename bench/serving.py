"""Starts what is measured: our server in its variants, the proxy, Triton; each pinned, each ended with its block.

`Target`s are made here, since whoever starts a server knows its process and its addresses.
Leaves out: the other peers (`peers/`), and the load.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from load import binary_body
from measure import Target
from peers import triton

import blindai
from blindai.oip.grpc.schema import message_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models import BenchModel

_STOP_S = 20


def pinned(cores: str) -> list[str]:
    """The words before a command that keep it on these cores."""
    return ["taskset", "-c", cores] if cores else []


def free_port() -> int:
    """For servers that cannot say which one they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def grpc_body(model: BenchModel, name: str) -> bytes:
    """A ModelInferRequest with raw contents."""
    message: Any = message_type("inference.ModelInferRequest")(model_name=name)
    for found, array in model.inputs.items():
        message.inputs.add(
            name=found, datatype={"float32": "FP32", "int64": "INT64"}[str(array.dtype)], shape=array.shape
        )
        message.raw_input_contents.append(array.tobytes())
    return bytes(message.SerializeToString())


def inputs_file(model: BenchModel, folder: Path) -> str:
    """The inputs as the load reads them."""
    path = folder / f"{model.name}.npz"
    np.savez(path, allow_pickle=False, **model.inputs)
    return str(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Our server as it runs.

    Attributes:
        url: of its HTTPS port.
        grpc: its gRPC address.
    """

    name: str
    process_id: int
    url: str
    grpc: str
    folder: Path = field(repr=False)

    def upload(self, models: Sequence[BenchModel]) -> None:
        """Give it the models."""
        with blindai.connect(self.url, insecure_simulation=True) as client:
            for model in models:
                client.upload_model(model.path, name=model.name)

    def tls(self, model: BenchModel) -> Target:
        """The pinned-TLS door, binary tensors."""
        return self._target("TLS", http_spec(self.url, model, model.name))

    def sealed(self, model: BenchModel, *, receipts: bool) -> Target:
        """The sealed door, all connections in one session."""
        spec = {
            "kind": "sealed",
            "url": self.url,
            "model": model.name,
            "receipts": receipts,
            "inputs": inputs_file(model, self.folder),
        }
        return self._target("sealed, receipts" if receipts else "sealed", spec)

    def grpc_door(self, model: BenchModel) -> Target:
        """The gRPC door, raw contents."""
        return self._target("gRPC", grpc_spec(self.grpc, grpc_body(model, model.name), secure=True))

    def _target(self, door: str, spec: dict[str, Any]) -> Target:
        return Target(name=f"{self.name} {door}", process_id=self.process_id, spec=spec)


def http_spec(url: str, model: BenchModel, name: str) -> dict[str, Any]:
    """Binary tensors by HTTP, in TLS if the URL says so."""
    body, headers = binary_body(model.inputs)
    path = f"/v2/models/{name}/infer"
    return {"kind": "http", "url": url, "path": path, "body": base64.b64encode(body).decode(), "headers": headers}


def grpc_spec(address: str, body: bytes, *, secure: bool) -> dict[str, Any]:
    """Raw contents by gRPC."""
    return {"kind": "grpc", "url": address, "secure": secure, "body": base64.b64encode(body).decode()}


def raw(model: BenchModel, folder: Path, *, threads: int = 1) -> Target:
    """ONNX Runtime in the load's own process, without any server."""
    spec = {
        "kind": "raw",
        "model_file": str(model.path),
        "threads": threads,
        "inputs": inputs_file(model, folder),
    }
    return Target(name="ONNX Runtime in process", process_id=None, spec=spec)


@contextlib.contextmanager
def ours(
    name: str, models: Sequence[BenchModel], *, cores: str, source: str | None = None, **settings: Any
) -> Iterator[Ours]:
    """`blindai serve --simulation` with these settings; `source` is another tree's `src`."""
    with tempfile.TemporaryDirectory(prefix="blindai-bench-") as folder:
        config = Path(folder) / "server.toml"
        lines = [f"{key} = {toml(value)}" for key, value in {"idle_worker_s": 3600, **settings}.items()]
        config.write_text("\n".join([*lines, ""]))
        command = [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", "--port", "0"]
        options = ["--log-level", "warning", "--config", str(config)]
        environment = {**os.environ, **({"PYTHONPATH": source} if source else {})}
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen(
                [*pinned(cores), *command, *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            ) as process,
            ended(process),
        ):
            assert process.stdout is not None
            told = dict(process.stdout.readline().split() for _ in ("ready", "metrics", "grpc"))
            running = Ours(name=name, process_id=process.pid, url=told["ready"], grpc=told["grpc"], folder=Path(folder))
            running.upload(models)
            yield running


def toml(value: Any) -> str:
    """A setting's value."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


@contextlib.contextmanager
def ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Ask the process to end with the block, and make it."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def proxy(server: Ours, model: BenchModel, *, cores: str) -> Iterator[Target]:
    """`blindai proxy` before our server, for clients that know nothing of it; its CPU is counted, not the server's."""
    command = [sys.executable, "-m", "blindai.cli.main", "proxy", server.url, "--insecure-simulation"]
    options = ["--http", "127.0.0.1:0", "--grpc", ""]
    with (
        subprocess.Popen(
            [*pinned(cores), *command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process,
        ended(process),
    ):
        assert process.stdout is not None
        _, url = process.stdout.readline().split()
        yield Target(name="blindai proxy", process_id=process.pid, spec=http_spec(url, model, model.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Triton:
    """Triton as it runs; `NAME` is served with dynamic batching and `NAME_alone` without."""

    name: str
    process_id: int
    http_port: int
    grpc_port: int

    def http(self, model: BenchModel, *, joined: bool = True) -> Target:
        """Plain HTTP, binary tensors."""
        name = model.name if joined else f"{model.name}_alone"
        spec = http_spec(f"http://127.0.0.1:{self.http_port}", model, name)
        return Target(name=f"{self.name} HTTP", process_id=self.process_id, spec=spec)

    def grpc(self, model: BenchModel) -> Target:
        """Plain gRPC, raw contents."""
        spec = grpc_spec(f"127.0.0.1:{self.grpc_port}", grpc_body(model, model.name), secure=False)
        return Target(name=f"{self.name} gRPC", process_id=self.process_id, spec=spec)


@contextlib.contextmanager
def triton_server(
    name: str, models: Sequence[tuple[BenchModel, bool]], *, cores: str, cache: Path, threads: int = 1
) -> Iterator[Triton]:
    """Triton with these models, each with or without dynamic batching."""
    folder = triton.set_up(cache / "triton")
    http_port, grpc_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="triton-bench-") as repository:
        for model, joined in models:
            served = model.name if joined else f"{model.name}_alone"
            config = model.triton_config(joined=joined)
            triton.write_model(Path(repository), served, model.path, config=config)
        with triton.running(
            folder,
            Path(repository),
            http_port=http_port,
            grpc_port=grpc_port,
            threads=threads,
            prefix=pinned(cores),
        ) as process:
            yield Triton(name=name, process_id=process.pid, http_port=http_port, grpc_port=grpc_port)
