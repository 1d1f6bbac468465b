"""The server that most of these tests share, and a model with data for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli.processes import SIMULATED, Served, blindai_ok, served
from e2e.tiny_models import times

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of its own process; each test gives its models names of its own."""
    with served(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="session")
def doubling(server: Served, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an uploaded model: y = 2 x over FP32 [n, 3]."""
    model = times(tmp_path_factory.mktemp("model") / "doubling.onnx", 2.0)
    blindai_ok("upload", server.url, model, SIMULATED)
    return "doubling"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A .npy file of two rows for that model."""
    np.save(tmp_path / "rows.npy", np.array([[1, 2, 3], [4, 5, 6.5]], np.float32))
    return tmp_path / "rows.npy"
