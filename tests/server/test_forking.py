"""What models' processes are forked from: it holds nothing, serves one share, and is never trusted after a crash."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from onnx import TensorProto, helper
from server.model_parts import add_model, added, floats, own_fork_servers, own_workers, serialise, stored, until

from blindai.server.forking import ForkServer, ForkServers
from blindai.server.model_config import ServingConfig
from blindai.server.model_store import ModelStore
from blindai.server.runner_start import PoolOptions
from blindai.server.worker_pool import WorkerPool
from blindai.server.worker_protocol import BORN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LIBRARY = re.compile(r"^([0-9a-f]+)-\S+ r-xp .*onnxruntime_pybind11_state", re.MULTILINE)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ModelStore]:
    opened = ModelStore(tmp_path / "store")
    yield opened
    opened.close()


@contextlib.asynccontextmanager
async def pool_of(store: ModelStore, *, isolation: str = "tenant") -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(store, PoolOptions(isolation=isolation))
    try:
        yield pool
    finally:
        await pool.close()
        assert own_fork_servers() == []


@contextlib.asynccontextmanager
async def forks_of(directory: Path, *, idle_s: float = 60.0) -> AsyncIterator[ForkServers]:
    forks = ForkServers(str(directory), idle_s=idle_s)
    try:
        yield forks
    finally:
        await forks.close()


def random_model() -> bytes:
    """Y = 32 random numbers, from no seed that the model names."""
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [32])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    return serialise([helper.make_node("RandomUniform", [], ["y"], shape=[32])], [x], [y])


def parent_of(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/stat").read_text("ascii").rpartition(")")[2].split()[1])


def lives(process_id: int) -> bool:
    """Whether it runs; a dead orphan may still be listed until the system's first process takes note."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{process_id}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    return False


def library_at(process_id: int) -> str:
    """Where ONNX Runtime's code lies in a process."""
    found = LIBRARY.search(Path(f"/proc/{process_id}/maps").read_text("utf-8"))
    assert found is not None
    return found[1]


def open_descriptors(process_id: int) -> set[int]:
    return {int(link.name) for link in Path(f"/proc/{process_id}/fd").iterdir()}


async def test_a_fork_server_holds_nothing_and_has_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    left, right = socket.socketpair()
    (tmp_path / "empty").mkdir()
    with left, right:
        left.set_inheritable(True)
        async with forks_of(tmp_path / "empty") as forks:
            server = forks.of("share")
            await server.until_ready()
            at = Path(f"/proc/{server.process.pid}")
            links = {int(link.name): str(link.readlink()) for link in (at / "fd").iterdir()}
            assert [links.pop(stream) for stream in range(3)] == ["/dev/null"] * 3
            (only,) = links.values()
            assert only.startswith("socket:")
            assert len(list((at / "task").iterdir())) == 1
            names = {line.partition(b"=")[0] for line in (at / "environ").read_bytes().split(b"\0") if line}
            assert names <= {
                b"LANG",
                b"PYTHONDONTWRITEBYTECODE",
                b"PYTHONPATH",
                b"OPENBLAS_NUM_THREADS",
                b"ORT_DISABLE_TELEMETRY",
            }
            assert list((at / "cwd").iterdir()) == []


async def test_shares_have_a_fork_server_and_a_layout_of_their_own(store: ModelStore) -> None:
    models = [stored(store, add_model(index), f"m{index}") for index in range(2)]
    async with pool_of(store) as pool:
        for model, share in ((models[0], "one"), (models[1], "one"), (models[0], "two")):
            await pool.load(model, share)
        parents = [parent_of(process_id) for process_id in pool.process_ids]
        assert parents.count(parents[0]) == 2
        assert len(set(parents)) == 2
        if os.geteuid() == 0:  # others may not look into a process that forbids dumps
            places = {library_at(process_id) for process_id in pool.process_ids}
            assert len(places) == 2


async def test_where_models_are_shared_each_has_a_fork_server(store: ModelStore) -> None:
    models = [stored(store, add_model(index), f"m{index}") for index in range(2)]
    async with pool_of(store, isolation="model") as pool:
        for model in models:
            await pool.load(model, "share")
        assert len({parent_of(process_id) for process_id in pool.process_ids}) == 2


