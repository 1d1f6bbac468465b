"""The server behind the proxies of these tests, with one model in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e import tiny_models
from e2e.running_server import RunningServer

import blindai

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """It has `doubler`: y = 2 x, FP32 [n, 3]."""
    folder = tmp_path_factory.mktemp("behind")
    running = RunningServer(folder / "server.log")
    try:
        with blindai.connect(running.url, insecure_simulation=True) as client:
            client.upload_model(tiny_models.times(folder / "doubler.onnx", 2))
        yield running
    finally:
        running.stop()
    bad = [line for line in running.log.splitlines() if "Traceback" in line or " ERROR " in line]
    assert not bad, running.log
