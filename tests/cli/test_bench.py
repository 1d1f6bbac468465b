"""`blindai bench`: it measures in real processes, joins only what may be joined, and names settings that exist."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli.processes import blindai, blindai_ok
from e2e.tiny_models import times
from onnx import TensorProto, helper, save

from blindai.cli.bench import config_pbtxt
from blindai.cli.bench_plot import svg_bars, text_bar
from blindai.server.cpu_quota import available_cpus
from blindai.server.tuning import Measured, Setting, best_of, grid

if TYPE_CHECKING:
    from pathlib import Path

starts_processes = pytest.mark.network
QUICK = ("--seconds", "2", "--window", "0.05")


def measured(rate: float, p50_ms: float, *, rows: int = 1, instances: int = 1) -> Measured:
    setting = Setting(threads=1, instances=instances, joined_rows=rows)
    return Measured(setting=setting, rate=rate, p50_ms=p50_ms, p99_ms=p50_ms, rows_per_run=rows)


@starts_processes
def test_every_setting_is_measured_with_real_answers(tmp_path: Path) -> None:
    model = times(tmp_path / "doubling.onnx", 2.0)
    plot = tmp_path / "plot.svg"
    found = json.loads(blindai_ok("bench", model, *QUICK, "--plot", plot, "--json").out)
    assert found["rows"]["independent"] is True
    assert found["random_sample"] is True
    assert found["measured"][0]["setting"] == {"threads": 1, "instances": 1, "joined_rows": 1}
    assert found["best"] in found["measured"]
    for one in found["measured"]:
        assert one["rate"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert 1 <= one["rows_per_run"] <= one["setting"]["joined_rows"]
        assert one["setting"]["threads"] * one["setting"]["instances"] <= available_cpus()
    assert plot.read_text().count("<rect") == 1 + len(found["measured"])


@starts_processes
def test_requests_are_really_joined_when_many_are_in_the_air(tmp_path: Path) -> None:
    model = times(tmp_path / "doubling.onnx", 2.0)
    found = json.loads(blindai_ok("bench", model, "--seconds", "20", "--window", "0.05", "--json").out)
    joined = max(one["rows_per_run"] for one in found["measured"] if one["setting"]["joined_rows"] > 1)
    assert joined > 1.5


@starts_processes
def test_a_model_that_mixes_rows_is_never_joined_and_says_why(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"], axis=0)], "g", [x], [y])
    model = tmp_path / "mixing.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model)
    done = blindai("bench", model, *QUICK)
    assert done.code == 0
    assert "never joined" in done.err
    assert "dynamic_batching" not in done.out
    assert "← best" in done.out


@starts_processes
def test_a_sample_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = times(tmp_path / "doubling.onnx", 2.0)
    np.savez(tmp_path / "sample.npz", other=np.zeros((1, 3), np.float32))
    done = blindai("bench", model, "--sample", str(tmp_path / "sample.npz"), "--json")
    assert done.code != 0
    assert "takes the inputs" in json.loads(done.out)["error"]


def test_the_best_is_the_quickest_of_those_that_answer_nearly_as_many() -> None:
    slow, quick, few = measured(1000, 9), measured(960, 2), measured(500, 0.1)
    assert best_of([few, slow, quick]) is quick


def test_the_grid_never_asks_for_more_threads_than_there_are_cpus() -> None:
    assert list(grid(1)) == [(1, 1)]
    assert list(grid(2)) == [(1, 1), (2, 1), (1, 2)]
    assert (6, 1) in list(grid(6))
    assert all(threads * instances <= 6 for threads, instances in grid(6))


def test_a_config_names_no_batching_for_single_rows() -> None:
    assert config_pbtxt(Setting(threads=2, instances=1, joined_rows=1)).splitlines() == [
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        'parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
    ]
    assert config_pbtxt(Setting(threads=1, instances=2, joined_rows=8)).startswith("max_batch_size: 8\n")


def test_a_bar_is_as_long_as_its_share() -> None:
    assert text_bar(10, 10, width=4) == "████"
    assert text_bar(5, 10, width=4) == "██"
    assert text_bar(1, 16, width=2) == "▏"
    assert text_bar(0, 0, width=4) == ""


def test_a_name_cannot_leave_its_place_in_the_drawing() -> None:
    drawn = svg_bars("<script>", [("a & b", 1.0, "1")], marked=0)
    assert "<script>" not in drawn
    assert "a &amp; b" in drawn
