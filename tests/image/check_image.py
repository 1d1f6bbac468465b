"""The Containerfile builds, and what it makes serves as the guide says: `make test-containerfile`, as root on Debian.

No registry of images is asked: the base is Debian's packages, which the Makefile's rule puts into a file.
podman runs it with runc and its own control groups, which works inside most virtual machines and CI runners too.
Not part of `make test`: its name is not one that pytest looks for.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from server.model_parts import add_model, counting_model

import blindai
from blindai.cli.exit_codes import USAGE
from blindai.client import BlindAiClient, ModelDatumType

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
BASE_FILE = ROOT / ".image/base.tar"
BASE, IMAGE = "localhost/blindai-base", "localhost/blindai-test"
USER = 10001
PYTHON = "/opt/blindai/bin/python"
PROBE = ROOT / "tests/server/sandbox_probe.py"
HTTPS_PORT, GRPC_PORT = 50051, 50052
URL = f"https://localhost:{HTTPS_PORT}"
PATIENCE_S = 600
READY_S = 60
STOP_S = 40
RUNTIME = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")  # what podman asks by default may be refused
# docs/guides/operator.md shows these words; with `podman run --rm` before them and the image's name after them.
PLAIN = f"-p {HTTPS_PORT}:{HTTPS_PORT} -p {GRPC_PORT}:{GRPC_PORT}"
SHUT = f"--read-only --tmpfs /tmp --cap-drop all --security-opt no-new-privileges {PLAIN}"
SEEN_BY_PIP = ("/etc/ssl/certs", "/etc/pip.conf")  # how this machine reaches its package registry
SOME = 200_000  # steps of the model that counts: a part of a second
RUN_S = 6.0  # well below `drain_timeout_s`, on a machine that is busy with other things too


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Images and containers in a folder of their own, and the programs that work on them."""

    folder: Path

    def attempt(
        self, program: str, *arguments: str | Path, stdin: str = "", limit_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run buildah or podman to its end, however that is."""
        folders = ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]
        options = [*folders, "--storage-driver", "overlay", *(RUNTIME if program == "podman" else ())]
        return subprocess.run(
            [program, *options, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
            cwd=ROOT,
        )

    def run(self, program: str, *arguments: str | Path, stdin: str = "") -> str:
        """Run it, and it must succeed; what it printed on stdout."""
        ended = self.attempt(program, *arguments, stdin=stdin)
        assert ended.returncode == 0, f"{program} {arguments}: {ended.stdout[-4000:]} {ended.stderr[-4000:]}"
        return ended.stdout.strip()

    @contextmanager
    def serving(self, name: str, words: str) -> Iterator[str]:
        """A container of this name, once the server in it says that it is ready."""
        self.run("podman", "run", "--detach", "--name", name, *LIMITS, *words.split(), IMAGE)
        try:
            deadline_s = time.monotonic() + READY_S
            while "ready https://" not in (printed := self.run("podman", "logs", name)):
                assert time.monotonic() < deadline_s, printed
                time.sleep(0.5)
            yield name
        finally:
            self.run("podman", "rm", "--force", name)

    def stop(self, name: str) -> None:
        """As the guide says to, and it must end well before it is killed."""
        self.run("podman", "stop", "--time", str(STOP_S), name)
        assert self.run("podman", "inspect", "--format", "{{.State.ExitCode}}", name) == "0"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    assert os.geteuid() == 0, "buildah needs root to make an image of files that are root's"
    made = Store(folder=tmp_path_factory.mktemp("image"))
    try:
        yield made
    finally:
        made.run("buildah", "rm", "--all")  # of a build that failed
        shutil.rmtree(made.folder)


@pytest.fixture(scope="module")
def base(store: Store) -> str:
    store.run("podman", "import", "--quiet", BASE_FILE, BASE)
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
    """A container that is shut as far as it goes, with a server in it that is ready at two ports of this machine."""
    assert image
    with store.serving("shut", SHUT) as name:
        yield name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(add_model(1.0))
    return path


def told_of_processes(store: Store, name: str, field: str) -> list[int]:
    """The first number of a field of /proc/PID/status, of each process in the container, the server's first."""
    told = store.attempt("podman", "exec", name, "sh", "-c", "cat /proc/[0-9]*/status").stdout.splitlines()
    return [int(line.split()[1]) for line in told if line.startswith(f"{field}:")]


def test_the_calls_of_blindai_0_3_work_from_outside(server: str, model: Path) -> None:
    assert server
    client = BlindAiClient()
    client.connect_server("localhost", simulation=True)
    client.upload_model(str(model), shape=[3], dtype=ModelDatumType.F32)
    assert client.run_model([1.0, 2.0, 3.0]).output == [2.0, 3.0, 4.0]
    client.close_connection()


def test_grpc_answers_from_outside(server: str) -> None:
    assert server
    certificate = ssl.get_server_certificate(("localhost", GRPC_PORT)).encode()
    with grpc.secure_channel(f"localhost:{GRPC_PORT}", grpc.ssl_channel_credentials(certificate)) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=READY_S) == b"\x08\x01"  # status: SERVING