async def test_after_a_crash_the_next_process_has_another_layout(store: ModelStore) -> None:
    model = stored(store, add_model())
    async with pool_of(store) as pool:
        await pool.load(model, "public")
        (first,) = pool.process_ids
        parent = parent_of(first)
        os.kill(first, signal.SIGKILL)
        await until(lambda: pool.process_ids not in ((), (first,)))
        assert parent_of(pool.process_ids[0]) != parent
        await until(lambda: parent not in own_fork_servers())


async def test_a_stop_is_no_crash(store: ModelStore) -> None:
    model = stored(store, add_model())
    async with pool_of(store) as pool:
        parents = []
        for _ in range(2):
            await pool.load(model, "public")
            parents.append(parent_of(pool.process_ids[0]))
            await pool.stop(model)
        assert parents[0] == parents[1]


async def test_processes_die_with_their_fork_server_and_come_back(store: ModelStore) -> None:
    models = [stored(store, add_model(index), f"m{index}") for index in range(2)]
    async with pool_of(store) as pool:
        for model in models:
            await pool.load(model, "public")
        old = set(pool.process_ids)
        os.kill(parent_of(pool.process_ids[0]), signal.SIGKILL)
        await until(lambda: len(set(pool.process_ids) - old) == 2)
        assert not any(map(lives, old))
        assert [await added(pool, model, 1) for model in models] == [[1], [2]]


async def test_siblings_draw_other_random_numbers(store: ModelStore) -> None:
    model = stored(store, random_model(), config=ServingConfig(instances=2))
    drawn = set()
    async with pool_of(store) as pool:
        for _ in range(2):
            (output,) = await pool.infer(model, "public", floats(0))
            drawn.add(tuple(output.data.tolist()))
            await pool.stop(model)
    assert len(drawn) == 2


async def test_one_is_kept_ready_and_the_idle_ones_end(tmp_path: Path) -> None:
    async with forks_of(tmp_path, idle_s=0) as forks:
        first = forks.of("one")
        await first.until_ready()
        await until(lambda: len(own_fork_servers()) == 2)
        first.children -= 1
        await until(lambda: first.process.pid not in own_fork_servers())
        (ready,) = own_fork_servers()
        assert forks.of("two").process.pid == ready


async def test_few_are_kept_for_owners_without_a_process(tmp_path: Path) -> None:
    async with forks_of(tmp_path) as forks:
        servers = [forks.of(owner) for owner in "abcd"]
        for server in servers:
            await server.until_ready()
        for left_s, server in enumerate(servers):
            server.left_s += 1e9 + left_s
            server.children -= 1
        await until(lambda: servers[0].process.poll() is not None and servers[1].process.poll() is not None)
        assert [server.is_usable for server in servers[2:]] == [True, True]
        assert forks.of("d") is servers[3]


async def test_a_process_is_told_apart_from_its_number(tmp_path: Path) -> None:
    """It can be killed and waited for though its fork server has reaped it."""
    async with forks_of(tmp_path) as forks:
        server = forks.of("share")
        await server.until_ready()
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with pair[0], pair[1]:
            process = server.fork([pair[1].fileno()])  # too few for a worker, so it ends by itself
            await until(lambda: own_workers() == [])
            process.kill()
            assert await process.wait() == 1
        assert server.children == 0


async def test_a_fork_server_without_a_descriptor_left_says_so_at_once_and_keeps_no_child(tmp_path: Path) -> None:
    async with forks_of(tmp_path) as forks:
        server = forks.of("share")
        await server.until_ready()
        taken = open_descriptors(server.process.pid)
        left = [number for number in range(64) if number not in taken][:3]  # to tell on, twice, and the child's pidfd
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (left[2], left[2]))
        begun_s = time.monotonic()
        with pytest.raises(OSError, match="could not start"):
            server.fork([])
        assert time.monotonic() - begun_s < 5
        assert own_workers() == []
        assert open_descriptors(server.process.pid) == taken
        server.children -= 1


def test_a_server_without_a_descriptor_left_takes_no_process() -> None:
    """The kernel then drops the pidfd that comes with the number."""
    control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def answer() -> None:
        _, descriptors, _, _ = socket.recv_fds(other, 1, 1)
        with socket.socket(fileno=descriptors[0]) as life:
            life.send(BORN.pack(1))

    with control, other, subprocess.Popen(["true"]) as process:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="could not start"):
            ForkServer(process=process, control=control).fork([])
        thread.join()
