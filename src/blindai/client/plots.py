"""A result as a picture: a detector's boxes on what was sent, or a bar for each label's score.

Drawn on this machine by Pillow, the extra `pictures`. The font is Pillow's own, which knows Latin letters only.
Leaves out: everything else that a model answers, which has no one picture.
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindai.errors import InvalidInputError
from blindai.oip.datatypes import Datatype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.client.results import Box, InferResult

_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf")
_FORMATS = ("JPEG", "PNG")
_MOST_BARS = 50
_LINE = 28  # pixels of a bar's row
_TEXT = 16
_COLUMNS = (200, 320, 100)  # pixels: label, bar, score
_GAP = 10


def png(
    result: InferResult, picture: str | os.PathLike[str] | bytes | bytearray | None = None, *, row: int = 0
) -> bytes:
    """A PNG of one row of a result: its boxes drawn on its picture, or its labels' scores as bars.

    Args:
        result: of a model whose pipeline answers boxes or labels.
        picture: for boxes, the JPEG or PNG that was sent, or its path.
        row: which element of the request.

    Raises:
        ImportError: the extra `pictures` is not installed.
        InvalidInputError: there is nothing to draw, or nothing to draw it on.
        FileNotFoundError: no such picture.
        IndexError: there is no such row.
    """
    import PIL.Image  # noqa: F401, PLC0415  # an extra, wanted before anything else is looked at

    kinds = {tensor.name: tensor.datatype for tensor in result.outputs}
    labelled = (kinds.get("labels"), kinds.get("scores")) == (Datatype.BYTES, Datatype.FP32)
    if labelled and "boxes" in kinds:
        return _with_boxes(picture, result.boxes()[row])
    if labelled and len(kinds) == 2:  # noqa: PLR2004  # labels and scores
        return _bars(result.labels()[row])
    raise InvalidInputError(
        f"there is nothing to plot: the model answers {', '.join(sorted(kinds))}",
        hint="Boxes and labels are plotted, of a model whose pipeline answers them (blindai.pipeline).",
    )


def _with_boxes(source: str | os.PathLike[str] | bytes | bytearray | None, boxes: Sequence[Box]) -> bytes:
    import PIL.ImageDraw  # noqa: PLC0415

    picture = _opened(source)
    draw = PIL.ImageDraw.Draw(picture)
    shorter = min(picture.size)
    line, font = max(1, shorter // 200), _font(max(12, shorter // 40))
    names = sorted({box.label for box in boxes})
    for box in reversed(boxes):  # the likeliest on top
        colour = _COLOURS[names.index(box.label) % len(_COLOURS)]
        draw.rectangle(
            (box.left, box.top, max(box.left, box.right - 1), max(box.top, box.bottom - 1)), None, colour, line
        )
        words = f"{_printable(box.label)} {box.score:.2f}"
        at = box.left + line, max(0, box.top - font.size - 2 * line)
        draw.rectangle(draw.textbbox(at, words, font=font), colour)
        draw.text(at, words, "white", font)
    return _file(picture)


def _opened(source: str | os.PathLike[str] | bytes | bytearray | None) -> Any:
    """The picture as the model saw it: upright, in colour."""
    import PIL.Image  # noqa: PLC0415
    import PIL.ImageOps  # noqa: PLC0415

    if source is None:
        raise InvalidInputError("boxes are drawn on the picture that was sent, and there is none here")
    data = Path(source).read_bytes() if isinstance(source, str | os.PathLike) else source
    try:
        opened = PIL.Image.open(io.BytesIO(data), formats=_FORMATS)
        return PIL.ImageOps.exif_transpose(opened).convert("RGB")
    except Exception:  # noqa: BLE001  # Pillow raises a dozen unrelated classes
        raise InvalidInputError("the picture to draw on is no JPEG or PNG that can be decoded") from None


def _bars(labels: Sequence[tuple[str, float]]) -> bytes:
    import PIL.Image  # noqa: PLC0415
    import PIL.ImageDraw  # noqa: PLC0415

    shown, font = labels[:_MOST_BARS], _font(_TEXT)
    finite = [score for _, score in shown if math.isfinite(score)]
    least, most = min([0.0, *finite]), max([*finite, 1.0 if min([0.0, *finite]) >= 0 else 0.0])
    chart = PIL.Image.new("RGB", (sum(_COLUMNS) + 2 * _GAP, _LINE * len(shown) + 2 * _GAP), "white")
    draw = PIL.ImageDraw.Draw(chart)
    start = _GAP + _COLUMNS[0]

    def across(score: float) -> float:
        return start + _COLUMNS[1] * (score - least) / ((most - least) or 1.0)

    for index, (label, score) in enumerate(shown):
        top = _GAP + index * _LINE
        draw.text((_GAP, top + 4), _cut(label, font, _COLUMNS[0] - _GAP), "black", font)
        if math.isfinite(score):
            left, right = sorted((across(0.0), across(score)))
            draw.rectangle((left, top + 4, right, top + _LINE - 5), _COLOURS[1 if score >= 0 else 0])
        draw.text((start + _COLUMNS[1] + _GAP, top + 4), f"{score:.4g}", "black", font)
    return _file(chart)


def _font(size: int) -> Any:
    import PIL.ImageFont  # noqa: PLC0415

    return PIL.ImageFont.load_default(size)


def _cut(text: str, font: Any, width: int) -> str:
    text = _printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _printable(text: str) -> str:
    """One line of at most 100 characters."""
    return "".join(character if character.isprintable() else "·" for character in text[:100])


def _file(picture: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
