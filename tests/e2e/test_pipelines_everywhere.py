"""A model with a pipeline answers the same through every door: gRPC, classic API, Triton repository, ensemble."""

from __future__ import annotations

import contextlib
import io
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from cli.processes import COMMAND, run
from conformance.server_under_test import ServerUnderTest
from e2e.test_classic import connect
from e2e.test_model_repository import SERVE
from pipeline import small_models
from pipeline.test_sounds import wave
from server.grpc_client import GrpcServer, Rpcs, infer_request, outcome, request_of
from server.triton_models import add_model, scaler

import blindai
from blindai.client import connect as connect_as_in_0_5
from blindai.errors import InvalidInputError, InvalidReceiptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.running_server import RunningServer

    from blindai import Client

image = pytest.importorskip("PIL.Image")  # the extra `pictures`
pytestmark = pytest.mark.network
TEXTS = ["love", "ai and privacy", ""]
SUFFIX = ".pipeline.json"
THINGS = np.array([[32, 32, 16, 8, 0.9, 0.1, 0.8, 0.2], [8, 28, 40, 8, 0.9, 1.0, 0.1, 0.2]])


def bundle(path: Path, folder: str) -> dict[str, bytes]:
    """A model and its pipeline as the files of a version, called as Triton calls a model."""
    return {
        f"{folder}/model.onnx": path.read_bytes(),
        f"{folder}/model.onnx{SUFFIX}": path.with_name(path.name + SUFFIX).read_bytes(),
    }


def picture(size: tuple[int, int] = (128, 64)) -> bytes:
    out = io.BytesIO()
    image.new("RGB", size, (255, 51, 0)).save(out, "PNG")
    return out.getvalue()


def bytes_of(raw: bytes) -> list[bytes]:
    """Elements of BYTES as gRPC has them: each u32 length and content."""
    found = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return found


# ---- gRPC


@contextlib.contextmanager
def rpcs(server: RunningServer, folder: Path) -> Iterator[Rpcs]:
    door = GrpcServer(url=server.url, address=server.address("grpc"), log=folder / "x", process=None)  # type: ignore[arg-type]
    with door.channel() as channel:
        yield Rpcs(channel)


def element(name: str, *values: bytes) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(values)], "contents": {"bytes_contents": values}}


def test_grpc_takes_text_and_answers_labels(empty_server: RunningServer, tmp_path: Path) -> None:
    with blindai.connect(empty_server.url, insecure_simulation=True) as client, rpcs(empty_server, tmp_path) as calls:
        client.upload_model(small_models.sentiment(tmp_path / "feeling.onnx"))
        expected = client.infer("feeling", TEXTS)
        answer = calls.infer(element("text", *(text.encode() for text in TEXTS)), model="feeling")
        assert [(output.name, output.datatype, list(output.shape)) for output in answer.outputs] == [
            ("labels", "BYTES", [3, 2]),
            ("scores", "FP32", [3, 2]),
        ]
        assert bytes_of(answer.raw_output_contents[0]) == expected["labels"].ravel().tolist()
        assert np.frombuffer(answer.raw_output_contents[1], "<f4").tolist() == expected["scores"].ravel().tolist()
        raw = infer_request({"name": "text", "datatype": "BYTES", "shape": [1]}, model="feeling")
        raw.raw_input_contents.append(struct.pack("<I", 4) + b"love")
        raw.outputs.add(name="scores")
        (scores,) = calls.call("ModelInfer", raw).raw_output_contents
        assert np.frombuffer(scores, "<f4").tolist() == expected["scores"][0].tolist()
        told = calls.call("ModelMetadata", request_of("ModelMetadata", name="feeling"))
        assert [(one.name, one.datatype, list(one.shape)) for one in told.inputs] == [("text", "BYTES", [-1])]
        assert outcome(lambda: calls.infer(element("text", b"\xff"), model="feeling")) == "INVALID_ARGUMENT"
        with pytest.raises(grpc.RpcError, match="unexpected inference input"):
            calls.infer(element("input_ids", b"x"), model="feeling")


def test_grpc_takes_a_picture_and_answers_boxes(empty_server: RunningServer, tmp_path: Path) -> None:
    file = picture()
    with blindai.connect(empty_server.url, insecure_simulation=True) as client, rpcs(empty_server, tmp_path) as calls:
        client.upload_model(small_models.detector(tmp_path / "detect.onnx", THINGS))
        expected = client.infer("detect", file)
        answer = calls.infer(element("picture", file), model="detect")
        assert [list(output.shape) for output in answer.outputs] == [[1, 2, 4], [1, 2], [1, 2]]
        assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == expected["boxes"].ravel().tolist()
        assert bytes_of(answer.raw_output_contents[1]) == [b"cat", b"dog"]
        assert outcome(lambda: calls.infer(element("picture", file[:40]), model="detect")) == "INVALID_ARGUMENT"


# ---- The classic API


