"""Scores and labels, and the text of a speech model."""

from __future__ import annotations

import numpy as np
import pytest
from pipeline.small_models import SOUND_TOKENS

from blindai import pipeline
from blindai.errors import InternalError
from blindai.pipeline.answers import LabelAnswer, TextAnswer


@pytest.mark.parametrize(
    ("activation", "scores"),
    [("softmax", [0.6652, 0.2447, 0.09]), ("sigmoid", [0.7311, 0.5, 0.2689]), ("none", [1, 0, -1])],
)
def test_the_likeliest_come_first(activation: str, scores: list[float]) -> None:
    answer = LabelAnswer(pipeline.labels(["a", "b", "c"], activation=activation))  # type: ignore[arg-type]
    labels, found = answer.give({"logits": np.array([[0, 1, -1]], np.float32)})
    assert labels.data.tolist() == [[b"b", b"a", b"c"]]
    assert found.data[0] == pytest.approx(scores, abs=1e-4)


def test_of_equals_the_first_and_of_huge_numbers_a_probability() -> None:
    answer = LabelAnswer(pipeline.labels(["a", "b", "c"], top=2))
    labels, scores = answer.give({"logits": np.array([[1e30, 1e30, -1e30], [0, 0, 0]], np.float32)})
    assert labels.data.tolist() == [[b"a", b"b"]] * 2
    assert scores.data[0].tolist() == [0.5, 0.5]
    sigmoid = LabelAnswer(pipeline.labels(["a"], activation="sigmoid"))
    assert sigmoid.give({"logits": np.array([[-1e30]], np.float32)})[1].data.tolist() == [[0]]


def test_another_number_of_labels_or_tokens_is_the_models_fault() -> None:
    with pytest.raises(InternalError, match="labels"):
        LabelAnswer(pipeline.labels(["a", "b"])).give({"logits": np.zeros((1, 3), np.float32)})
    with pytest.raises(InternalError, match="tokens"):
        TextAnswer(pipeline.transcript(SOUND_TOKENS)).give({"logits": np.zeros((1, 1, 3), np.float32)})


@pytest.mark.parametrize(
    ("steps", "text"),
    [([], ""), ([0, 0], ""), ([2, 2, 0, 2, 3], "aab"), ([1, 2, 1, 1, 3, 1], "a b"), ([2, 1, 0, 1, 2], "a  a")],
)
def test_repeats_are_joined_and_blanks_left_out(steps: list[int], text: str) -> None:
    logits = np.eye(4, dtype=np.float32)[steps].reshape(1, -1, 4)
    (answer,) = TextAnswer(pipeline.transcript(SOUND_TOKENS)).give({"logits": logits})
    assert answer.data.tolist() == [text.encode()]
