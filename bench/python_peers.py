"""Starts the peers that are Python packages: MLServer, KServe, BentoML, LitServe, each in an environment of its own.

Each runs the same ONNX file with ONNX Runtime on one thread behind its own HTTP and JSON, with its own batching on.
What PyPI does not have, or what does not start, is left out with a reason.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import Target
from peers.ready import wait_until_ready
from serving import ended, free_port, pinned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models import BenchModel

SCRIPTS = Path(__file__).with_name("peers")
_INSTALL_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How one is started and asked.

    Attributes:
        packages: for pip.
        command: from the environment's folder of programs, the model, a port and an empty folder.
        path: of its inference.
        body: one request.
        ready: answers 200 when it has started.
        is_general: whether it serves models of several inputs, and of whole numbers.
    """

    name: str
    packages: tuple[str, ...]
    command: Callable[[Path, BenchModel, int, Path], list[str]]
    path: str
    body: Callable[[BenchModel], dict[str, Any]]
    ready: str
    is_general: bool = True


_DATATYPES = {"float32": "FP32", "int64": "INT64"}


def _oip(model: BenchModel) -> dict[str, Any]:
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": _DATATYPES[str(array.dtype)],
            "data": array.ravel().tolist(),
        }
        for name, array in model.inputs.items()
    ]
    return {"inputs": inputs}


def _first(model: BenchModel) -> list[Any]:
    return next(iter(model.inputs.values())).tolist()  # type: ignore[no-any-return]


def _mlserver(programs: Path, model: BenchModel, port: int, folder: Path) -> list[str]:
    settings = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "parallel_workers": 0}
    (folder / "settings.json").write_text(json.dumps({**settings, "host": "127.0.0.1", "debug": False}))
    served = {
        "name": "bench",
        "implementation": "onnx_peer.OnnxModel",
        "parameters": {"uri": str(model.path)},
        "max_batch_size": 64,
        "max_batch_time": 0.0005,
    }
    (folder / "model-settings.json").write_text(json.dumps(served))
    (folder / "onnx_peer.py").write_text((SCRIPTS / "mlserver.py").read_text())
    return [str(programs / "mlserver"), "start", str(folder)]


def _script(name: str) -> Callable[[Path, BenchModel, int, Path], list[str]]:
    def command(programs: Path, model: BenchModel, port: int, folder: Path) -> list[str]:
        script = folder / f"{name}_peer.py"  # under its own name it would hide the package
        script.write_text((SCRIPTS / f"{name}.py").read_text())
        return [str(programs / "python"), str(script), str(model.path), str(port)]

    return command


def _bentoml(programs: Path, _model: BenchModel, port: int, folder: Path) -> list[str]:
    (folder / "bentoml_peer.py").write_text((SCRIPTS / "bentoml.py").read_text())
    where = ["--working-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    return [str(programs / "bentoml"), "serve", "bentoml_peer:Peer", *where]


PEERS = (
    Peer(
        name="MLServer",
        packages=("mlserver", "onnxruntime"),
        command=_mlserver,
        path="/v2/models/bench/infer",
        body=_oip,
        ready="/v2/models/bench/ready",
    ),
    Peer(
        name="KServe",
        packages=("kserve", "onnxruntime"),
        command=_script("kserve"),
        path="/v2/models/bench/infer",
        body=_oip,
        ready="/v2/health/ready",
    ),
    Peer(
        name="BentoML",
        packages=("bentoml", "onnxruntime"),
        command=_bentoml,
        path="/infer",
        body=lambda model: {"rows": _first(model)},
        ready="/readyz",
        is_general=False,
    ),
    Peer(
        name="LitServe",
        packages=("litserve", "onnxruntime"),
        command=_script("litserve"),
        path="/predict",
        body=lambda model: {"inputs": _first(model)[0]},
        ready="/health",
        is_general=False,
    ),
)


@contextlib.contextmanager
def running(peer: Peer, model: BenchModel, *, cores: str, cache: Path) -> Iterator[Target | str]:
    """The peer, or why there is none."""
    if not peer.is_general and any(array.dtype != np.float32 for array in model.inputs.values()):
        yield f"{peer.name} is left out: our script for it serves one input of floats"
        return
    with contextlib.ExitStack() as stack:
        try:
            programs = _installed(peer, cache)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peer-bench-")))
            port = free_port()
            command = peer.command(programs, model, port, folder)
            log = stack.enter_context((folder / "log").open("wb"))
            process = subprocess.Popen(
                [*pinned(cores), *command],
                stdout=log,
                stderr=log,
                env=_environment(programs, model),
                cwd=folder,
                start_new_session=True,
            )
            stack.callback(_end_session, process.pid)
            stack.enter_context(ended(process))
            wait_until_ready(process, f"http://127.0.0.1:{port}{peer.ready}")
        except (OSError, subprocess.SubprocessError, TimeoutError) as error:
            yield f"{peer.name} is left out: {error}"
            return
        body = json.dumps(peer.body(model)).encode()
        spec = {
            "kind": "http",
            "url": f"http://127.0.0.1:{port}",
            "path": peer.path,
            "body": base64.b64encode(body).decode(),
            "headers": {"Content-Type": "application/json"},
        }
        yield Target(name=peer.name, process_id=process.pid, spec=spec)


def _end_session(leader: int) -> None:
    """LitServe's workers outlive a parent that was killed, and would spin beside what is measured next."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _installed(peer: Peer, cache: Path) -> Path:
    programs = cache / peer.name.lower() / "bin"
    if not (programs / ".done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(programs.parent)], check=True)
        pip = [str(programs / "pip"), "-q", "install", *peer.packages]
        subprocess.run(pip, check=True, timeout=_INSTALL_S, capture_output=True)
        (programs / ".done").touch()
    return programs


def _environment(programs: Path, model: BenchModel) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {"BENCH_MODEL": str(model.path), "BENTOML_DO_NOT_TRACK": "True", "OMP_NUM_THREADS": "1"}
    return {**kept, **own, "PATH": f"{programs}:{os.environ['PATH']}"}
