"""Uploaded models outlive a server that keeps them, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e import tiny_models
from e2e.running_server import RunningServer

import blindai

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network


def test_a_killed_server_has_its_models_again(tmp_path: Path) -> None:
    options = ("--model-store", str(tmp_path / "kept"))
    model = tiny_models.times(tmp_path / "canary.onnx", 3)
    first = RunningServer(tmp_path / "first.log", options=options)
    with blindai.connect(first.url, insecure_simulation=True) as client:
        assert client.attestation.keyset.runtime.sealing == "insecure-key-file"
        uploaded = client.upload_model(model, name="canary-name")
    first.kill()
    second = RunningServer(tmp_path / "second.log", options=options)
    try:
        with blindai.connect(second.url, insecure_simulation=True) as client:
            assert [(one.name, one.digest) for one in client.models()] == [("canary-name", uploaded.digest)]
            assert client.infer("canary-name", [1, 2, 3])["y"].tolist() == [[3, 6, 9]]
            client.delete_model("canary-name")
    finally:
        second.stop()
    stored = b"".join(path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file())
    assert b"canary" not in stored
    assert not list((tmp_path / "kept" / "files").iterdir())
