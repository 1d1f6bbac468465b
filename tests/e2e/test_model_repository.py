"""`blindai serve --model-repository`: a real server, and the SDK against the models that it came with."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conformance.server_under_test import ServerUnderTest
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
        assert client.metadata("scaler").versions == ("1", "2")
        assert client.metadata("pipeline").platform == "ensemble"
        assert result.receipt.model is not None
        assert (result.receipt.model.name, result.receipt.model.precision) == ("pipeline", "fp32")
        assert result.receipt.model.digest in client.attestation.keyset.runtime.models
    tell = ServerUnderTest(server.url)
    steps = tell.ask("GET", "/v2/models/pipeline/config").json["ensemble_scheduling"]["step"]
    assert [(step["model_name"], step["model_version"]) for step in steps] == [
        ("join", 1),
        ("double", 1),
        ("triple", 1),
    ]
    (counted,) = tell.ask("GET", "/v2/models/pipeline/stats").json["model_stats"]
    assert (counted["inference_count"], counted["execution_count"]) == (2, 1)
    (counted,) = tell.ask("GET", "/v2/models/join/stats").json["model_stats"]
    assert counted["inference_count"] == 2


def test_nobody_replaces_or_deletes_a_model_that_came_with_the_server(
    tmp_path: Path, start_server: Callable[..., RunningServer]
) -> None:
    folder = add_model(tmp_path, "scaler", SCALER)
    server = start_server(options=("--model-repository", str(tmp_path)))
    with blindai.connect(server.url, insecure_simulation=True) as client:
        with pytest.raises(blindai.errors.ForbiddenError, match="came with the server"):
            client.upload_model(folder / "1" / "model.onnx", name="scaler")
        with pytest.raises(blindai.errors.ForbiddenError, match="came with the server"):
            client.delete_model("scaler")
        assert client.upload_model(folder / "1" / "model.onnx", name="mine").version == "1"
        client.delete_model("mine")
        assert client.infer("scaler", {"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[2, 2]]


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
