"""A detector's candidates become boxes on the picture that was sent, as a slow reference of its own makes them."""

from __future__ import annotations

import io
import math
import time
from typing import Any

import numpy as np
import pytest

from blindai import pipeline
from blindai.errors import InternalError
from blindai.pipeline.detections import MAX_CANDIDATES, BoxAnswer
from blindai.pipeline.frames import Frame

LABELS = ("cat", "dog", "door")
PLAIN = Frame(width=640, height=480)
Found = list[tuple[str, float, tuple[float, ...]]]


def answered(rows: np.ndarray, *frames: Frame, **how: Any) -> list[Found]:
    """What the pipeline answers for candidates [rows, candidates, 5 + labels], without what only fills."""
    answer = BoxAnswer(pipeline.boxes(LABELS, **how))
    boxes, labels, scores = (tensor.data for tensor in answer.give({"output0": rows}, frames or [PLAIN] * len(rows)))
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.shape == (*labels.shape, 4) == (*scores.shape, 4)
    for box, label, score in zip(boxes, labels, scores, strict=True):
        assert not box[score == 0].any()
        assert set(label[score == 0]) <= {b""}
    return [
        [
            (label.decode(), float(score), tuple(map(float, box)))
            for label, score, box in zip(*row, strict=True)
            if score
        ]
        for row in zip(labels, scores, boxes, strict=True)
    ]


def corners(candidate: np.ndarray) -> tuple[float, ...]:
    x, y, width, height = map(float, candidate[:4])
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def share(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    common = wide * high if wide > 0 and high > 0 else 0.0
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (both - common)


def reference(candidates: np.ndarray, *, threshold: float, overlap: float, top: int) -> Found:
    """One by one, on the picture that the model sees, 640 × 480."""
    likely = []
    for index, candidate in enumerate(candidates):
        best = max(range(3), key=lambda label: (candidate[5 + label], -label))
        score = float(np.float32(candidate[4]) * np.float32(candidate[5 + best]))
        if score >= np.float32(threshold) and share(corners(candidate), (0, 0, 640, 480)) > 0:
            likely.append((-score, index, best))
    kept: list[tuple[float, int, int]] = []
    for score, index, label in sorted(likely):
        box = corners(candidates[index])
        if all(label != other or share(box, corners(candidates[at])) <= overlap for _, at, other in kept):
            kept.append((score, index, label))
    clipped = [
        tuple(min(max(side, 0.0), limit) for side, limit in zip(corners(candidates[at]), (640, 480) * 2, strict=True))
        for _, at, _ in kept
    ]
    return [(LABELS[label], -score, box) for (score, _, label), box in zip(kept[:top], clipped, strict=False)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("overlap", "top"), [(0.45, 300), (0.0, 300), (1.0, 40), (0.2, 5)])
def test_boxes_are_those_of_the_reference(seed: int, overlap: float, top: int) -> None:
    random = np.random.default_rng(seed)
    middles = random.uniform((0, 0), (640, 480), (8, 2))[random.integers(0, 8, 150)]
    candidates = np.hstack(
        (middles + random.normal(0, 9, (150, 2)), random.uniform(5, 120, (150, 2)), random.uniform(0, 1, (150, 4)))
    ).astype(np.float32)
    (found,) = answered(candidates[np.newaxis], threshold=0.3, overlap=overlap, top=top)
    expected = reference(candidates, threshold=0.3, overlap=overlap, top=top)
    assert [(label, score) for label, score, _ in found] == [(label, score) for label, score, _ in expected]
    assert np.array([box for _, _, box in found]) == pytest.approx(np.array([box for *_, box in expected]), abs=1e-4)


def candidate(x: float, y: float, wide: float = 10, high: float = 10, *, sure: float = 1.0, cat: float = 0.9) -> Any:
    return [x, y, wide, high, sure, cat, 0.1, 0.0]


def test_labels_do_not_push_each_other_out_and_equals_keep_their_order() -> None:
    cat, dog = candidate(50, 50), [50, 50, 10, 10, 1.0, 0.1, 0.8, 0.8]
    (found,) = answered(np.array([[dog, cat, cat]], np.float32))
    assert [label for label, *_ in found] == ["cat", "dog"]


def test_rows_are_filled_up_to_the_one_with_most() -> None:
    nothing = candidate(0, 0, sure=0.0)
    rows = np.array([[candidate(50, 50), candidate(90, 90)], [candidate(50, 50), nothing], [nothing] * 2], np.float32)
    assert [len(row) for row in answered(rows)] == [2, 1, 0]
    assert answered(rows[2:]) == [[]]
    assert answered(np.zeros((1, 0, 8), np.float32)) == [[]]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 3e38])
