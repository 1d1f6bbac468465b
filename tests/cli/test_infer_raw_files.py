"""`blindai infer` takes texts and sound as files, and shows labels as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli.processes import blindai_ok
from pipeline import small_models
from pipeline.test_sounds import GOOD

if TYPE_CHECKING:
    from pathlib import Path

    from cli.processes import Served

pytestmark = pytest.mark.network
SIMULATED = "--insecure-simulation"


def test_a_text_gets_a_table_of_labels_with_bars_if_wished(server: Served, tmp_path: Path) -> None:
    blindai_ok("upload", server.url, small_models.sentiment(tmp_path / "feeling.onnx"), SIMULATED)
    review = tmp_path / "review.txt"
    review.write_text("I love AI and privacy!\n", "utf-8")
    header, first, second = blindai_ok("infer", server.url, "feeling", review, SIMULATED).out.splitlines()
    assert header.split() == ["row", "label", "score"]
    rows = [first.split(), second.split()]
    assert {row[1] for row in rows} == set(small_models.LABELS)
    assert float(rows[0][2]) + float(rows[1][2]) == pytest.approx(1, abs=2e-4)
    plotted = blindai_ok("infer", server.url, "feeling", review, "--plot", SIMULATED).out.splitlines()
    assert plotted[1].split()[3] == "█" * round(40 * float(rows[0][2]))


def test_a_sound_gets_its_text(server: Served, tmp_path: Path) -> None:
    blindai_ok("upload", server.url, small_models.speller(tmp_path / "spelling.onnx"), SIMULATED)
    (tmp_path / "x.wav").write_bytes(GOOD)  # 0, ½, −½, −1: a space, an a, two blanks
    assert blindai_ok("infer", server.url, "spelling", tmp_path / "x.wav", SIMULATED).out == "a\n"