def test_a_classic_script_runs_raw_text_sound_and_pictures(server_url: str, tmp_path: Path) -> None:
    sound = tmp_path / "hello.wav"
    sound.write_bytes(wave(struct.pack("<3h", 9000, 9000, 30000)))
    with connect(server_url) as classic:
        classic.upload_model(small_models.sentiment(tmp_path / "classic-text.onnx"))
        response = classic.run_model("I love privacy!")
        assert set(response.output) == {b"negative", b"positive"}
        response.validate("I love privacy!", allow_simulation_mode=True)
        with pytest.raises(InvalidReceiptError, match="other data"):
            response.validate("I love piracy!", allow_simulation_mode=True)
        assert len(classic.run_model(TEXTS).output) == 2 * len(TEXTS)
        classic.upload_model(small_models.speller(tmp_path / "classic-sound.onnx"))
        for given in (sound, str(sound), sound.read_bytes()):
            response = classic.run_model(given, model_id="classic-sound")
            assert response.output == [b"ab"]
            response.validate(given, allow_simulation_mode=True)
        saved = tmp_path / "saved.json"
        response.save_to_file(saved)
        again = type(response)()
        again.load_from_file(saved)
        assert again.output == [b"ab"]
        with pytest.raises(InvalidInputError, match="shape"):  # of tensors, which the pipeline makes by itself
            classic.upload_model(tmp_path / "classic-sound.onnx", shape=(1, 16), model_name="classic-shaped")
        with pytest.raises(InvalidInputError, match="'sound' is BYTES, dtype says FP32"):
            classic.upload_model(tmp_path / "classic-sound.onnx", shape=(1,), model_name="classic-shaped")
        classic.upload_model(small_models.detector(tmp_path / "classic-picture.onnx", THINGS))
        assert len(classic.run_model(picture()).output) == 2 * 4


def test_a_script_of_0_5_gets_every_output(server_url: str, tmp_path: Path) -> None:
    host, port = server_url.removeprefix("https://").split(":")
    with connect_as_in_0_5(addr=host, simulation=True, attested_port=int(port)) as connection:
        uploaded = connection.upload_model(small_models.detector(tmp_path / "new-classic.onnx", THINGS))
        boxes, labels, scores = connection.predict(uploaded.model_id, picture()).output
        assert boxes.as_numpy().tolist() == [[[0, 16, 56, 32], [48, 24, 80, 40]]]
        assert labels.as_flat() == [b"cat", b"dog"]
        assert scores.as_flat() == pytest.approx([0.9, 0.72])


# ---- Triton's repository, over the disk and over the network

FEELING = """
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "text", data_type: TYPE_STRING, dims: [ 1 ], reshape { shape: [ ] } } ]
output [
  { name: "labels", data_type: TYPE_STRING, dims: [ 2 ] }, { name: "scores", data_type: TYPE_FP32, dims: [ 2 ] }
]
model_warmup [ {
  name: "w", batch_size: 2
  inputs { key: "text" value { data_type: TYPE_STRING, dims: [ 1 ], zero_data: true } }
} ]
"""
DETECTOR = """
max_batch_size: 4
input [ { name: "picture", data_type: TYPE_STRING, dims: [ 1 ], reshape { shape: [ ] } } ]
output [
  { name: "boxes", data_type: TYPE_FP32, dims: [ -1, 4 ] }, { name: "labels", data_type: TYPE_STRING, dims: [ -1 ] },
  { name: "scores", data_type: TYPE_FP32, dims: [ -1 ] }
]
"""


def test_a_repository_serves_pipelines_with_and_without_a_configuration(
    tmp_path: Path, start_server: Callable[..., RunningServer]
) -> None:
    text, things = small_models.sentiment(tmp_path / "t.onnx"), small_models.detector(tmp_path / "d.onnx", THINGS)
    repository = tmp_path / "models"
    add_model(repository, "plain", None, {}, files=bundle(text, "1"))
    add_model(repository, "feeling", FEELING, {}, files=bundle(text, "1"))
    add_model(repository, "folder", None, {}, files=bundle(text, "1/model.onnx"))
    add_model(repository, "detect", DETECTOR, {}, files=bundle(things, "3"))
    server = start_server(options=("--model-repository", str(repository)))
    with blindai.connect(server.url, insecure_simulation=True) as client:
        expected = client.infer("plain", TEXTS).labels()
        assert client.infer("folder", TEXTS).labels() == expected
        declared = client.infer("feeling", np.array([[text.encode()] for text in TEXTS], object))
        assert declared.labels() == expected
        assert declared["scores"].shape == (3, 2)
        with pytest.raises(InvalidInputError, match="batch-size must be <= 8"):
            client.infer("feeling", np.array([[b"x"]] * 9, object))
        (row,) = client.infer("detect", np.array([[picture()]], object)).boxes()
        assert [box.label for box in row] == ["cat", "dog"]
        assert row[1].left == 48
        uploaded = client.upload_model(text, name="digest")
        digests = {model.name: model.digest for model in client.models()}
        assert digests["plain"] == digests["folder"] == digests["feeling"] != uploaded.digest  # another file name


