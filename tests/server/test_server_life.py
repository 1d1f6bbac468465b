"""Start, upkeep and end: folders that killed servers left, sweeps that fail, dumps of memory, starts that failed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from onnx import TensorProto, helper
from server.model_parts import add_model, added, stored

from blindai.attester.simulation import SimulationAttester
from blindai.bundle import UploadHeader, encode_upload_header
from blindai.channel.keyring import KeyRing
from blindai.channel.sessions import SessionTable
from blindai.errors import BlindAIError, InvalidSettingsError
from blindai.server import app as app_module
from blindai.server.model_store import ModelStore
from blindai.server.run_folder import LOCK_NAME, remove_stale_folders, run_folder
from blindai.server.serve import create_app
from blindai.server.settings import Settings
from blindai.server.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blindai.server.app import App

SOON_S = 20.0
_X, _Y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
IDENTITY = helper.make_model(
    helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [_X], [_Y]),
    opset_imports=[helper.make_opsetid("", 17)],
    ir_version=9,
).SerializeToString()
HOLDS_A_FOLDER = """
import sys, time
from pathlib import Path
from blindai.server.run_folder import run_folder
with run_folder(Path(sys.argv[1])) as folder:
    (folder / "model").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(60)
"""


def application(folder: Path) -> App:
    attester = SimulationAttester(random=os.urandom, measurement=bytes(32))
    return create_app(Settings(simulation=True), attester=attester, directory=folder)


@contextlib.contextmanager
def another_server(parent: Path) -> Any:
    """Another process with a folder, and that folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS_A_FOLDER, str(parent)], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_killed_servers_folder_is_removed_by_the_next_and_a_running_ones_is_not(tmp_path: Path) -> None:
    with another_server(tmp_path) as (running, kept), another_server(tmp_path) as (killed, left):
        killed.kill()
        killed.wait()
        assert (left / "model").exists()
        with run_folder(tmp_path) as own:
            assert {path.name for path in tmp_path.iterdir()} == {kept.name, own.name}
            assert (kept / "model").exists()
            assert own.stat().st_mode & 0o777 == 0o700
        assert not own.exists()
        assert running.poll() is None


def test_what_is_not_surely_a_dead_servers_stays(tmp_path: Path) -> None:
    without_lock, plain, other = tmp_path / "blindai-x", tmp_path / "blindai-file", tmp_path / "other"
    elsewhere = tmp_path / "elsewhere"
    for folder in (without_lock, other, elsewhere):
        folder.mkdir()
    (other / LOCK_NAME).touch()
    (elsewhere / LOCK_NAME).touch()
    plain.touch()
    (tmp_path / "blindai-link").symlink_to(elsewhere)
    linked = tmp_path / "blindai-linked-lock"
    linked.mkdir()
    (linked / LOCK_NAME).symlink_to(other / LOCK_NAME)
    before = sorted(tmp_path.rglob("*"))
    remove_stale_folders(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingsError, match="cannot make a folder"), run_folder(tmp_path / "absent"):
        pass


def test_everything_a_server_writes_lies_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, temporary = tmp_path / "own", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    app = application(folder)
    assert list(temporary.iterdir()) == []
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1
    asyncio.run(app.sealed.service.pool.close())


async def live(app: App, until: Callable[[], bool]) -> None:
    """The server's lifetime, ended when `until` holds."""
    async with asyncio.timeout(SOON_S), app.running():
        while not until():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)


async def test_a_sweep_that_fails_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app_module, "SWEEP_EVERY_S", 0.01)
    sweeps: list[float] = []

    class FailingTable(SessionTable[Any]):
        def sweep(self, now_s: float) -> None:
            sweeps.append(now_s)
            raise RuntimeError("secret words")

    app = application(tmp_path)
    app = dataclasses.replace(app, sealed=dataclasses.replace(app.sealed, sessions=FailingTable()))
    await live(app, lambda: len(sweeps) >= 3)
    assert "a sweep failed: RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    assert isinstance(app.sealed.keys, KeyRing)


async def test_the_stores_files_go_even_if_the_processes_cannot_be_ended(tmp_path: Path) -> None:
    class FailingPool(WorkerPool):
        async def close(self) -> None:
            await super().close()
            raise OSError("no end")

    app = application(tmp_path)
    store = app.sealed.service.store
    await app.sealed.service.pool.close()
    service = dataclasses.replace(app.sealed.service, pool=FailingPool(store, directory=tmp_path))
    app = dataclasses.replace(app, sealed=dataclasses.replace(app.sealed, service=service))
    store_model(store)
    assert files_in(tmp_path)
    with pytest.raises(OSError, match="no end"):
        await live(app, lambda: True)
    assert files_in(tmp_path) == []


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def store_model(store: ModelStore) -> Any:
    header = UploadHeader(version=None, files=(("m.onnx", 5),), default_shape=None, load=False)
    upload = store.begin_upload("m", header)
    upload.write(b"model")
    upload.complete()
    return upload.register()


