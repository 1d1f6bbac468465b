"""A simulated server as a process of its own: started, waited for, killed; its log is kept and judged at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

_STOP_S = 15
COMMAND = (sys.executable, "-m", "blindai.cli.main", "serve", "--simulation")


class RunningServer:
    """One `blindai serve --simulation`.

    Attributes:
        url: where it answers.
        port: its port, so that another can follow on it.
    """

    def __init__(
        self, log: Path, *, port: int = 0, options: tuple[str, ...] = (), command: tuple[str, ...] = COMMAND
    ) -> None:
        self._log = log
        self._log_file = log.open("wb")
        # A session of its own, so that its children (the models' processes) end with it whatever happens.
        self._process = subprocess.Popen(
            [*command, "--port", str(port), "--metrics-port", "0", "--grpc-port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._addresses: dict[str, str] = {}
        self.url = self.address("ready")
        self.port = int(self.url.rsplit(":", 1)[1])

    def address(self, word: str) -> str:
        """Where a listener answers: `ready` (HTTPS), `metrics` or `grpc`, as the server announces them."""
        while word not in self._addresses:
            assert self._process.stdout is not None
            words = self._process.stdout.readline().decode().split()
            if len(words) != 2:
                self.kill()
                raise AssertionError(f"the server did not start:\n{self.log}")
            self._addresses[words[0]] = words[1]
        return self._addresses[word]

    @property
    def process_id(self) -> int:
        """The server's own."""
        return self._process.pid

    def model_processes(self) -> list[int]:
        """One for each model that runs: the children of the server's children, which are what they are forked from."""
        return [process for fork_server in _children(self._process.pid) for process in _children(fork_server)]

    @property
    def log(self) -> str:
        """What it has written to stderr."""
        return self._log.read_text()

    def kill(self) -> None:
        """SIGKILL, without a last word to anybody."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._release()

    def stop(self) -> None:
        """SIGTERM, as an operator stops it; SIGKILL if that does not help."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_STOP_S)
        self.kill()

    def _release(self) -> None:
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log_file.close()


def _children(process_id: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has just ended
        for thread in Path(f"/proc/{process_id}/task").iterdir():  # each has children of its own
            with contextlib.suppress(OSError):
                found += map(int, (thread / "children").read_text("ascii").split())
    return found