def test_what_is_no_number_is_no_box(number: float) -> None:
    rows = np.array([[candidate(50, 50)] * 9], np.float32)
    rows[0, np.arange(8), np.arange(8)] = number
    for found in answered(rows):
        assert all(math.isfinite(score) and 0 <= min(box) <= max(box) <= 640 for _, score, box in found)
        assert len(found) == 1 or math.isfinite(number)
        assert (45.0, 45.0, 55.0, 55.0) in [box for *_, box in found]


def test_boxes_beside_the_picture_or_without_size_are_left_out() -> None:
    rows = [candidate(-50, 50), candidate(50, 500), candidate(50, 50, 0, 10), candidate(50, 50, 10, -10)]
    assert answered(np.array([rows], np.float32)) == [[]]
    (found,) = answered(np.array([[candidate(0, 480, 20, 20)]], np.float32))
    assert [box for *_, box in found] == [(0, 470, 10, 480)]


@pytest.mark.parametrize("kind", ["one thing", "apart", "in a chain", "no label alike"])
def test_the_work_is_bounded(kind: str) -> None:
    count = 25_200 if kind == "one thing" else 4 * MAX_CANDIDATES
    rows = np.tile(np.array(candidate(320, 240, 100, 100), np.float32), (1, count, 1))
    rows[0, :, 5] = np.linspace(0.5, 0.9, count)
    if kind == "apart":
        rows[0, :, 0], rows[0, :, 1], rows[0, :, 2:4] = np.arange(count) % 600, np.arange(count) // 600, 0.5
    elif kind == "in a chain":
        rows[0, :, 0] = np.linspace(0, 640, count)
    elif kind == "no label alike":
        rows[0, :, 5:8] = np.random.default_rng(0).uniform(0.3, 1, (count, 3))
    started = time.perf_counter()
    (found,) = answered(rows, overlap=0.9, top=1000)
    assert time.perf_counter() - started < 10
    assert len(found) == {"one thing": 1, "apart": 1000, "no label alike": 3}.get(kind, len(found)) <= 1000


def test_another_number_of_labels_or_pictures_is_the_models_fault() -> None:
    answer = BoxAnswer(pipeline.boxes(LABELS))
    with pytest.raises(InternalError, match="labels"):
        answer.give({"output0": np.zeros((1, 3, 9), np.float32)}, [PLAIN])
    with pytest.raises(InternalError, match="each picture"):
        answer.give({"output0": np.zeros((2, 3, 8), np.float32)}, [PLAIN])


STEPS = (
    (pipeline.Resize(width=64, height=32),),
    (pipeline.ResizeShorter(size=40), pipeline.CentreCrop(width=32, height=32)),
    (pipeline.Letterbox(width=96, height=96),),
    (pipeline.Letterbox(width=31, height=97, border=0), pipeline.Resize(width=64, height=64)),
    (pipeline.Crop(top=0.25, left=0.1), pipeline.CentreSquare(), pipeline.Letterbox(width=64, height=80)),
    (pipeline.CentreCrop(width=200, height=300), pipeline.Crop(bottom=0.1, right=0.3)),
)


@pytest.mark.parametrize("steps", STEPS, ids=range(len(STEPS)))
@pytest.mark.parametrize("size", [(160, 120), (90, 200)])
def test_a_spot_is_found_where_it_is_in_the_picture(steps: tuple[pipeline.Step, ...], size: tuple[int, int]) -> None:
    """Not by arithmetic: a white rectangle goes through Pillow, and its edges are looked for in the tensor."""
    image = pytest.importorskip("PIL.Image")
    from blindai.pipeline.pictures import Pictures

    spot = (size[0] // 2 - 16, size[1] // 2 - 4, size[0] // 2 + 8, size[1] // 2 + 20)
    picture = image.new("RGB", size)
    picture.paste((255, 255, 255), spot)
    out = io.BytesIO()
    picture.save(out, "PNG")
    recipe = pipeline.picture("x", steps=steps, colours="L")
    feeds, frames = Pictures(recipe).framed([out.getvalue()])
    down, across = np.nonzero(feeds["x"][0, 0] > 0.5)
    left, top, right, bottom = across.min(), down.min(), across.max() + 1, down.max() + 1
    middle = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 1, 1, 0, 0]
    ((found,),) = answered(np.array([[middle]], np.float32), *frames)
    pixel = max(frames[0].across, frames[0].down)
    assert found[2] == pytest.approx(spot, abs=pixel)
