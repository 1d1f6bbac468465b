"""A simulated server as its own process, for the demo: started, waited for, and stopped."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

from blindai.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STOP_S = 15


@contextlib.contextmanager
def simulated_server(*, data_dir: Path, log: Path) -> Iterator[str]:
    """Yield the URL of a server that runs until the end of the block.

    Raises:
        ConnectionLostError: it did not start; its log says why.
    """
    command = [sys.executable, "-m", "blindai.cli.main", "serve", "--simulation", "--port", "0"]
    with log.open("wb") as stderr:
        process = subprocess.Popen(  # noqa: S603  # our own program, with fixed arguments
            [*command, "--data-dir", str(data_dir)], stdout=subprocess.PIPE, stderr=stderr
        )
    assert process.stdout is not None  # noqa: S101  # stdout=PIPE
    try:
        words = process.stdout.readline().decode().split()
        if len(words) != 2 or words[0] != "ready":  # noqa: PLR2004  # `ready URL`
            raise ConnectionLostError("the server did not start", hint=f"its log is {log}")
        yield words[1]
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
