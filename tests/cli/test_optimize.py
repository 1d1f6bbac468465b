"""`blindai optimize`: what it writes runs, is another model, and is compared truthfully with the original."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from cli.processes import blindai, blindai_ok
from onnx import TensorProto, helper, numpy_helper
from pipeline import small_models

from blindai.bundle import BundleFile, ModelManifest, digest_text
from blindai.bundle_files import discover_bundle
from blindai.oip.tensors import tensor_for
from blindai.server.engine import Engine
from blindai.server.piped_engine import PipedEngine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network  # each test starts processes


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier trained on scikit-learn's breast-cancer data, and patients.npz beside it."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_breast_cancer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data, labels = load_breast_cancer(return_X_y=True)
    classifier = make_pipeline(StandardScaler(), MLPClassifier((128, 64), max_iter=60, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier.fit(data[:400], labels[:400])
        model = to_onnx(classifier, data[:1].astype(np.float32), options={"zipmap": False}, target_opset=18)
    folder = tmp_path_factory.mktemp("mlp")
    onnx.save(model, folder / "mlp.onnx")
    np.savez(folder / "patients.npz", X=data[400:].astype(np.float32))
    return folder / "mlp.onnx"


def attention(path: Path, *, external: bool = False) -> Path:
    """Tokens to two scores: an embedding, one head of attention, a dense layer."""
    random = np.random.default_rng(3)
    weights = {
        "table": random.normal(size=(50, 32)),
        "query": random.normal(size=(32, 32)) / 6,
        "key": random.normal(size=(32, 32)) / 6,
        "value": random.normal(size=(32, 32)) / 6,
        "dense": random.normal(size=(32, 2)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["e"]),
        *(helper.make_node("MatMul", ["e", name], [name[0]]) for name in ("query", "key", "value")),
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["a"]),
        helper.make_node("Softmax", ["a"], ["w"]),
        helper.make_node("MatMul", ["w", "v"], ["o"]),
        helper.make_node("ReduceMean", ["o", "axis"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "dense"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", "len"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])],
        [
            *(numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options: dict[str, Any] = {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": 64}
    onnx.save(model, path, **(options if external else {}))
    return path


def report(*arguments: str | Path) -> Any:
    return json.loads(blindai_ok("optimize", *arguments, "--json").out)


def digest(path: Path, *more: Path) -> str:
    import hashlib

    files = sorted((*discover_bundle(path, None), *more), key=lambda file: file.name)
    entries = ((file.name, file.read_bytes()) for file in files)
    return digest_text(
        ModelManifest(
            files=tuple(
                BundleFile(path=name, size=len(data), sha256=hashlib.sha256(data).digest()) for name, data in entries
            )
        ).digest
    )


def loaded(path: Path) -> Engine:
    engine = Engine()
    engine.load({file.name: file.read_bytes() for file in discover_bundle(path, None)})
    return engine


@pytest.mark.parametrize(("to", "precision"), [("int8", "int8-dynamic"), ("bf16", "bf16"), ("fp16", "fp16")])
def test_a_variant_of_a_trained_model_agrees_with_it(mlp: Path, tmp_path: Path, to: str, precision: str) -> None:
    out = tmp_path / "small.onnx"
    told = report(mlp, "--to", to, "--sample", mlp.with_name("patients.npz"), "-o", out)
    assert told["variant"]["digest"] == digest(out) != told["original"]["digest"] == digest(mlp)
    assert told["variant"]["size_bytes"] == out.stat().st_size < told["original"]["size_bytes"]
    assert (told["original"]["precision"], told["variant"]["precision"]) == ("fp32", precision)
    labels, scores = told["differences"]
    assert labels["agreement"] >= 0.97
    assert scores["agreement"] >= 0.97
    assert 0 < scores["mean"] <= scores["largest"] < 0.5
    assert told["random_sample"] is False


def test_the_numbers_are_those_of_the_two_models(mlp: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    told = report(mlp, "--sample", mlp.with_name("patients.npz"), "-o", out)
    with np.load(mlp.with_name("patients.npz")) as sample:
        patients = sample["X"]
    answers = []
    for path in (mlp, out):
        engine = loaded(path)
        answers.append([tensor.data for tensor in engine.run((tensor_for(patients, engine.inputs[0]),), ())])
    (labels, scores), (other_labels, other_scores) = answers
    apart = np.abs(scores.astype(np.float64) - other_scores)
    assert told["differences"][0]["agreement"] == pytest.approx(np.mean(labels == other_labels))
    assert told["differences"][1]["largest"] == pytest.approx(apart.max())
    assert told["differences"][1]["mean"] == pytest.approx(apart.mean())


def test_dynamic_int8_is_never_joined_and_the_owner_is_told(mlp: Path, tmp_path: Path) -> None:
    ended = blindai_ok("optimize", mlp, "-o", tmp_path / "small.onnx")
    assert "the server never joins requests to it" in ended.err
    assert "random numbers" in ended.err
    lines = [line.split() for line in ended.out.splitlines()]
    assert [line[4] for line in lines[1:3]] == ["yes", "no"]
    assert "times as small" in ended.out
    told = report(mlp, "--to", "bf16", "-o", tmp_path / "small.onnx")
    assert told["variant"]["joinable"] is True


@pytest.mark.parametrize("to", ["int8", "bf16"])
def test_external_data_goes_in_and_comes_out(tmp_path: Path, to: str) -> None:
    model = attention(tmp_path / "tokens.onnx", external=True)
    told = report(model, "--to", to)
    out = tmp_path / f"tokens.{to}.onnx"
    assert (tmp_path / f"tokens.{to}.onnx.data").stat().st_size > out.stat().st_size
    assert told["variant"]["digest"] == digest(out)
    assert told["differences"][0]["agreement"] >= 0.75
    again = report(model, "--to", to)  # written over, not appended to
    assert again["variant"]["digest"] == told["variant"]["digest"]


def test_an_old_operator_set_is_upgraded(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)], ir_version=3)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 8]))
    onnx.save(model, tmp_path / "old.onnx")
    ended = blindai_ok("optimize", tmp_path / "old.onnx", "--to", "fp32", "-o", tmp_path / "new.onnx")
    assert "upgraded from operator set 6 to 13" in ended.err
    assert "compared with the upgraded model" in ended.err
    assert onnx.load(tmp_path / "new.onnx").opset_import[0].version == 13
    loaded(tmp_path / "new.onnx")


def test_a_forest_has_nothing_to_quantise(tmp_path: Path) -> None:
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    data = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    forest = RandomForestClassifier(3, random_state=0).fit(data, np.arange(40) % 2)
    onnx.save(to_onnx(forest, data[:1], options={"zipmap": False}, target_opset=18), tmp_path / "forest.onnx")
    for to in ("int8", "bf16"):
        ended = blindai("optimize", tmp_path / "forest.onnx", "--to", to)
        assert ended.code == 1
        assert ended.err.startswith("error: the model ")
    assert list(tmp_path.iterdir()) == [tmp_path / "forest.onnx"]


def test_what_cannot_be_is_said(mlp: Path, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    np.savez(tmp_path / "other.npz", y=np.zeros((2, 30), np.float32))
    np.save(tmp_path / "one.npy", np.zeros((2, 30), np.float32))
    out = tmp_path / "out.onnx"
    assert blindai("optimize", tmp_path / "no.onnx").code == 1
    assert blindai("optimize", tmp_path / "missing.onnx").code == 2
    assert blindai("optimize", mlp, "-o", mlp).code == 2
    assert blindai("optimize", mlp, "-o", tmp_path / "out.bin").code == 2
    ended = blindai("optimize", mlp, "-o", out, "--sample", tmp_path / "other.npz")
    assert (ended.code, "the model takes the inputs ['X']" in ended.err) == (1, True)
    assert not out.exists()
    assert "numpy.savez" in blindai("optimize", mlp, "-o", out, "--sample", tmp_path / "one.npy").err


def test_a_pipeline_goes_along_and_the_variant_answers_raw_text(tmp_path: Path) -> None:
    model = small_models.sentiment(tmp_path / "feeling.onnx")
    told = report(model, "--to", "bf16")
    out = tmp_path / "feeling.bf16.onnx"
    beside = out.with_name("feeling.bf16.onnx.pipeline.json")
    assert beside.read_bytes() == model.with_name("feeling.onnx.pipeline.json").read_bytes()
    assert told["variant"]["digest"] == digest(out, beside) != digest(out)
    assert told["original"]["digest"] == digest(model, model.with_name("feeling.onnx.pipeline.json"))
    engine = PipedEngine()
    engine.load({file.name: file.read_bytes() for file in (out, beside)})
    (labels, scores) = engine.run((tensor_for("love", engine.inputs[0]),), ())
    assert set(labels.data[0]) == {b"negative", b"positive"}
    assert scores.data.sum() == pytest.approx(1)
    model.with_name("feeling.onnx.pipeline.json").write_bytes(b"{}")
    ended = blindai("optimize", model, "--to", "bf16")
    assert (ended.code, "pipeline" in ended.err) == (1, True)
    model.with_name("feeling.onnx.pipeline.json").unlink()
    report(model, "--to", "bf16")
    assert not beside.exists()  # nothing of an older variant stays