def test_not_even_root_could_write_to_what_is_installed(store: Store, server: str) -> None:
    touched = store.attempt("podman", "exec", "--user", "0", server, "touch", "/opt/blindai/bin/x")
    assert touched.returncode != 0
    assert "Read-only file system" in touched.stderr


def test_models_processes_have_a_filter_of_their_own_and_nothing_is_root(
    store: Store, server: str, model: Path
) -> None:
    with blindai.connect(URL, insecure_simulation=True) as client:
        client.upload_model(model, name="closed")
        client.infer("closed", [1.0, 2.0, 3.0])
        filters = told_of_processes(store, server, "Seccomp_filters")
        users = told_of_processes(store, server, "Uid")
    assert set(users) == {USER}
    assert filters[0] == 1  # podman's, which everything in the container has
    assert 2 in filters  # the model's own comes on top
    assert "cannot" not in store.run("podman", "logs", server)


def test_a_closed_process_in_the_container_is_refused_everything_but_computing(store: Store, server: str) -> None:
    """The probe closes itself as a model's process does, beside the server; 4096 is an address that nobody reads."""
    command = ["exec", "--interactive", server, PYTHON, "-", "closed", "1", "4096"]
    told = json.loads(store.run("podman", *command, stdin=PROBE.read_text("utf-8")))
    assert told["landlock"] >= 1
    assert {name: answer for name, answer in told["attempts"].items() if answer != "EPERM"} == {"clone3": "ENOSYS"}
    assert told["sums"]


def test_where_models_cannot_be_closed_it_does_not_start_and_says_why(store: Store, image: str, tmp_path: Path) -> None:
    """As under a container runtime that is too old to know Landlock."""
    profile = tmp_path / "seccomp.json"
    refused = {"names": ["landlock_create_ruleset"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}))
    options = ["--rm", *LIMITS, "--security-opt", f"seccomp={profile}"]
    ended = store.attempt("podman", "run", *options, image, limit_s=READY_S)
    assert ended.returncode == USAGE
    assert "Landlock" in ended.stderr


def test_a_run_ends_before_the_server_does(store: Store, server: str, tmp_path: Path) -> None:
    path = tmp_path / "counting.onnx"
    path.write_bytes(counting_model())
    with blindai.connect(URL, insecure_simulation=True) as client, ThreadPoolExecutor(max_workers=1) as other:
        client.upload_model(path, name="counting")
        client.infer("counting", np.array(1))  # its process is there now
        began_s = time.monotonic()
        client.infer("counting", np.array(SOME))
        count = int(SOME * RUN_S / (time.monotonic() - began_s))
        running = other.submit(client.infer, "counting", np.array(count))
        time.sleep(RUN_S / 8)
        assert not running.done()
        store.stop(server)
        assert int(running.result()["y"]) == count


def test_in_the_words_of_blindai_0_3_it_serves_too_and_leaves_nothing(store: Store, image: str) -> None:
    assert image
    with store.serving("plain", PLAIN) as name:
        with blindai.connect(URL, insecure_simulation=True) as client:
            assert client.models() == ()
        store.stop(name)
        assert [line for line in store.run("podman", "diff", name).splitlines() if " /tmp/" in line] == []


def test_the_guide_shows_what_was_run_here() -> None:
    guide = (ROOT / "docs/guides/operator.md").read_text("utf-8")
    for words in (PLAIN, SHUT):
        assert f"podman run --rm {words} blindai" in guide
