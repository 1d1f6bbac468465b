"""A pipeline's file is read strictly: one form, nothing unknown, nothing impossible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from pipeline import small_models

from blindai import pipeline
from blindai.errors import InvalidModelError
from blindai.pipeline.declaration import MAX_BYTES, Declaration, encode, parse

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = pipeline.picture("x", steps=[pipeline.Resize(width=8, height=8), pipeline.Crop(top=0.08)])
LABELS = pipeline.labels(["a", "b"])
BOXES = pipeline.boxes(["a", "b"])
TRANSCRIPT = pipeline.transcript(small_models.SOUND_TOKENS)
WHOLE = encode(Declaration(version=1, input=PICTURE, output=LABELS))


def described(**changes: Any) -> Declaration:
    return Declaration(**{"version": 1, "input": PICTURE, "output": LABELS, **changes})


@pytest.mark.parametrize("output", [None, LABELS, TRANSCRIPT])
@pytest.mark.parametrize("kind", ["text", "picture", "sound"])
def test_what_is_written_is_read(tmp_path: Path, kind: str, output: Any) -> None:
    inputs = {
        "text": pipeline.text(small_models.vocabulary(tmp_path)),
        "picture": PICTURE,
        "sound": pipeline.sound("x", rate=16000, samples=8),
    }
    whole = described(input=inputs[kind], output=output)
    assert parse(encode(whole)) == whole


def test_boxes_are_read_as_written_and_only_on_pictures() -> None:
    whole = described(output=BOXES)
    assert parse(encode(whole)) == whole
    assert b'"output":{"kind":"boxes","of":"output0","form":"yolov5","labels":["a","b"],' in encode(whole)
    with pytest.raises(InvalidModelError, match="only on a picture"):
        encode(described(input=pipeline.sound("x", rate=16000), output=BOXES))


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.0}, {"threshold": 1.01}, {"threshold": math.nan}, {"overlap": -0.1}, {"overlap": 1.1},
        {"top": 0}, {"top": 1001}, {"labels": ()}, {"form": "yolov8"}, {"of": ""},
    ],
    ids=str,
)  # fmt: skip
def test_boxes_that_are_not_possible_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidModelError, match="pipeline"):
        encode(described(output=msgspec.structs.replace(BOXES, **change)))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"null", WHOLE + b" ", WHOLE[:-1], WHOLE.replace(b'"version":1', b'"version":2'),
        WHOLE.replace(b'"version":1', b'"version":1,"version":1'), WHOLE.replace(b'"RGB"', b'"CMYK"'),
        WHOLE.replace(b'"scale":', b'"skale":'), WHOLE.replace(b'"width":8', b'"width":0'),
        WHOLE.replace(b'"width":8', b'"width":16385'), WHOLE.replace(b'"top":0.08', b'"top":1.0'),
        WHOLE.replace(b'"top":0.08', b'"top":-0.1'), WHOLE.replace(b'"step":"crop"', b'"step":"blur"'),
        b"[" * 100_000, b"\xff", b" " * (MAX_BYTES + 1),
    ],
    ids=range(17),
)  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidModelError, match="pipeline"):
        parse(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"output": msgspec.structs.replace(LABELS, top=3)},
        {"output": msgspec.structs.replace(TRANSCRIPT, blank="?")},
        {"output": msgspec.structs.replace(TRANSCRIPT, vocabulary=("<pad>", "|", "a", "a"))},
        {"input": msgspec.structs.replace(PICTURE, mean=(0.0, 0.0))},
        {"input": msgspec.structs.replace(PICTURE, deviation=(0.0,))},
        {"input": msgspec.structs.replace(PICTURE, colours="L", mean=(0.0, 0.0, 0.0))},
        {"input": msgspec.structs.replace(PICTURE, steps=(pipeline.Crop(top=0.5, bottom=0.5),))},
        {"input": msgspec.structs.replace(PICTURE, steps=())},
    ],
    ids=range(8),
)
def test_the_impossible_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidModelError, match="pipeline"):
        encode(described(**changes))


@pytest.mark.parametrize("change", [{"first": "[BOS]"}, {"specials": ("[X]",)}, {"vocabulary": ("a", "a")}])
def test_tokens_stand_in_the_vocabulary_once(tmp_path: Path, change: dict[str, Any]) -> None:
    text = pipeline.text(small_models.vocabulary(tmp_path))
    with pytest.raises(InvalidModelError, match="vocabulary"):
        encode(described(input=msgspec.structs.replace(text, **change)))


def test_only_bert_is_taken_for_text(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": {"type": "BPE"}, "normalizer": null}', "utf-8")
    with pytest.raises(InvalidModelError, match="BERT"):
        pipeline.text(path)
    with pytest.raises(InvalidModelError, match="fast"):
        pipeline.text(object())
    with pytest.raises(InvalidModelError, match="input_ids"):
        pipeline.text(small_models.vocabulary(tmp_path), inputs=["ids"])


def test_names_of_labels_come_from_a_models_configuration() -> None:
    assert pipeline.labels({1: "b", 0: "a"}).labels == ("a", "b")
    assert pipeline.labels(list("abcdefgh")).top == 5
    assert pipeline.transcript({"b": 1, "<pad>": 0, "|": 2}).vocabulary == ("<pad>", "b", "|")
    with pytest.raises(InvalidModelError, match="gaps"):
        pipeline.transcript({"b": 1})
