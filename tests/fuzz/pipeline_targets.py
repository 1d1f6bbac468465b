"""Fuzz targets of pipelines: the declaration in a bundle, and the text, sound and pictures that users send."""

from __future__ import annotations

import functools
import importlib.util
import io
from typing import TYPE_CHECKING

import numpy as np
from fuzz.target import Target
from pipeline.small_models import VOCABULARY
from pipeline.test_sounds import GOOD, PACKED, wave

from blindai import pipeline
from blindai.pipeline.build import word_piece_of
from blindai.pipeline.declaration import Declaration, WordPiece, encode, parse
from blindai.pipeline.detections import BoxAnswer
from blindai.pipeline.frames import Frame
from blindai.pipeline.sounds import Sounds
from blindai.pipeline.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECIPE = pipeline.picture("x", steps=[pipeline.ResizeShorter(size=8), pipeline.CentreSquare()], max_pixels=1 << 16)
_THINGS = pipeline.boxes(["a", "b", "c"], threshold=1e-6, top=5)


@functools.cache
def _text() -> WordPiece:
    return word_piece_of(VOCABULARY)


def _declarations() -> Iterator[bytes]:
    labels, transcript = pipeline.labels(["a", "b"]), pipeline.transcript(("<pad>", "|", "a"))
    for said in (_text(), _RECIPE, pipeline.sound("x", rate=8000)):
        yield encode(Declaration(version=1, input=said, output=labels))
        yield encode(Declaration(version=1, input=said, output=transcript))
    yield encode(Declaration(version=1, input=_RECIPE, output=_THINGS))


@functools.cache
def _texts() -> Texts:
    return Texts(_text())


def _sound(data: bytes) -> None:
    (array,) = Sounds(pipeline.sound("x", rate=8000, normalise=True)).prepare([data]).values()
    assert np.isfinite(array).all()


def _pictures() -> Iterator[bytes]:
    import PIL.Image

    for kind in ("JPEG", "PNG"):
        for mode in ("RGB", "L"):
            out = io.BytesIO()
            PIL.Image.new(mode, (24, 16), 99).save(out, kind)
            yield out.getvalue()


def _picture(data: bytes) -> None:
    from blindai.pipeline.pictures import Pictures

    (array,) = Pictures(_RECIPE).prepare([data]).values()
    assert array.shape == (1, 3, 8, 8)


def _boxes(data: bytes) -> None:
    """Whatever a model says, it ends in boxes on the picture."""
    numbers = np.frombuffer(data[: len(data) // 32 * 32], "<f4").reshape(1, -1, 8)
    frame = Frame(width=640, height=480, top=-80.0)
    boxes, _, scores = (tensor.data for tensor in BoxAnswer(_THINGS).give({"output0": numbers}, [frame]))
    assert ((boxes >= 0) & (boxes <= (640, 480, 640, 480))).all()
    assert (np.diff(scores) <= 0).all()


_ALWAYS = (
    Target(
        name="detector_answer",
        run=_boxes,
        seeds=lambda: (np.random.default_rng(5).uniform(0, 400, (9, 8)).astype("<f4").tobytes(), b""),
    ),
    Target(name="pipeline_file", run=parse, seeds=_declarations),
    Target(
        name="wordpiece_text",
        run=lambda data: _texts().prepare([data]),
        seeds=lambda: ("I love AI [SEP] é 中 😀 İ".encode(), b"", b"a" * 200),
    ),
    Target(
        name="wave_file",
        run=_sound,
        seeds=lambda: (GOOD, *(wave(data, kind=kind, bits=bits) for (kind, bits), data in PACKED.items())),
    ),
)
_WITH_PILLOW = (Target(name="picture_file", run=_picture, seeds=_pictures),)
TARGETS = (*_ALWAYS, *(_WITH_PILLOW if importlib.util.find_spec("PIL") else ()))
