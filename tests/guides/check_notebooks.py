"""The notebooks open and run: `make test-guides`, in the environment of `make notebooks`.

Not part of `make test`: the name is not one that pytest looks for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import blindai
from blindai.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
START_S, STOP_S = 90, 30
_SERVER = re.compile(r"simulated server: (https://127\.0\.0\.1:\d+)$", re.MULTILINE)
_LAB = re.compile(r"(http://127\.0\.0\.1:\d+)/lab/tree/notebooks/introduction\.ipynb\?token=([0-9a-f]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What runs, and where.

    Attributes:
        folder: a copy of the notebooks, in a folder that JupyterLab shows.
        lab: JupyterLab's address, to which `token` is the key.
        server: the simulated server's address.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    lab: str
    token: str
    server: str

    def status(self, token: str) -> int:
        """What JupyterLab answers when it is asked for the introduction."""
        request = urllib.request.Request(  # noqa: S310  # the address is http://127.0.0.1
            f"{self.lab}/api/contents/notebooks/introduction.ipynb", headers={"Authorization": f"token {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # likewise
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    def end(self) -> None:
        """As a terminal or a container does it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_S)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("opened")
    shutil.copytree(NOTEBOOKS, folder / "notebooks")
    command = [sys.executable, str(folder / "notebooks/open.py"), "--port", "0", "--server-port", "0", "--no-browser"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            lab, server = _addresses(folder / "log", process)
            yield Opened(process=process, folder=folder, lab=lab[1], token=lab[2], server=server[1])
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.terminate()
                process.wait(STOP_S)
            process.kill()


def _addresses(log: Path, process: subprocess.Popen[bytes]) -> tuple[re.Match[str], re.Match[str]]:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        said = log.read_text("utf-8", "replace")
        lab, server = _LAB.search(said), _SERVER.search(said)
        if lab and server:
            return lab, server
        time.sleep(0.2)
    raise AssertionError(f"it did not start:\n{log.read_text('utf-8', 'replace')}")


def test_jupyterlab_answers_on_loopback_to_its_token(opened: Opened) -> None:
    assert opened.status(opened.token) == 200
    assert opened.status("0" * len(opened.token)) == 403


def test_the_server_beside_it_is_a_simulation(opened: Opened) -> None:
    with blindai.connect(opened.server, insecure_simulation=True) as client:
        assert client.attestation.simulated


def test_the_introduction_runs_from_top_to_bottom(opened: Opened, tmp_path: Path) -> None:
    notebook = shutil.copy(NOTEBOOKS / "introduction.ipynb", tmp_path)
    tools = Path(sys.executable).parent
    environment = os.environ | {"BLINDAI_URL": opened.server, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        [tools / "jupyter-execute", "--inplace", notebook], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "diagnosed correctly" in Path(notebook).read_text("utf-8")
    made = {path.name for path in tmp_path.iterdir()} - {Path(notebook).name}
    assert made == {"diagnosis.onnx", "proof.json", "proof.opening.json"}


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads((NOTEBOOKS / "introduction.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_both_end_together(opened: Opened) -> None:
    """The last one: what runs is gone afterwards."""
    opened.end()
    with pytest.raises(urllib.error.URLError):
        opened.status(opened.token)
    with pytest.raises(ConnectionLostError):
        blindai.connect(opened.server, insecure_simulation=True)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(NOTEBOOKS / "open.py"), "--no-browser", "--server-port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode != 0
    assert "is its port taken?" in done.stderr
