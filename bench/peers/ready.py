"""Waits until a server that was just started answers."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

START_S = 60.0


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Return once `url` answers 200.

    Raises:
        TimeoutError: not within a minute, or the process has ended.
    """
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310  # our own
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError("it did not start" if process.poll() is None else f"it ended with {process.returncode}")