async def test_a_start_that_failed_is_forgotten(tmp_path: Path) -> None:
    """Another try starts anew, and finds what was missing."""
    store = ModelStore(tmp_path / "store")
    pool = WorkerPool(store, directory=tmp_path)
    model = stored(store, add_model())
    store.delete("m")
    with pytest.raises(BlindAIError):
        await added(pool, model, 1)
    assert pool.process_ids == ()
    stored(store, add_model())
    async with asyncio.timeout(SOON_S):
        assert await added(pool, model, 1, 2) == [2, 3]
    await pool.close()


def test_a_process_that_forbids_dumps_has_no_core_file_and_cannot_be_attached_to() -> None:
    code = (
        "import ctypes, resource\n"
        "from blindai.server.process_guard import forbid_dumps\n"
        "forbid_dumps()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("(0, 0) 0\n", "")


def core_limit(process_id: int) -> list[str]:
    lines = Path(f"/proc/{process_id}/limits").read_text("ascii").splitlines()
    return next(line.split()[4:6] for line in lines if line.startswith("Max core file size"))


@contextlib.contextmanager
def core_files_allowed() -> Iterator[None]:
    """As far as this machine allows them, for what is started meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.network
def test_a_server_forbids_dumps_and_leaves_nothing_when_it_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", "--port", "0"]
    with core_files_allowed():
        process = subprocess.Popen([*command, "--data-dir", str(tmp_path)], stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready ")
            assert core_limit(process.pid) == ["0", "0"]
            assert len(list(tmp_path.iterdir())) == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON_S) == 0
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []


async def test_a_models_process_forbids_dumps(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    pool = WorkerPool(store, directory=tmp_path)
    header = UploadHeader(version=None, files=(("m.onnx", len(IDENTITY)),), default_shape=None, load=False)
    upload = store.begin_upload("m", header)
    upload.write(IDENTITY)
    upload.complete()
    with core_files_allowed():
        await pool.load(upload.register(), "public")
    (process_id,) = pool.process_ids
    assert core_limit(process_id) == ["0", "0"]
    await pool.close()


def tls_connection(url: str) -> http.client.HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = url.removeprefix("https://").split(":")
    return http.client.HTTPSConnection(host, int(port), context=context, timeout=SOON_S)


def get(url: str) -> tuple[int, bytes]:
    host, _, path = url.removeprefix("http://").partition("/")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=SOON_S)) as connection:
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.network
def test_a_server_that_is_told_to_stop_ends_what_runs_and_takes_nothing_new(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", "--port", "0"]
    header = encode_upload_header(
        UploadHeader(version=None, files=(("m.onnx", len(IDENTITY)),), default_shape=None, load=True)
    )
    body = header + IDENTITY
    with (
        contextlib.ExitStack() as closing,
        subprocess.Popen([*command, "--data-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            told = dict(process.stdout.readline().split() for _ in range(2))
            ready = told["metrics"].replace("/metrics", "/v2/health/ready")
            assert get(ready) == (200, b'{"ready":true}')
            idle, busy = (closing.enter_context(contextlib.closing(tls_connection(told["ready"]))) for _ in range(2))
            idle.request("GET", "/v2/health/ready")
            assert idle.getresponse().read() == b'{"ready":true}'
            busy.putrequest("POST", "/v2/repository/models/m/upload")
            busy.putheader("content-length", str(len(body)))
            busy.endheaders()
            busy.send(body[:-10])
            wait_until(lambda: b"blindai_connections 2.0" in get(told["metrics"])[1])
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: get(ready) == (503, b'{"ready":false}'))
            wait_until(lambda: is_refused(told["ready"]))
            with pytest.raises((ConnectionError, ssl.SSLError, http.client.HTTPException)):
                ask_ready(idle)
            busy.send(body[-10:])
            answer = busy.getresponse()
            assert (answer.status, answer.getheader("connection")) == (200, "close")
            assert b'"digest"' in answer.read()
            assert process.wait(SOON_S) == 0
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []


def is_refused(url: str) -> bool:
    """Whether nobody listens any more; one who was let in just before is cut."""
    address = urlsplit(url)
    assert address.hostname is not None
    try:
        socket.create_connection((address.hostname, address.port or 0), timeout=SOON_S).close()
    except ConnectionRefusedError:
        return True
    return False


def ask_ready(connection: http.client.HTTPSConnection) -> None:
    connection.request("GET", "/v2/health/ready")
    connection.getresponse()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
