"""`blindai check`: what it says of a model that a server would serve, and of one that it would not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from cli.processes import blindai, blindai_ok
from onnx import TensorProto, helper

from blindai import pipeline

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network  # each test starts processes


def written(
    path: Path, *nodes: onnx.NodeProto, element: int = TensorProto.FLOAT, opset: int = 17, domains: tuple[str, ...] = ()
) -> Path:
    """A model of these nodes, from `x` to `y`, each of any number of rows of three."""
    x, y = (helper.make_tensor_value_info(name, element, ["n", 3]) for name in "xy")
    sets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=sets, ir_version=9), path)
    return path


def refused(*arguments: str | Path) -> dict[str, Any]:
    """The JSON of a check that says no."""
    done = blindai("check", *arguments, "--json")
    assert done.code == 1
    found: dict[str, Any] = json.loads(done.out)
    assert found["runs"] is False
    return found


def test_a_model_that_runs_is_described_for_people(tmp_path: Path) -> None:
    done = blindai_ok("check", written(tmp_path / "relu.onnx", helper.make_node("Relu", ["x"], ["y"])))
    assert "✓ a server would serve relu.onnx: sha256:" in done.out
    assert "operator set 17, precision fp32" in done.out
    assert [line.split() for line in done.out.splitlines() if line.startswith(("input", "output"))] == [
        ["input", "x", "FP32", "any×3"],
        ["output", "y", "FP32", "any×3"],
    ]
    assert "one request of one row: " in done.out
    assert done.err == ""


def test_what_will_surprise_is_said(tmp_path: Path) -> None:
    draw, add = helper.make_node("RandomNormalLike", ["x"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])
    done = blindai_ok("check", written(tmp_path / "noise.onnx", draw, add))
    assert "never joined" in done.err
    assert "differ from run to run: RandomNormalLike without a seed" in done.err
    seeded = helper.make_node("RandomNormalLike", ["x"], ["r"], seed=1.0)
    assert "from run to run" not in blindai_ok("check", written(tmp_path / "seeded.onnx", seeded, add)).err


def test_text_needs_a_sample(tmp_path: Path) -> None:
    model = written(tmp_path / "t.onnx", helper.make_node("Identity", ["x"], ["y"]), element=TensorProto.STRING)
    assert "give --sample FILE.npz" in blindai_ok("check", model).err
    np.savez(tmp_path / "sample.npz", x=np.array([["a", "b", "c"]]))
    assert json.loads(blindai_ok("check", model, "--sample", tmp_path / "sample.npz", "--json").out)["run_ms"] > 0


def test_a_pipeline_is_checked_with_its_model(tmp_path: Path) -> None:
    model = written(tmp_path / "heard.onnx", helper.make_node("Relu", ["x"], ["y"]))
    without = json.loads(blindai_ok("check", model, "--json").out)
    pipeline.save(model, input=pipeline.sound("x", rate=8000, samples=3))
    checked = json.loads(blindai_ok("check", model, "--json").out)
    assert checked["digest"] != without["digest"]
    assert [one["name"] for one in checked["face"]["inputs"]] == ["sound"]
    pipeline.save(model, input=pipeline.sound("z", rate=8000, samples=3))
    assert "does not feed the inputs" in json.dumps(refused(model))


def test_a_sample_on_which_the_model_fails_is_a_no(tmp_path: Path) -> None:
    gather = helper.make_node("Reshape", ["x", "s"], ["y"])
    shape = helper.make_node("Constant", [], ["s"], value_ints=[5, 3])
    model = written(tmp_path / "five.onnx", shape, gather)
    np.savez(tmp_path / "two.npz", x=np.zeros((2, 3), np.float32))
    assert "not run on random numbers" in blindai_ok("check", model).err
    done = blindai("check", model, "--sample", tmp_path / "two.npz")
    assert done.code == 1
    assert "✗ it fails on the sample" in done.err


def test_every_operator_that_may_not_run_is_named_with_what_to_do(tmp_path: Path) -> None:
    nodes = (
        helper.make_node("Zap", ["x"], ["a"], domain="my.ops"),
        helper.make_node("Zap", ["a"], ["b"], domain="my.ops"),
        helper.make_node("ATen", ["b"], ["y"], domain="org.pytorch.aten"),
    )
    model = written(tmp_path / "foreign.onnx", *nodes, domains=("my.ops", "org.pytorch.aten"))
    found = refused(model)
    assert [(one["name"], one["times"]) for one in found["operators"]] == [
        ("my.ops:Zap", 2),
        ("org.pytorch.aten:ATen", 1),
    ]
    assert "dynamo=True" in found["operators"][1]["hint"]
    done = blindai("check", model)
    assert done.code == 1
    assert "my.ops:Zap" in done.out
    assert "hint: Export again without custom operators" in done.err


def test_an_old_operator_set_is_told_how_to_become_a_new_one(tmp_path: Path) -> None:
    model = written(tmp_path / "old.onnx", helper.make_node("Relu", ["x"], ["y"]), opset=6)
    assert "blindai optimize --to fp32" in refused(model)["hint"]
    blindai_ok("optimize", model, "--to", "fp32", "--output", tmp_path / "new.onnx")
    blindai_ok("check", tmp_path / "new.onnx")


def test_the_owner_may_read_what_onnx_runtime_says(tmp_path: Path) -> None:
    found = refused(written(tmp_path / "broken.onnx", helper.make_node("Relu", ["nowhere"], ["y"])))
    assert "nowhere" not in found["error"]  # as a server says it
    assert "nowhere" in found["engine_words"]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.onnx").write_text("these are words")
    assert refused(tmp_path / "words.onnx")["error"] == "the file is not an ONNX model"
    spaced = written(tmp_path / "a b.onnx", helper.make_node("Relu", ["x"], ["y"]))
    assert "Rename the file" in refused(spaced)["hint"]
    assert blindai("check", tmp_path / "nowhere.onnx").code == 2
