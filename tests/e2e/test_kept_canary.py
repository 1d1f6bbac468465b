"""Weights, names and inputs are nowhere in a kept store's folder and log; one that seals nothing shows all three."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli.test_canary import Canary
from e2e.running_server import COMMAND, RunningServer

import blindai
from blindai.cli.operator_view import Secrets

pytestmark = pytest.mark.network

UNSEALED = (sys.executable, str(Path(__file__).with_name("unsealed_server.py")), "serve", "--simulation")


def found_after_use(tmp_path: Path, command: tuple[str, ...] = COMMAND) -> dict[str, tuple[int, int]]:
    """What is found in the store's folder and in the log, of how many pieces, after a model was used and kept."""
    canary, folder = Canary.hatch(), tmp_path / "kept"
    model = canary.model(tmp_path / "model.onnx")
    options = ("--model-store", str(folder), "--log-level", "debug")
    server = RunningServer(tmp_path / "server.log", options=options, command=command)
    try:
        with blindai.connect(server.url, insecure_simulation=True) as client:
            client.upload_model(model, name=canary.name, version=canary.version)
            client.infer(canary.name, {"x": canary.numbers, "text": [canary.text]})
    finally:
        server.kill()
    log = (tmp_path / "server.log").read_bytes()
    assert list((folder / "files").iterdir())
    assert log
    found: dict[str, tuple[int, int]] = {}
    for kind, values in {
        "names": (canary.name.encode(), canary.version.encode()),
        "weights": (canary.weights, canary.label),
        "inputs": (canary.numbers.tobytes(), canary.text),
    }.items():
        wanted = Secrets.of(values)
        count = sum(piece in log or Secrets(pieces=(piece,)).found_under(folder) > 0 for piece in wanted.pieces)
        found[kind] = (count, len(wanted.pieces))
    hidden = canary.secrets()
    found["all, in any disguise"] = (hidden.found_in(log) + hidden.found_under(folder), len(hidden.pieces))
    return found


def test_a_kept_store_and_its_log_show_nothing(tmp_path: Path) -> None:
    found = found_after_use(tmp_path)
    print(found)
    assert [count for count, _ in found.values()] == [0, 0, 0, 0]


def test_the_same_search_finds_all_three_where_nothing_is_sealed(tmp_path: Path) -> None:
    found = found_after_use(tmp_path, UNSEALED)
    print(found)
    for kind in ("names", "weights", "inputs"):
        count, pieces = found[kind]
        assert count == pieces
