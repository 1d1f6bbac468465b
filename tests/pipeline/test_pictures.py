"""What a recipe does to a picture, pixel for pixel."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from blindai import pipeline
from blindai.errors import TooLargeError

image = pytest.importorskip("PIL.Image")  # the extra `pictures`

from blindai.pipeline.pictures import Pictures  # noqa: E402  # needs the extra

ALL = pipeline.Crop()


def png(pixels: np.ndarray, **how: Any) -> bytes:
    out = io.BytesIO()
    image.fromarray(pixels).save(out, "PNG", **how)
    return out.getvalue()


def tensor(file: bytes, *steps: pipeline.Step, **how: Any) -> np.ndarray:
    recipe = pipeline.picture("x", steps=steps or (ALL,), **{"layout": "NHWC", "scale": 1.0, **how})
    (array,) = Pictures(recipe).prepare([file]).values()
    return np.asarray(array)


PIXELS = np.arange(10 * 6 * 3, dtype=np.uint8).reshape(10, 6, 3)


def test_pixels_arrive_in_each_order_and_layout() -> None:
    assert (tensor(png(PIXELS))[0] == PIXELS).all()
    assert (tensor(png(PIXELS), colours="BGR")[0] == PIXELS[:, :, ::-1]).all()
    assert (tensor(png(PIXELS), layout="NCHW")[0] == PIXELS.transpose(2, 0, 1)).all()
    scaled = tensor(png(PIXELS), scale=1 / 255, mean=(0.1, 0.2, 0.3), deviation=(2.0,))[0]
    assert scaled == pytest.approx((PIXELS / 255 - (0.1, 0.2, 0.3)) / 2, abs=1e-6)


def test_grey_is_one_channel_and_sixteen_bits_keep_their_upper_half() -> None:
    grey = np.array([[0, 255], [256, 65535]], np.uint16)
    assert tensor(png(grey), colours="L")[0, :, :, 0].tolist() == [[0, 0], [1, 255]]


def test_covid_net_cuts_the_top_off_and_takes_the_middle() -> None:
    out = tensor(png(PIXELS), pipeline.Crop(top=0.08 * 2), pipeline.CentreSquare())
    assert (out[0] == PIXELS[2:8, :, :]).all()


def test_a_crop_larger_than_the_picture_is_black_around() -> None:
    out = tensor(png(PIXELS + 1), pipeline.CentreCrop(width=8, height=10))[0]
    assert (out[:, 1:7] == PIXELS + 1).all()
    assert not out[:, [0, 7]].any()


@pytest.mark.parametrize(
    ("step", "shape"),
    [
        (pipeline.Resize(width=5, height=7, filter="bicubic"), (7, 5)),
        (pipeline.ResizeShorter(size=3, filter="nearest"), (5, 3)),
        (pipeline.Letterbox(width=20, height=20), (20, 20)),
        (pipeline.Crop(left=0.99, top=0.99), (1, 1)),
    ],
)
def test_steps_end_in_the_size_that_they_say(step: pipeline.Step, shape: tuple[int, int]) -> None:
    assert tensor(png(PIXELS), step).shape == (1, *shape, 3)


def test_a_letterbox_is_plain_outside() -> None:
    out = tensor(png(np.zeros((4, 8, 3), np.uint8)), pipeline.Letterbox(width=8, height=8, border=114))[0]
    assert (out[2:6] == 0).all()
    assert (out[[0, 1, 6, 7]] == 114).all()


def test_a_camera_that_was_held_upright_gives_an_upright_picture() -> None:
    exif = image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    assert (tensor(png(PIXELS, exif=exif))[0] == np.rot90(PIXELS, -1)).all()


def test_no_step_makes_more_pixels_than_the_model_allows() -> None:
    line = png(np.zeros((1, 6000, 3), np.uint8))
    with pytest.raises(TooLargeError, match="recipe"):
        tensor(line, pipeline.ResizeShorter(size=256))
    with pytest.raises(TooLargeError, match="100 pixels"):
        tensor(line, ALL, max_pixels=100)
