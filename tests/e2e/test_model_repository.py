"""`blindai serve --model-repository`: a real server, and the SDK against the models that it came with."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from server.triton_models import SCALER, add_model, add_pipeline, scaler

import blindai

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.running_server import RunningServer

pytestmark = pytest.mark.network
SERVE = ("--simulation", "--port", "0", "--model-repository")


def test_models_of_a_repository_answer_by_name(tmp_path: Path, start_server: Callable[..., RunningServer]) -> None:
    add_pipeline(tmp_path)
    add_model(tmp_path, "scaler", SCALER + "version_policy { all {} }", {1: scaler(), 2: scaler(10.0)})
    server = start_server(options=("--model-repository", str(tmp_path)))
    with blindai.connect(server.url, insecure_simulation=True) as client:
        rows = np.array([[1, 2], [3, 4]], dtype=np.float32)
        assert client.infer("scaler", {"x": rows})["y"].tolist() == (10 * rows).tolist()
        assert client.infer("scaler", {"x": rows}, version="1")["y"].tolist() == (2 * rows).tolist()
        result = client.infer("pipeline", {"IN": rows})
        assert result["OUT"].tolist() == (5 * rows).tolist()
        assert result["GAP"].tolist() == (-rows).tolist()
        assert {model.name for model in client.models()} == {"double", "triple", "join", "pipeline", "scaler"}


def test_a_server_whose_repository_is_wrong_does_not_start(tmp_path: Path) -> None:
    add_model(tmp_path, "wrong", SCALER.replace('"x"', '"q"'))
    add_model(tmp_path, "fine", SCALER)
    run = subprocess.run(
        [sys.executable, "-m", "blindai.cli.main", "serve", *SERVE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode != 0
    assert run.stdout == ""
    assert "wrong/1: unexpected inference input 'q'" in run.stderr
    assert "Traceback" not in run.stderr
