"""Makes the models' processes of one share: `python -m blindai.server.fork_server SOCKET PROVIDER...`.

`forking` starts it. It has imported and opened once what each of them needs, its execution providers' libraries too,
and so starts one in a hundredth of the time. It holds no key, no model and nobody's data: descriptors pass through it,
and only its children look into them. It has one thread, so a fork copies no lock that somebody holds. Its children
share its address-space layout, so it works for one share only (docs/decisions/0006-fork-server.md). If it ends, they
end with it.
Leaves out: the sandbox, which each child closes itself (`worker`), and what a launch asks (`forking`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

from blindai.server import worker
from blindai.server.sandbox import EXIT_STATUS, SandboxMissingError, require_single_thread
from blindai.server.warm_up import open_providers, warm_up
from blindai.server.worker_protocol import BORN, ENDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_PR_SET_PDEATHSIG = 1  # prctl(2)
_MAX_DESCRIPTORS = 253  # of one message (SCM_MAX_FD)
_STANDARD_STREAMS = (0, 1, 2)
_LIBC = ctypes.CDLL(None, use_errno=True)


class Parent:
    """The process's state: its socket, and what has to be told of which child.

    Args:
        control: launches come in here.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, tuple[int, int]] = {}  # by pidfd: process id, where its end is told

    def serve(self) -> None:
        """Fork as asked, and tell ends, until the server is gone.

        Raises:
            EOFError: it is.
        """
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._bury(descriptor)
                else:
                    self._launch()

    def _launch(self) -> None:
        """What cannot be done is told by the end of `life`."""
        message, descriptors, flags, _ = socket.recv_fds(self._control, 1, _MAX_DESCRIPTORS)
        if not message:
            raise EOFError
        try:
            if not flags & socket.MSG_CTRUNC:
                self._fork(descriptors[1:], life=os.dup(descriptors[0]))
        except OSError:
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, inherited: Sequence[int], life: int) -> None:
        me = os.getpid()
        try:
            child = os.fork()
            if child == 0:
                _become_worker(inherited, me)
            pidfd = _held(child)
        except OSError:
            os.close(life)
            raise
        self._children[pidfd] = child, life
        self._poll.register(pidfd, select.POLLIN)
        with _borrowed(life) as told:
            socket.send_fds(told, [BORN.pack(child)], [pidfd])

    def _bury(self, pidfd: int) -> None:
        """Reap a child that has ended, and tell its exit status."""
        child, life = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status = os.waitpid(child, 0)
        with _borrowed(life) as told:
            told.send(ENDED.pack(os.waitstatus_to_exitcode(status)))
        os.close(life)
        os.close(pidfd)


def _held(child: int) -> int:
    """A pidfd of a child, which is not reaped yet, so the number is still its own; one without does not live on."""
    try:
        return os.pidfd_open(child)
    except OSError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A socket to tell something on, which stays open; perhaps nobody listens any more."""
    opened = socket.socket(fileno=descriptor)
    try:
        with contextlib.suppress(ConnectionError):
            yield opened
    finally:
        opened.detach()


def _become_worker(inherited: Sequence[int], parent: int) -> NoReturn:
    """In the child: keep what is its own, and run the model; Python and ONNX Runtime draw new seeds by themselves."""
    status = 1
    try:
        os.setsid()  # Ctrl-C at the server lets its requests finish
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:  # else it had died before it could be followed
            _close_all_but((*_STANDARD_STREAMS, *inherited))
            worker.main(*inherited)
            status = 0
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else 1
    finally:
        os._exit(status)  # nothing of the parent's is closed or flushed twice


def _close_all_but(kept: Iterable[int]) -> None:
    """The parent's socket, and where it tells of others, are nothing to a model."""
    start = 0
    for descriptor in sorted(kept):
        if start < descriptor:  # an empty range from 0 would be taken for everything
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def main(control: int, *providers: str) -> None:
    """Get ready, say so, and fork until the server is gone."""
    channel = socket.socket(fileno=control)
    warm_up()
    open_providers(providers)
    try:
        require_single_thread()
    except SandboxMissingError:
        sys.exit(EXIT_STATUS)
    gc.collect()
    gc.freeze()  # a collection in a child would write to all of these pages, and so copy them
    with contextlib.suppress(EOFError, ConnectionError):
        channel.send(b"\0")
        Parent(channel).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
