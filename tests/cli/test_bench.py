"""`blindai bench`: it measures in real processes, joins only what may be joined, and names settings that exist."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cli.processes import SIMULATED, Served, blindai, blindai_ok
from e2e.tiny_models import times
from onnx import TensorProto, helper, save

from blindai.cli.bench import config_pbtxt
from blindai.cli.bench_plot import svg_bars, text_bar
from blindai.cli.bench_server import LoadLevel, LoadWish, climb
from blindai.errors import OverloadedError
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


AT_SERVER = (SIMULATED, "--seconds", "5", "--window", "0.05", "--in-flight", "6")


@starts_processes
def test_a_running_server_is_measured_through_the_attested_channel(
    server: Served, doubling: str, tmp_path: Path
) -> None:
    plot = tmp_path / "plot.svg"
    done = blindai_ok("bench", doubling, "--server", server.url, *AT_SERVER, "--plot", plot, "--json")
    found = json.loads(done.out)
    assert (found["model"], found["level"], found["complete"], found["refusal"]) == (doubling, "simulated", True, "")
    assert found["digest"].startswith("sha256:")
    assert found["random_sample"] is True
    assert [one["in_flight"] for one in found["measured"]] == [1, 2, 4, 6]
    for one in found["measured"]:
        assert one["rate"] > 0
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["client_cpu_ms"] > 0
    assert "SIMULATION, NOT SECURE" in done.err
    assert plot.read_text().count("<rect") == 1 + 4


@starts_processes
def test_shapes_and_samples_are_what_is_sent(server: Served, doubling: str, tmp_path: Path) -> None:
    table = blindai_ok("bench", doubling, "--server", server.url, *AT_SERVER, "--shape", "x=4,3")
    assert table.out.splitlines()[0].split("  ")[0] == "in flight"
    assert "over the simulated channel" in table.out
    np.savez(tmp_path / "sample.npz", x=np.zeros((2, 3), np.float32))
    sample = ("--sample", tmp_path / "sample.npz")
    found = json.loads(blindai_ok("bench", doubling, "--server", server.url, *AT_SERVER, *sample, "--json").out)
    assert (found["model"], found["random_sample"]) == (doubling, False)
    for wrong, words in (("x=4,4", "shape"), ("y=4,3", "no input of the model"), ("x", "INPUT=SIZE")):
        refused = blindai("bench", doubling, "--server", server.url, *AT_SERVER, "--shape", wrong)
        assert refused.code != 0
        assert words in refused.err


@starts_processes
def test_the_servers_own_refusals_stand(server: Served) -> None:
    refused = blindai("bench", "nobodys", "--server", server.url, *AT_SERVER, "--json")
    assert json.loads(refused.out)["code"] == "model_not_found"
    unproven = blindai("bench", "nobodys", "--server", server.url, "--json")
    assert "SIMULATION" not in unproven.err
    assert "finding" in json.loads(unproven.out)


def test_options_about_a_server_need_one(tmp_path: Path) -> None:
    model = times(tmp_path / "doubling.onnx", 2.0)
    for options in (("--shape", "x=1,3"), ("--in-flight", "2"), (SIMULATED,), ("--api-key", "k")):
        refused = blindai("bench", model, *options)
        assert refused.code == 2
        assert "--server" in refused.err


async def test_a_server_that_takes_no_more_ends_the_climb() -> None:
    running, reported = 0, list[LoadLevel]()

    async def ask() -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(0.001)
            if running > 2:
                raise OverloadedError("at most 2 inferences of a tenant run at a time")
        finally:
            running -= 1

    wish = LoadWish(model="m", sample=None, shapes={}, most_in_flight=8, budget_s=5, window_s=0.01)
    levels, refusal = await climb(ask, wish, reported.append)
    assert [level.in_flight for level in levels] == [level.in_flight for level in reported] == [1, 2]
    assert "at most 2" in refusal
    assert running == 0


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