def test_what_does_not_belong_together_is_refused_at_the_start(tmp_path: Path) -> None:
    files = bundle(small_models.sentiment(tmp_path / "t.onnx"), "1")
    repository = tmp_path / "models"
    add_model(repository, "wrong", FEELING.replace('"text"', '"input_ids"').split("model_warmup")[0], {}, files=files)
    files["1/t.onnx.pipeline.json"] = files.pop("1/model.onnx.pipeline.json")
    add_model(repository, "renamed", None, {}, files=files)
    ended = run([*COMMAND, "serve", *SERVE, str(repository)])
    assert ended.code != 0
    assert "wrong/1: unexpected inference input 'input_ids'" in ended.err
    assert "renamed/1: the pipeline t.onnx.pipeline.json is not the model's (Call it model.onnx.pipeline.json.)" in (
        ended.err
    )


JOINED = """
dynamic_batching { max_queue_delay_microseconds: 300000 }
parameters { key: "blindai_batching" value { string_value: "on" } }
"""


def test_requests_are_not_joined_even_if_the_owner_wants_it(
    tmp_path: Path, start_server: Callable[..., RunningServer]
) -> None:
    files = bundle(small_models.sentiment(tmp_path / "t.onnx"), "1")
    add_model(tmp_path / "models", "feeling", FEELING + JOINED, {}, files=files)
    server = start_server(options=("--model-repository", str(tmp_path / "models")))
    with blindai.connect(server.url, insecure_simulation=True) as client, ThreadPoolExecutor(6) as pool:
        given = [np.array([[text.encode()]], object) for text in (*TEXTS, *TEXTS)]
        answers = list(pool.map(lambda one: client.infer("feeling", one).labels(), given))
        assert answers[:3] == answers[3:]
    (counted,) = ServerUnderTest(server.url).ask("GET", "/v2/models/feeling/stats").json["model_stats"]
    assert (counted["inference_count"], counted["execution_count"]) == (6, 6)


def test_a_pipeline_comes_with_a_load_over_the_network(client: Client, tmp_path: Path) -> None:
    path = small_models.sentiment(tmp_path / "t.onnx")
    client.load_model("loaded", config={}, files=bundle(path, "1"))
    client.upload_model(path, name="sent")
    assert client.infer("loaded", TEXTS).labels() == client.infer("sent", TEXTS).labels()


# ---- Ensembles

SPOKEN = """
platform: "ensemble"
input [ { name: "RECORDING", data_type: TYPE_STRING, dims: [ -1 ] } ]
output [
  { name: "WORDS", data_type: TYPE_STRING, dims: [ -1 ] },
  { name: "FEELING", data_type: TYPE_STRING, dims: [ -1, 2 ] },
  { name: "TWICE", data_type: TYPE_FP32, dims: [ -1, 2 ] }
]
ensemble_scheduling { step [
  { model_name: "hear", model_version: -1,
    input_map { key: "sound", value: "RECORDING" }, output_map { key: "text", value: "WORDS" } },
  { model_name: "feel", model_version: -1,
    input_map { key: "text", value: "WORDS" },
    output_map { key: "labels", value: "FEELING" }, output_map { key: "scores", value: "shares" } },
  { model_name: "double", model_version: -1,
    input_map { key: "x", value: "shares" }, output_map { key: "y", value: "TWICE" } }
] }
"""


def test_an_ensemble_hears_then_reads(tmp_path: Path, start_server: Callable[..., RunningServer]) -> None:
    """Sound to text, text to labels: two pipelines, and a model of tensors behind them."""
    repository = tmp_path / "models"
    add_model(repository, "hear", None, {}, files=bundle(small_models.speller(tmp_path / "s.onnx"), "1"))
    add_model(repository, "feel", None, {}, files=bundle(small_models.sentiment(tmp_path / "t.onnx"), "1"))
    add_model(repository, "double", None, {1: scaler(2.0)})
    add_model(repository, "spoken", SPOKEN, {})
    (repository / "spoken" / "1").mkdir()
    server = start_server(options=("--model-repository", str(repository)))
    sounds = [wave(struct.pack("<3h", *samples)) for samples in ((9000, -9000, 30000), (30000, 30000, -30000))]
    with blindai.connect(server.url, insecure_simulation=True) as client:
        result = client.infer("spoken", sounds)
        assert result["WORDS"].tolist() == [b"a b", b"b"]
        read = client.infer("feel", ["a b", "b"])
        assert result["FEELING"].tolist() == read["labels"].tolist()
        assert result["TWICE"] == pytest.approx(2 * read["scores"])
        with pytest.raises(InvalidInputError, match="WAV"):
            client.infer("spoken", [b"RIFF"])
        assert client.infer("spoken", sounds, outputs=("WORDS",))["WORDS"].tolist() == [b"a b", b"b"]
