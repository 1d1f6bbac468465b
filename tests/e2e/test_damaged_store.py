"""A stored byte that was changed, and two files exchanged, cost the models that they belong to: the rest is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e import tiny_models
from e2e.running_server import RunningServer

import blindai
from blindai.errors import BlindAIError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network

NAMES = ("flipped", "left", "right", "whole")


def test_each_damage_is_named_and_the_rest_is_served(tmp_path: Path) -> None:
    options = ("--model-store", str(tmp_path / "kept"))
    server = RunningServer(tmp_path / "first.log", options=options)
    files: dict[str, Path] = {}
    seen: set[Path] = set()
    with blindai.connect(server.url, insecure_simulation=True) as client:
        for number, name in enumerate(NAMES):
            client.upload_model(tiny_models.times(tmp_path / f"{name}.onnx", number + 2), name=name)
            (files[name],) = set((tmp_path / "kept/files").iterdir()) - seen
            seen.add(files[name])
    server.kill()
    data = bytearray(files["flipped"].read_bytes())
    data[7] ^= 1
    files["flipped"].write_bytes(data)
    left, right = files["left"].read_bytes(), files["right"].read_bytes()
    files["left"].write_bytes(right)
    files["right"].write_bytes(left)
    server = RunningServer(tmp_path / "second.log", options=options)
    try:
        with blindai.connect(server.url, insecure_simulation=True) as client:
            for name in NAMES[:3]:
                with pytest.raises(BlindAIError, match=rf"'{name}' version '1'.*changed, cut or exchanged"):
                    client.infer(name, [1, 2, 3])
            assert client.infer("whole", [1, 2, 3])["y"].tolist() == [[5, 10, 15]]
    finally:
        server.stop()
