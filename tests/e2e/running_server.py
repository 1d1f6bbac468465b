"""A simulated server as a process of its own: started, waited for, killed; its log is kept and judged at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_STOP_S = 15


class RunningServer:
    """One `blindai serve --simulation`.

    Attributes:
        url: where it answers.
        port: its port, so that another can follow on it.
    """

    def __init__(self, log: Path, *, port: int = 0, options: Sequence[str] = ()) -> None:
        self._log = log
        self._log_file = log.open("wb")
        # A session of its own, so that its children (the models' processes) end with it whatever happens.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", "--port", str(port), *options],
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        words = self._process.stdout.readline().decode().split()
        if len(words) != 2 or words[0] != "ready":
            self.kill()
            raise AssertionError(f"the server did not start:\n{self.log}")
        self.url = words[1]
        self.port = int(self.url.rsplit(":", 1)[1])

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
