"""notebooks/Containerfile builds, and what it makes shows the notebooks to who has the token: `make test-image`.

As in check_image.py, the base is Debian's packages. Not part of `make test`: its name is not one that pytest looks for.
"""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from image import check_image
from image.check_image import LIMITS, READY_S, SEEN_BY_PIP, Store, base, store

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["base", "store"]  # fixtures

NAME, IMAGE, PORT = "notebooks", "localhost/blindai-notebooks-test", 8888
HERE = check_image.ROOT / "notebooks"


@pytest.fixture(scope="module")
def token(store: Store, base: str) -> Iterator[str]:
    """Of the container that the guide starts, once JupyterLab has printed it."""
    volumes = [option for path in SEEN_BY_PIP if Path(path).exists() for option in ("--volume", f"{path}:{path}:ro")]
    options = ["--isolation", "chroot", "--network", "host", "--build-arg", f"BASE={base}", "--tag", IMAGE]
    files = ["--file", str(HERE / "Containerfile"), "--ignorefile", str(HERE / ".containerignore")]
    store.run("buildah", "build", *volumes, *options, *files, ".")
    store.run("podman", "run", "--detach", "--name", NAME, *LIMITS, "-p", f"127.0.0.1:{PORT}:{PORT}", IMAGE)
    try:
        yield _printed_token(store)
    finally:
        store.run("podman", "rm", "--force", NAME)


def _printed_token(store: Store) -> str:
    deadline_s = time.monotonic() + READY_S
    while True:
        ended = store.attempt("podman", "logs", NAME)
        said = ended.stdout + ended.stderr
        if found := re.search(r"introduction\.ipynb\?token=([0-9a-f]+)", said):
            return found[1]
        assert time.monotonic() < deadline_s, said
        time.sleep(0.5)


def _status(token: str) -> int:
    request = urllib.request.Request(  # the address is http://127.0.0.1
        f"http://127.0.0.1:{PORT}/api/contents/notebooks/introduction.ipynb",
        headers={"Authorization": f"token {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # likewise
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_jupyterlab_answers_from_outside_to_its_token(token: str) -> None:
    assert _status(token) == 200
    assert _status("0" * len(token)) == 403


def test_the_introduction_runs_inside(store: Store, token: str) -> None:
    assert token
    server = re.search(r"simulated server: (\S+)", store.run("podman", "logs", NAME))
    assert server
    words = ["--env", f"BLINDAI_URL={server[1]}", "--env", "PATH=/opt/blindai/bin:/usr/bin:/bin"]
    store.run("podman", "exec", *words, NAME, "jupyter-execute", "notebooks/introduction.ipynb")


def test_it_ends_when_it_is_told_to(store: Store, token: str) -> None:
    """The last one."""
    assert token
    store.run("podman", "stop", "--time", "30", NAME)
    assert store.run("podman", "inspect", "--format", "{{.State.ExitCode}}", NAME) == "0"
