"""Models on a server: upload, list, describe, address, replace, delete; and what is refused without a trace."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from e2e import tiny_models
from onnx import TensorProto

import blindai
from blindai.client.exchange_flow import SealedRequest
from blindai.client.raw_flow import send_raw
from blindai.errors import InvalidInputError, InvalidModelError, ModelDigestMismatchError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.running_server import RunningServer

    from blindai import Client

pytestmark = pytest.mark.network


@pytest.fixture
def owner(empty_server: RunningServer) -> Iterator[Client]:
    """A client whose server holds nothing else."""
    with blindai.connect(empty_server.url, insecure_simulation=True) as connected:
        yield connected


def times(folder: Path, factor: float, name: str = "m") -> Path:
    """A model y = factor · x in a file of its own folder, so that several share a name."""
    home = folder / str(factor)
    home.mkdir(exist_ok=True)
    return tiny_models.times(home / f"{name}.onnx", factor)


def test_names_versions_and_digests_address_models(owner: Client, tmp_path: Path) -> None:
    assert owner.models() == ()
    first = owner.upload_model(times(tmp_path, 2))
    second = owner.upload_model(times(tmp_path, 3))
    named = owner.upload_model(times(tmp_path, 5), version="spring-2")
    other = owner.upload_model(times(tmp_path, 7), name="other")
    assert [(model.name, model.version) for model in owner.models()] == [
        ("m", "1"), ("m", "2"), ("m", "spring-2"), ("other", "1"),
    ]  # fmt: skip
    assert [model.digest for model in owner.models()] == [m.digest for m in (first, second, named, other)]
    assert owner.models()[0].size_bytes == times(tmp_path, 2).stat().st_size

    def factor(model: str | None, version: str | None = None) -> float:
        return float(owner.infer(model, [1, 1, 1], version=version)["y"][0, 0])

    assert factor("m") == 5  # the version uploaded last
    assert [factor("m", version) for version in ("1", "2", "spring-2")] == [2, 3, 5]
    assert [factor(f"m@{model.digest}") for model in (first, second, named)] == [2, 3, 5]
    assert factor(None) == factor("@last") == factor("other") == 7
    with pytest.raises(ModelNotFoundError):
        factor("m", "4")
    with pytest.raises(ModelNotFoundError):
        factor(f"other@{first.digest}")

    assert owner.delete_model("m", version="2") == 1
    assert owner.metadata("m", version="1").versions == ("1", "spring-2")
    assert owner.delete_model("m") == 2
    with pytest.raises(ModelNotFoundError, match="Request for unknown model"):
        factor("m")
    with pytest.raises(ModelNotFoundError):
        owner.delete_model("m")
    assert [model.name for model in owner.models()] == ["other"]


def test_the_last_model_is_the_one_that_any_client_uploaded_last(
    owner: Client, empty_server: RunningServer, tmp_path: Path
) -> None:
    owner.upload_model(times(tmp_path, 2), name="mine")
    assert owner.infer(None, [1, 1, 1])["y"][0, 0] == 2
    with blindai.connect(empty_server.url, insecure_simulation=True) as stranger:
        stranger.upload_model(times(tmp_path, 3), name="theirs")
        assert owner.infer(None, [1, 1, 1])["y"][0, 0] == 3
        stranger.upload_model(times(tmp_path, 2), name="mine")  # the same again counts as the last, too
        assert owner.infer(None, [1, 1, 1])["y"][0, 0] == 2
        stranger.delete_model("mine")
        assert owner.metadata().name == "theirs"


def test_the_same_model_again_is_the_same_version(client: Client, tmp_path: Path) -> None:
    first = client.upload_model(times(tmp_path, 2, "again"))
    second = client.upload_model(times(tmp_path, 2, "again"))
    assert (first.version, first.digest) == (second.version, second.digest) == ("1", first.digest)


def test_a_version_never_becomes_another_model(client: Client, tmp_path: Path) -> None:
    client.upload_model(times(tmp_path, 2, "fixed"), version="1")
    with pytest.raises(ModelDigestMismatchError, match="another model") as refused:
        client.upload_model(times(tmp_path, 3, "fixed"), version="1")
    assert "without a version" in refused.value.hint
    assert client.infer("fixed", [1, 1, 1], version="1")["y"][0, 0] == 2


def test_a_model_replaced_between_two_inferences_is_noticed_silently(
    client: Client, server_url: str, tmp_path: Path
) -> None:
    home = tmp_path / "new"
    home.mkdir()
    client.upload_model(tiny_models.times(tmp_path / "swapped.onnx", 2))
    assert client.infer("swapped", [1, 2, 3])["y"].tolist() == [[2, 4, 6]]
    with blindai.connect(server_url, insecure_simulation=True) as other:
        replaced = other.upload_model(tiny_models.identity(home / "swapped.onnx", TensorProto.INT64, ["n"]))
    result = client.infer("swapped", [1, 2, 3])  # other datatype, other rank
    assert result.outputs[0].as_flat() == [1, 2, 3]
    assert result["y"].dtype == np.int64
    assert result.receipt.model is not None
    assert result.receipt.model.digest == replaced.digest


def test_the_same_files_under_another_version_are_the_same_model(
    client: Client, server_url: str, tmp_path: Path
) -> None:
    path = times(tmp_path, 2, "renumbered")
    digest = client.upload_model(path).digest
    assert client.infer("renumbered", [1, 1, 1]).model_version == "1"
    with blindai.connect(server_url, insecure_simulation=True) as other:
        other.upload_model(path, version="spring")
    for _ in range(2):
        receipt = client.infer("renumbered", [1, 1, 1]).receipt
        assert receipt.model is not None
        assert (receipt.model.version, receipt.model.digest) == ("spring", digest)


def test_metadata_says_what_a_model_takes_and_gives(client: Client, tmp_path: Path) -> None:
    uploaded = client.upload_model(tiny_models.sum_and_difference(tmp_path / "described.onnx"))
    described = client.metadata("described")
    assert [(spec.name, str(spec.datatype), spec.shape) for spec in described.inputs] == [
        ("a", "FP32", (-1, 2)), ("b", "FP32", (-1, 2)),
    ]  # fmt: skip
    assert [spec.name for spec in described.outputs] == ["y", "z"]
    assert (described.platform, described.digest) == ("onnxruntime_onnx", uploaded.digest)
    assert described.default_shape is None


@pytest.mark.parametrize("suffix", [".data", "_data"])
def test_external_data_beside_the_model_is_found(client: Client, tmp_path: Path, suffix: str) -> None:
    name = "outer" + suffix.replace(".", "-")
    path = tiny_models.dense(tmp_path / f"{name}.onnx", external=f"{name}.onnx{suffix}")
    data = np.random.default_rng(3).standard_normal((2, 64)).astype(np.float32)
    client.upload_model(path)
    assert next(model for model in client.models() if model.name == name).size_bytes == tiny_models.size(path)
    assert client.infer(name, data)["y"].tobytes() == tiny_models.in_process(path, {"x": data})[0].tobytes()


def test_external_data_of_any_flat_name_may_be_named(client: Client, tmp_path: Path) -> None:
    path = tiny_models.dense(tmp_path / "named.onnx", external="weights.bin")
    client.upload_model(path, data_files=[tmp_path / "weights.bin"])
    assert client.infer("named", np.zeros((1, 64)))["y"].shape == (1, 4)


def test_progress_rises_to_the_size_of_all_files(client: Client, tmp_path: Path) -> None:
    path = tiny_models.dense(tmp_path / "big.onnx", external="big.onnx.data", size=250_000)
    seen: list[tuple[int, int]] = []
    client.upload_model(path, progress=lambda done, total: seen.append((done, total)), load=False)
    total = tiny_models.size(path)
    done = [step for step, _ in seen]
    assert len(done) >= 4
    assert done == sorted(set(done))
    assert done[-1] == total
    assert {step for _, step in seen} == {total}


def test_a_digest_names_the_uploaded_bytes(client: Client, tmp_path: Path) -> None:
    from blindai.bundle import BundleFile, ModelManifest, digest_text

    path = times(tmp_path, 11, "hashed")
    content = path.read_bytes()
    file = BundleFile(path=path.name, size=len(content), sha256=hashlib.sha256(content).digest())
    assert client.upload_model(path).digest == digest_text(ModelManifest(files=(file,)).digest)


def test_files_that_are_not_there(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        client.upload_model(tmp_path / "nowhere.onnx")
    with pytest.raises(FileNotFoundError, match=r"weights\.bin"):
        client.upload_model(times(tmp_path, 2), data_files=[tmp_path / "weights.bin"])


def test_names_that_no_model_can_have_are_refused_here(client: Client, tmp_path: Path) -> None:
    path = times(tmp_path, 2)
    for name in ("", "a/b", "../m", "é", "m" * 129, "@last"):
        with pytest.raises(InvalidInputError, match="cannot be a model's name"):
            client.upload_model(path, name=name)
    for name in ("", "a/b", "é", "two words", "m@sha256:00", "m@md5:00"):
        for call in (client.metadata, client.delete_model):
            with pytest.raises(InvalidInputError, match="cannot be a model's name"):
                call(name)
    for version in ("", "a/b", "é"):
        with pytest.raises(InvalidInputError, match="version"):
            client.upload_model(path, version=version)
        with pytest.raises(InvalidInputError, match="version"):
            client.infer("m", [1], version=version)


def _garbage(folder: Path) -> Path:
    path = folder / "bad.onnx"
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    return path


def _empty(folder: Path) -> Path:
    path = folder / "bad.onnx"
    path.touch()
    return path


def _without_its_data(folder: Path) -> Path:
    path = tiny_models.dense(folder / "bad.onnx", external="weights.bin")
    (folder / "weights.bin").unlink()
    return path


def _data_outside(folder: Path) -> Path:
    path = tiny_models.dense(folder / "bad.onnx", external="bad.onnx.data")
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../../../etc/passwd"
    path.write_bytes(model.SerializeToString())
    return path


def _data_too_short(folder: Path) -> Path:
    path = tiny_models.dense(folder / "bad.onnx", external="bad.onnx.data")
    data = folder / "bad.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    return path


def test_what_cannot_run_is_refused_and_leaves_nothing_behind(owner: Client, tmp_path: Path) -> None:
    good = owner.upload_model(times(tmp_path, 2), name="bad")
    for number, make in enumerate((_garbage, _empty, _without_its_data, _data_outside, _data_too_short)):
        home = tmp_path / f"home-{number}"
        home.mkdir()
        with pytest.raises(InvalidModelError):
            owner.upload_model(make(home))
        assert [(model.name, model.version, model.digest) for model in owner.models()] == [("bad", "1", good.digest)]
    assert owner.infer("bad", [1, 1, 1])["y"][0, 0] == 2
    assert owner.infer(None, [1, 1, 1])["y"][0, 0] == 2


def test_a_shape_that_the_model_does_not_take_is_refused_and_changes_nothing(owner: Client, tmp_path: Path) -> None:
    path = tiny_models.times(tmp_path / "m.onnx", 2, shape=["n", "m"])
    owner.upload_model(path, shape=[1, 3])
    owner.upload_model(times(tmp_path, 5), name="later")
    with pytest.raises(InvalidInputError, match=r"\[-1, -1\].*shape given at upload"):
        owner.upload_model(path, shape=[3])
    assert owner.metadata("m").default_shape == (1, 3)
    assert owner.infer("m", [1, 2, 3])["y"].tolist() == [[2, 4, 6]]
    assert owner.metadata().name == "later"
    with pytest.raises(InvalidInputError, match=r"\[-1, 3\]"):
        owner.upload_model(times(tmp_path, 7), name="never", shape=[1, 4])
    assert [model.name for model in owner.models()] == ["m", "later"]


def test_loading_may_wait_for_the_first_inference(client: Client, tmp_path: Path) -> None:
    client.upload_model(times(tmp_path, 2, "lazy"), load=False)
    assert client.infer("lazy", [1, 2, 3])["y"].tolist() == [[2, 4, 6]]
    client.upload_model(_garbage(tmp_path), name="lazy-bad", load=False)
    with pytest.raises(InvalidModelError):
        client.infer("lazy-bad", [1])
    assert client.delete_model("lazy-bad") == 1


def test_a_load_gives_a_stored_model_labels_and_batches(owner: Client, tmp_path: Path) -> None:
    owner.upload_model(times(tmp_path, 2))
    output = {"name": "y", "data_type": "TYPE_FP32", "dims": [3], "label_filename": "classes.txt"}
    declared = {
        "max_batch_size": 2,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [3]}],
        "output": [output],
    }
    owner.load_model("m", config=declared, files={"classes.txt": b"red\ngreen\nblue\n"})
    wished = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 3, 2]}],
        "outputs": [{"name": "y", "parameters": {"classification": 1}}],
    }
    body = json.dumps(wished).encode()
    request = SealedRequest(
        method="POST", path="/v2/models/m/infer", content_type="application/json", body=lambda: (body,)
    )
    answer = owner._run(send_raw(owner._connection, request))  # the SDK's own `infer` asks for no classes
    assert json.loads(answer.body)["outputs"][0]["data"] == ["6.000000:1:green"]
    with pytest.raises(InvalidInputError, match="batch-size must be <= 2"):
        owner.infer("m", np.ones((3, 3), dtype=np.float32))
    with pytest.raises(InvalidInputError, match="did not come along"):
        owner.load_model("m", config=declared)
    owner.load_model("m", config={})
    assert owner.infer("m", np.ones((3, 3), dtype=np.float32))["y"].shape == (3, 3)
    with pytest.raises(ModelNotFoundError):
        owner.load_model("other")
