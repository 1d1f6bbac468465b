"""The Containerfile builds, and what it makes serves: `make test-image`, as root on Debian, up to 20 minutes.

Where no registry of images is reached the base comes from Debian's packages (debootstrap), so that is always done.
podman runs it with runc and its own control groups, which works inside most virtual machines and CI runners too.
Not part of `make test`: its name is not one that pytest looks for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import TensorProto, helper

import blindai
from blindai.client import BlindAiClient, ModelDatumType

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
BASE, IMAGE, NAME = "localhost/blindai-base", "localhost/blindai-test", "blindai-test"
PACKAGES = "python3,python3-venv,ca-certificates"
HTTPS_PORT, GRPC_PORT = 50051, 50052
PATIENCE_S = 900
STOP_S = 40
RUNTIME = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")
SEEN_BY_PIP = ("/etc/ssl/certs", "/etc/pip.conf")  # how this machine reaches its package registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Images and containers in a folder of their own, and the programs that work on them."""

    folder: Path

    def run(self, program: str, *arguments: str | Path, limit_s: float = PATIENCE_S) -> str:
        """Run buildah or podman to its end; what it printed on stdout."""
        folders = ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]
        options = [*folders, "--storage-driver", "overlay", *(RUNTIME if program == "podman" else ())]
        command = [program, *options, *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s, cwd=ROOT)
        assert ended.returncode == 0, f"{program} {arguments}: {ended.stderr[-4000:]}"
        printed: str = ended.stdout
        return printed.strip()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    assert os.geteuid() == 0, "debootstrap and buildah need root"
    made = Store(folder=tmp_path_factory.mktemp("image"))
    try:
        yield made
    finally:
        made.run("buildah", "rm", "--all")
        made.run("buildah", "rmi", "--all", "--force")
        shutil.rmtree(made.folder)


@pytest.fixture(scope="module")
def base(store: Store) -> str:
    """A small Debian with Python."""
    rootfs = store.folder / "rootfs"
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(rootfs)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == 0, ended.stdout[-4000:]
    container = store.run("buildah", "from", "scratch")
    store.run("buildah", "add", "--quiet", container, rootfs, "/")
    store.run("buildah", "commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(rootfs)
    return BASE


@pytest.fixture(scope="module")
def image(store: Store, base: str) -> str:
    """The Containerfile's image on that base."""
    volumes = [option for path in SEEN_BY_PIP if Path(path).exists() for option in ("--volume", f"{path}:{path}:ro")]
    options = ["--isolation", "chroot", "--network", "host", "--build-arg", f"BASE={base}", "--tag", IMAGE]
    store.run("buildah", "build", *volumes, *options, ".")
    return IMAGE


@pytest.fixture(scope="module")
def server(store: Store, image: str) -> Iterator[str]:
    """The container's name, once the server in it is ready at the two ports of this machine."""
    ports = [option for port in (HTTPS_PORT, GRPC_PORT) for option in ("--publish", f"{port}:{port}")]
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]  # what the defaults ask may be refused
    store.run("podman", "run", "--detach", "--name", NAME, *limits, *ports, image)
    try:
        deadline_s = time.monotonic() + 60
        while "ready https://" not in (printed := store.run("podman", "logs", NAME)):
            assert time.monotonic() < deadline_s, printed
            time.sleep(0.5)
        yield NAME
    finally:
        store.run("podman", "rm", "--force", NAME)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Y = x + 1."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "g", [x], [y], [one])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(made, path)
    return path


def test_the_calls_of_blindai_0_3_work_from_outside(server: str, model: Path) -> None:
    assert server
    client = BlindAiClient()
    client.connect_server("localhost", simulation=True)
    client.upload_model(str(model), shape=[1, 3], dtype=ModelDatumType.F32)
    assert client.run_model([1.0, 2.0, 3.0]).output == [2.0, 3.0, 4.0]
    client.close_connection()


def test_models_run_closed_and_the_server_is_not_root(store: Store, server: str, model: Path) -> None:
    with blindai.connect(f"https://localhost:{HTTPS_PORT}", insecure_simulation=True) as client:
        client.upload_model(model, name="closed")
        client.infer("closed", [[1.0, 2.0, 3.0]])
        processes = store.run("podman", "top", server, "huser", "seccomp", "args").splitlines()[1:]
    assert len(processes) >= 2  # the server, and the model's own
    assert all(line.split()[0] != "root" for line in processes)
    assert all(line.split()[1] == "filter" for line in processes)
    assert "cannot" not in store.run("podman", "logs", server)


def test_it_stops_gracefully_and_leaves_nothing(store: Store, server: str) -> None:
    store.run("podman", "stop", "--time", str(STOP_S), server, limit_s=2 * STOP_S)
    assert store.run("podman", "inspect", "--format", "{{.State.ExitCode}}", server) == "0"
    assert [line for line in store.run("podman", "diff", server).splitlines() if " /tmp/" in line] == []
