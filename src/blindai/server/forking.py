"""The fork servers as the server sees them: who forks from which, one kept ready, and those idle ended.

    ready one ─ first start of an owner → the owner's own → a process of it dies unasked → retired, ends with its last

The children of a fork server have one address-space layout, stack canary and hash seed. So each has one owner, a share
(or under `isolation = "model"` a model), and after a crash, which might have been a guess at the layout, the next
process comes from another one (docs/decisions/0006-fork-server.md).
Leaves out: what runs in one (`fork_server`), and what a model's process is given (`worker_launch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import blindai
from blindai.errors import ModelNotReadyError
from blindai.server.log import LOG
from blindai.server.worker_protocol import BORN, ENDED

if TYPE_CHECKING:
    from collections.abc import Sequence

_START_S = 60.0  # longest start of a fork server
_FORK_S = 10.0  # longest fork
_LOOK_S = 1.0  # between looks
_MOST_IDLE = 2  # that keep their owner without having a process


@dataclass(slots=True, kw_only=True, eq=False)
class ForkServer:
    """One fork server.

    Attributes:
        process: the process.
        control: our end of its socket.
        ready: set once it forks at once, or has died.
        children: processes that it has or is to have; the event loop's, like all that changes here.
        is_retired: whether it forks no more.
        left_s: when the last of them had gone, on the event loop's clock.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    children: int = 0
    is_retired: bool = False
    left_s: float = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether it may still be asked to fork."""
        return not self.is_retired and self.process.poll() is None

    async def until_ready(self) -> None:
        """Wait until it has imported what it needs.

        Raises:
            ModelNotReadyError: that takes too long.
        """
        try:
            async with asyncio.timeout(_START_S):
                await self.ready.wait()
        except TimeoutError:
            self.is_retired = True
            raise cannot_start() from None

    def fork(self, descriptors: Sequence[int]) -> ModelProcess:
        """Start a model's process that has these descriptors and no others; blocks for some milliseconds.

        Raises:
            OSError: it is gone, or there is no process to be had.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                socket.send_fds(self.control, [b"\0"], [theirs.fileno(), *descriptors])
            ours.settimeout(_FORK_S)
            message, pidfds, _, _ = socket.recv_fds(ours, BORN.size, 1)
            if len(message) != BORN.size or not pidfds:  # no descriptor is left to be had
                raise ChildProcessError("a fork server could not start a model's process")  # noqa: TRY301
        except BaseException:
            ours.close()
            raise
        return ModelProcess(server=self, pid=BORN.unpack(message)[0], pidfd=pidfds[0], life=ours)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelProcess:
    """A model's process: a fork server's child, so it is held by a descriptor, since its number may be another's soon.

    Attributes:
        server: what has forked it.
        pid: to be shown.
        pidfd: of the process.
        life: socket on which its end is told.
    """

    server: ForkServer
    pid: int
    pidfd: int
    life: socket.socket

    def kill(self) -> None:
        """End it at once; once more is no mistake, until `wait` has returned."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def distrust(self) -> None:
        """It has died, or talks nonsense: no other process is to have its layout."""
        self.server.is_retired = True

    async def wait(self) -> int:
        """Wait until it is gone: its exit status, below zero the signal. To be called once."""
        status = await asyncio.to_thread(self._wait)
        self.server.children -= 1
        self.server.left_s = asyncio.get_running_loop().time()
        return status

    def _wait(self) -> int:
        self.life.settimeout(None)
        told = b""
        with contextlib.suppress(ConnectionError):
            told = self.life.recv(ENDED.size)
        if not told:  # its fork server has ended, so the kernel kills it
            gone = select.poll()
            gone.register(self.pidfd, select.POLLIN)
            gone.poll()
        self.life.close()
        os.close(self.pidfd)
        return int(ENDED.unpack(told)[0]) if told else -signal.SIGKILL


class ForkServers:
    """All fork servers, by owner; belongs to one event loop.

    Args:
        directory: an empty one, in which they and the models' processes run.
        idle_s: after which one ends that has no process.
        providers: execution providers for which they hold open what those need.
    """

    def __init__(self, directory: str, *, idle_s: float, providers: tuple[str, ...] = ()) -> None:
        self._directory = directory
        self._providers = providers
        self._idle_s = idle_s
        self._all: list[ForkServer] = []
        self._owned: dict[str, ForkServer] = {}
        self._spare: ForkServer | None = None
        self._looking: asyncio.Task[None] | None = None
        self._is_closing = asyncio.Event()

    def of(self, owner: str) -> ForkServer:
        """The owner's, with one more child counted: take it off if none comes of it.

        Raises:
            OSError: there is no process to be had.
        """
        server = self._owned.get(owner)
        if server is None or not server.is_usable:
            server = self._spare if self._spare is not None and self._spare.is_usable else self._start()
            self._spare = None
            self._owned[owner] = server
        server.children += 1
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return server

    async def close(self) -> None:
        """End all of them."""
        self._is_closing.set()
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await self._end(list(self._all))

    async def _look(self) -> None:
        """End those that nobody needs, and have one ready, out of the way of starts that somebody waits for."""
        while not self._is_closing.is_set():
            await self._end(self._unneeded())
            if self._spare is None and all(server.ready.is_set() for server in self._all):
                with contextlib.suppress(OSError):
                    self._spare = self._start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._is_closing.wait()

    def _start(self) -> ForkServer:
        loop = asyncio.get_running_loop()
        server = _spawn(self._directory, self._providers)
        self._all.append(server)

        def told() -> None:
            loop.remove_reader(server.control.fileno())
            server.ready.set()

        loop.add_reader(server.control.fileno(), told)
        return server

    def _unneeded(self) -> list[ForkServer]:
        ended = [server for server in self._all if not server.is_usable and not server.children]
        idle = [server for server in self._owned.values() if server.is_usable and not server.children]
        idle.sort(key=lambda server: server.left_s, reverse=True)
        too_old_s = asyncio.get_running_loop().time() - self._idle_s
        kept = [server for server in idle[:_MOST_IDLE] if server.left_s > too_old_s]
        return [*ended, *(server for server in idle if server not in kept)]

    async def _end(self, servers: Sequence[ForkServer]) -> None:
        for server in servers:
            server.is_retired = True  # first, so that nobody gets one meanwhile
        for server in servers:
            self._all.remove(server)
            self._owned = {owner: other for owner, other in self._owned.items() if other is not server}
            self._spare = None if self._spare is server else self._spare
            asyncio.get_running_loop().remove_reader(server.control.fileno())
            server.control.close()
            if server.process.poll() is not None:
                LOG.warning("a fork server ended, exit status %d", server.process.returncode)
            server.process.kill()
            await asyncio.to_thread(server.process.wait)


def cannot_start() -> ModelNotReadyError:
    """What is said when there is no memory, no descriptor or no process to be had."""
    return ModelNotReadyError(
        "the server cannot start a process for the model", hint="Try again later.", retry_after_s=1
    )


def _spawn(directory: str, providers: tuple[str, ...]) -> ForkServer:
    """A new program, hence a layout of its own; it inherits a socket, and nothing of the server's environment."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603  # fixed arguments
                [sys.executable, "-P", "-m", "blindai.server.fork_server", str(theirs.fileno()), *providers],
                pass_fds=[theirs.fileno()],
                env=worker_environment(),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at the server lets its requests finish
                stderr=subprocess.DEVNULL,  # what a model makes a library print may be a user's data
            )
        except BaseException:
            ours.close()
            raise
    ours.settimeout(_FORK_S)
    return ForkServer(process=process, control=ours)


def worker_environment() -> dict[str, str]:
    """Nothing of the server's own environment: no `ORT_*`, no proxy, no secret."""
    environment = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    # So that importing starts no thread: a fork copies only the one that forks, and with it others' locks.
    environment |= {"OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    root = Path(blindai.__file__).parents[1]
    if str(root) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        environment["PYTHONPATH"] = str(root)
    return environment
