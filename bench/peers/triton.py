"""Triton as a peer: its server from the nvidia-pytriton wheel, with ONNX Runtime in its Python backend.

Set up from PyPI into a folder, without root. The wheel has no ONNX backend, so models run in Triton's Python backend,
in a stub process beside the server, as ours do. Its stub needs numpy 1.26 (with 2.x it returns empty tensors).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from peers.ready import wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WHEEL = "nvidia-pytriton==0.7.0"
BACKEND_PACKAGES = ("numpy==1.26.4", "onnxruntime==1.23.2")


def set_up(folder: Path) -> Path:
    """Put Triton and its backend's environment into a folder, unless they are there; the folder."""
    done = folder / ".done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "-q"]
        subprocess.run([*pip, "download", "--no-deps", "-d", str(folder), WHEEL], check=True)
        with zipfile.ZipFile(next(folder.glob("nvidia_pytriton-*.whl"))) as wheel:
            wheel.extractall(folder)
        for program in (_root(folder) / "bin/tritonserver", _stub(folder)):
            program.chmod(0o755)
        shutil.copy(_stub(folder), _root(folder) / "backends/python/triton_python_backend_stub")
        subprocess.run([sys.executable, "-m", "venv", str(folder / "environment")], check=True)
        subprocess.run([str(folder / "environment/bin/pip"), "-q", "install", *BACKEND_PACKAGES], check=True)
        done.touch()
    return folder


def _root(folder: Path) -> Path:
    return folder / "pytriton/tritonserver"


def _stub(folder: Path) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return _root(folder) / f"python_backend_stubs/{version}/triton_python_backend_stub"


def write_model(repository: Path, name: str, onnx_file: Path, *, config: str) -> None:
    """One model of the repository; `config` is its config.pbtxt but for name and backend."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    shutil.copy(onnx_file, version / "model.onnx")
    shutil.copy(Path(__file__).with_name("triton_backend.py"), version / "model.py")
    (repository / name / "config.pbtxt").write_text(f'name: "{name}"\nbackend: "python"\n{config}')


@contextlib.contextmanager
def running(
    folder: Path, repository: Path, *, http_port: int, grpc_port: int, threads: int = 1, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Triton serving a repository; `prefix` pins it, for example `taskset -c 0`."""
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{folder / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "PATH": f"{folder / 'environment/bin'}:{os.environ['PATH']}",  # where the stub's interpreter looks for itself
        "BENCH_THREADS": str(threads),
    }
    command = [
        str(_root(folder) / "bin/tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={_root(folder) / 'backends'}",
        f"--http-port={http_port}",
        f"--grpc-port={grpc_port}",
        "--allow-metrics=false",
        "--log-info=false",
    ]
    with subprocess.Popen([*prefix, *command], env=environment) as process:
        try:
            wait_until_ready(process, f"http://127.0.0.1:{http_port}/v2/health/ready")
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
