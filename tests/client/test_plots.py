"""Boxes and scores as pictures, pixel by pixel; whatever labels and numbers a model answers."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from blindai.client import plots
from blindai.client.results import InferResult
from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype
from blindai.oip.tensors import Tensor

if TYPE_CHECKING:
    from pathlib import Path

image = pytest.importorskip("PIL.Image")  # the extra `pictures`

KINDS = {"boxes": Datatype.FP32, "labels": Datatype.BYTES, "scores": Datatype.FP32, "text": Datatype.BYTES}
RED, BLUE, GREY = (0xD6, 0x27, 0x28), (0x1F, 0x77, 0xB4), (90, 90, 90)


def result(**outputs: Any) -> InferResult:
    arrays = {
        name: np.array(value, object if KINDS[name] is Datatype.BYTES else np.float32)
        for name, value in outputs.items()
    }
    tensors = (Tensor(name=name, datatype=KINDS[name], shape=a.shape, data=a) for name, a in arrays.items())
    exchange = cast("Any", None)  # nothing of it is drawn
    return InferResult(model_name="m", model_version="1", outputs=tuple(tensors), request_body=b"", exchange=exchange)


def file(size: tuple[int, int], kind: str = "PNG", **how: object) -> bytes:
    out = io.BytesIO()
    image.new("RGB", size, GREY).save(out, kind, **how)
    return out.getvalue()


def drawn(data: bytes) -> np.ndarray:
    assert data.startswith(b"\x89PNG")
    return np.asarray(image.open(io.BytesIO(data)))


TWO = {
    "boxes": [[[10, 60, 90, 140], [150, 100, 200, 150]]],
    "labels": [[b"cat", b"dog"]],
    "scores": [[0.9, 0.5]],
}


def test_boxes_have_their_edges_where_they_are_and_a_colour_for_each_label(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(file((200, 150)))
    for given in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        pixels = drawn(plots.png(result(**TWO), given))
        assert pixels.shape == (150, 200, 3)
        for x, y, colour in ((10, 60, RED), (89, 139, RED), (10, 139, RED), (150, 100, BLUE), (199, 149, BLUE)):
            assert tuple(pixels[y, x]) == colour
        for x, y in ((9, 100), (90, 100), (50, 100), (50, 140), (149, 120), (170, 120)):
            assert tuple(pixels[y, x]) == GREY


def test_a_picture_is_turned_as_its_camera_was() -> None:
    exif = image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    pixels = drawn(plots.png(result(**TWO), file((150, 200), exif=exif)))
    assert pixels.shape == (150, 200, 3)
    assert tuple(pixels[60, 10]) == RED


def test_a_row_without_boxes_is_the_picture() -> None:
    nothing = result(boxes=np.zeros((1, 1, 4)), labels=[[b""]], scores=[[0]])
    assert (drawn(plots.png(nothing, file((8, 8)))) == GREY).all()


def bars(pixels: np.ndarray, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Where the bar of each line begins, and how long it is."""
    found = []
    for middle in range(10 + 14, len(pixels) - 10, 28):
        (at,) = np.nonzero((pixels[middle] == colour).all(axis=1))
        found.append((int(at[0]), at.size) if at.size else (0, 0))
    return found


def test_a_bar_is_as_long_as_its_score() -> None:
    pixels = drawn(plots.png(result(labels=[[b"a", b"b", b"c"]], scores=[[0.75, 0.25, 0]])))
    assert [length for _, length in bars(pixels, BLUE)] == pytest.approx([240, 80, 0], abs=2)


def test_scores_that_are_no_shares_have_bars_to_both_sides() -> None:
    pixels = drawn(plots.png(result(labels=[[b"a", b"b", b"c"]], scores=[[6, -2, math.nan]])))
    (start, length), _, nothing = bars(pixels, BLUE)
    assert [start, length] == pytest.approx([210 + 80, 240], abs=2)
    assert bars(pixels, RED)[1] == pytest.approx((210, 80), abs=2)
    assert nothing == (0, 0)


@pytest.mark.parametrize("scores", [[0, 0], [math.inf, -math.inf], [-1, -2], [3e38, -3e38], [math.nan, 1e-45]])
@pytest.mark.parametrize("label", [b"", b"\0\n\x1b[31m", b"w" * 5000, "中文 😀".encode(), b"\xff"])
def test_any_label_and_any_number_are_drawn(scores: list[float], label: bytes) -> None:
    assert drawn(plots.png(result(labels=[[label, label]], scores=[scores]))).shape == (76, 640, 3)
    boxes = result(boxes=[[[0, 0, 9, 9], [3, 3, 3, 3]]], labels=[[label, label]], scores=[scores])
    assert drawn(plots.png(boxes, file((9, 9)))).shape == (9, 9, 3)


def test_the_row_can_be_chosen_and_of_many_labels_the_first_fifty_are_drawn() -> None:
    several = result(labels=[[b"a"] * 60] * 2, scores=[[0.0] * 60, [1.0] * 60])
    pixels = drawn(plots.png(several, row=1))
    assert [length for _, length in bars(pixels, BLUE)] == pytest.approx([320] * 50, abs=2)
    with pytest.raises(IndexError):
        plots.png(several, row=2)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nothing to plot: the model answers text"):
        plots.png(result(text=[b"hello"]))
    with pytest.raises(InvalidInputError, match="nothing to plot: the model answers scores"):
        plots.png(result(scores=[[1.0]]))
    with pytest.raises(InvalidInputError, match="picture that was sent"):
        plots.png(result(**TWO))
    with pytest.raises(InvalidInputError, match="JPEG or PNG"):
        plots.png(result(**TWO), b"GIF89a")
    with pytest.raises(FileNotFoundError):
        plots.png(result(**TWO), tmp_path / "gone.png")
