"""`blindai` as other processes: a verb that runs to its end, and a simulated server whose every file is in sight."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COMMAND = (sys.executable, "-m", "blindai.cli.main")
SIMULATED = "--insecure-simulation"
_PATIENCE_S = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A process that has ended: its exit code, and what it wrote where."""

    code: int
    out: str
    err: str


def run(command: Sequence[str], *, stdin: str = "", variables: Mapping[str, str] | None = None) -> Ended:
    """Run a program to its end, in UTF-8 and without colour, whatever the machine is set to."""
    ended = subprocess.run(
        command,
        input=stdin.encode(),
        capture_output=True,
        check=False,
        timeout=_PATIENCE_S,
        env={**os.environ, "PYTHONUTF8": "1", **(variables or {})},
    )
    return Ended(code=ended.returncode, out=ended.stdout.decode(), err=ended.stderr.decode())


def blindai(*arguments: str | Path, stdin: str = "", variables: Mapping[str, str] | None = None) -> Ended:
    """Run a verb to its end."""
    ended = run([*COMMAND, *map(str, arguments)], stdin=stdin, variables=variables)
    assert "Traceback" not in ended.err, ended.err
    return ended


def blindai_ok(*arguments: str | Path, stdin: str = "") -> Ended:
    """Run a verb that must succeed."""
    ended = blindai(*arguments, stdin=stdin)
    assert ended.code == 0, ended.err
    return ended


def without_network(command: Sequence[str]) -> list[str]:
    """The command in a network namespace of its own, where no interface is up, not even loopback.

    A namespace that cannot be made fails the test: a proof that is verified beside a network shows nothing.
    """
    namespace = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--"]
    tried = run([*namespace, "true"])
    if tried.code != 0:
        pytest.fail(f"cannot make a namespace without a network, so offline verification is not shown: {tried.err}")
    return [*namespace, *command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A simulated server and all that it writes: its log, its data folder, its temporary files and its home."""

    url: str
    metrics_url: str
    pid: int
    folder: Path

    @property
    def log(self) -> Path:
        """Its stderr, at level debug."""
        return self.folder / "server.log"

    def processes(self) -> list[int]:
        """The server, what models' processes are forked from, and those that live now."""
        return _tree(self.pid)

    def kill(self) -> None:
        """SIGKILL the server and its models' processes, without a last word to anybody."""
        os.killpg(self.pid, signal.SIGKILL)


def _tree(process_id: int) -> list[int]:
    lists = [path.read_text().split() for path in Path(f"/proc/{process_id}/task").glob("*/children")]
    return [process_id, *(below for listed in lists for child in listed for below in _tree(int(child)))]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A server until the end of the block; everything it can write lands under `folder`."""
    for name in ("data", "tmp", "home"):
        (folder / name).mkdir(parents=True)
    options = ["serve", "--simulation", "--port", "0", "--log-level", "debug", "--data-dir", str(folder / "data")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, *options],
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # so that its children end with it, whatever happens
            env={**os.environ, "TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home")},
        )
    assert process.stdout is not None
    try:
        words = process.stdout.readline().decode().split()
        assert words[:1] == ["ready"], (folder / "server.log").read_text()
        metrics = process.stdout.readline().decode().split()
        assert metrics[:1] == ["metrics"]
        yield Served(url=words[1], metrics_url=metrics[1], pid=process.pid, folder=folder)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
