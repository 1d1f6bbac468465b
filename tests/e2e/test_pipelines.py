"""Text goes in and labels come out, and the receipt vouches for the pipeline as for the model."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pipeline import small_models

import blindai
from blindai import pipeline
from blindai.errors import InvalidInputError, InvalidModelError, TooLargeError
from blindai.pipeline.wordpiece import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.running_server import RunningServer

    from blindai import Client

pytestmark = pytest.mark.network
TEXTS = ("I love AI and privacy!", "", "中文 😀 naïve \0 [SEP] Σ", "a" * 100_000, "no " * 2000)


def sound(*samples: float) -> bytes:
    data = struct.pack(f"<{len(samples)}h", *(int(sample * 32767) for sample in samples))
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data"
    return b"RIFF" + struct.pack("<I", len(head) + 4 + len(data)) + head + struct.pack("<I", len(data)) + data


def test_a_text_gets_labels_and_scores_and_a_receipt(client: Client, tmp_path: Path) -> None:
    uploaded = client.upload_model(small_models.sentiment(tmp_path / "sentiment.onnx"))
    result = client.infer("sentiment", "I love AI and privacy!")
    ids = Tokenizer(pipeline.text(tmp_path / "vocab.txt")).ids("I love AI and privacy!")
    expected = sorted(zip(small_models.probabilities(ids), small_models.LABELS, strict=True), reverse=True)
    assert [label for label, _ in result.labels()[0]] == [label for _, label in expected]
    assert [score for _, score in result.labels()[0]] == pytest.approx([score for score, _ in expected], abs=1e-6)
    assert result.receipt.model is not None
    assert result.receipt.model.digest == uploaded.digest


def test_a_list_of_texts_gets_what_each_gets_alone(client: Client, tmp_path: Path) -> None:
    client.upload_model(small_models.sentiment(tmp_path / "many.onnx"))
    together = client.infer("many", list(TEXTS)).labels()
    for text, row in zip(TEXTS, together, strict=True):
        alone = client.infer("many", text).labels()[0]
        assert [label for label, _ in alone] == [label for label, _ in row]
        assert [score for _, score in alone] == pytest.approx([score for _, score in row], abs=1e-6)


def test_another_pipeline_is_another_model(client: Client, tmp_path: Path) -> None:
    path = small_models.sentiment(tmp_path / "digest.onnx")
    first = client.upload_model(path)
    said = pipeline.text(tmp_path / "vocab.txt", lowercase=False)
    pipeline.save(path, input=said, output=pipeline.labels(small_models.LABELS))
    assert client.upload_model(path).digest != first.digest


@pytest.mark.parametrize(
    "change",
    [
        (b'"version":1', b'"version":2'),
        (b'"clean":true', b'"clean":true,"more":1'),
        (b'"of":"logits"', b'"of":"others"'),
        (b'"ids":"input_ids"', b'"ids":"input_id"'),
        (b'"version":1', b' "version":1'),
    ],
)
def test_a_pipeline_that_is_none_or_of_another_model_is_refused(
    client: Client, tmp_path: Path, change: tuple[bytes, bytes]
) -> None:
    path = small_models.sentiment(tmp_path / "refused.onnx")
    beside = path.with_name("refused.onnx.pipeline.json")
    assert change[0] in beside.read_bytes()
    beside.write_bytes(beside.read_bytes().replace(*change))
    with pytest.raises(InvalidModelError, match="pipeline"):
        client.upload_model(path)


def test_text_that_cannot_be_read_is_refused_and_the_next_one_answered(client: Client, tmp_path: Path) -> None:
    client.upload_model(small_models.sentiment(tmp_path / "strict.onnx"))
    with pytest.raises(InvalidInputError, match="UTF-8"):
        client.infer("strict", b"\xff\xfe")
    with pytest.raises(TooLargeError, match="1048576"):
        client.infer("strict", "a" * (1024 * 1024 + 1))
    with pytest.raises(InvalidInputError, match="no element"):
        client.infer("strict", np.empty(0, object))
    assert client.infer("strict", "still here").labels()


def test_a_wave_file_gets_its_text(client: Client, tmp_path: Path) -> None:
    client.upload_model(small_models.speller(tmp_path / "speech.onnx"))
    file = tmp_path / "hello.wav"
    file.write_bytes(sound(0.25, 0.25, -0.75, 0.25, 0.75, -0.25, -0.25, 0.75, -0.25))
    with file.open("rb") as opened:
        for given in (file, str(file), file.read_bytes(), opened):
            assert client.infer("speech", given).texts() == ["aab b"]
    for broken in (b"", b"RIFF", sound(), sound(0.5)[:-1], b"\xff" * 1000, sound(0.1).replace(b"fmt ", b"FMT ")):
        with pytest.raises(InvalidInputError, match="WAV"):
            client.infer("speech", broken)
    assert client.infer("speech", file).texts() == ["aab b"]


def test_the_server_may_run_pipelines_in_its_own_process(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('isolation = "thread"\n', "utf-8")
    server = start_server(options=("--config", str(settings)))
    with blindai.connect(server.url, insecure_simulation=True) as client:
        client.upload_model(small_models.sentiment(tmp_path / "thread.onnx"))
        assert len(client.infer("thread", list(TEXTS)).labels()) == len(TEXTS)
