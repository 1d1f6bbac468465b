"""`blindai infer` takes texts and sound as files, and shows labels as a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli.processes import blindai, blindai_ok
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
    plotted = blindai_ok("infer", server.url, "feeling", review, "--bars", SIMULATED).out.splitlines()
    assert plotted[1].split()[3] == "█" * round(40 * float(rows[0][2]))


def test_a_sound_gets_its_text(server: Served, tmp_path: Path) -> None:
    blindai_ok("upload", server.url, small_models.speller(tmp_path / "spelling.onnx"), SIMULATED)
    (tmp_path / "x.wav").write_bytes(GOOD)  # 0, ½, −½, −1: a space, an a, two blanks
    assert blindai_ok("infer", server.url, "spelling", tmp_path / "x.wav", SIMULATED).out == "a\n"


def test_a_chart_of_scores_or_boxes_on_the_picture_are_written(server: Served, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    blindai_ok("upload", server.url, small_models.sentiment(tmp_path / "charted.onnx"), SIMULATED)
    (tmp_path / "x.txt").write_text("love", "utf-8")
    told = blindai_ok(
        "infer", server.url, "charted", tmp_path / "x.txt", "--plot", tmp_path / "chart.png", "--json", SIMULATED
    )
    assert json.loads(told.out)["model_name"] == "charted"
    with image.open(tmp_path / "chart.png") as chart:
        assert chart.size == (640, 76)
    things = np.array([[32, 32, 16, 8, 0.9, 0.1, 0.8, 0.2]])
    blindai_ok("upload", server.url, small_models.detector(tmp_path / "boxed.onnx", things), SIMULATED)
    image.new("RGB", (128, 64), (10, 20, 30)).save(tmp_path / "x.png")
    told = blindai_ok("infer", server.url, "boxed", tmp_path / "x.png", "--plot", tmp_path / "boxes.png", SIMULATED)
    header, row = (line.split() for line in told.out.splitlines())
    assert header == ["row", "label", "score", "left", "top", "right", "bottom"]
    assert row == ["0", "dog", "0.7200", "48.0", "24.0", "80.0", "40.0"]
    with image.open(tmp_path / "boxes.png") as drawn:
        assert drawn.size == (128, 64)
        assert drawn.getpixel((48, 39)) == drawn.getpixel((79, 24)) == (0xD6, 0x27, 0x28)
        assert drawn.getpixel((75, 35)) == (10, 20, 30)


def test_what_cannot_be_plotted_is_said(server: Served, tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    blindai_ok("upload", server.url, small_models.speller(tmp_path / "unplotted.onnx"), SIMULATED)
    (tmp_path / "x.wav").write_bytes(GOOD)
    ended = blindai("infer", server.url, "unplotted", tmp_path / "x.wav", "--plot", tmp_path / "x.png", SIMULATED)
    assert (ended.code, ended.out) == (1, "a\n")
    assert "nothing to plot: the model answers text" in ended.err
    ended = blindai("infer", server.url, "unplotted", tmp_path / "x.wav", "--plot", tmp_path / "x.svg", SIMULATED)
    assert (ended.code, "does not end in .png" in ended.err) == (2, True)
    assert not list(tmp_path.glob("x.[ps][nv]g"))
