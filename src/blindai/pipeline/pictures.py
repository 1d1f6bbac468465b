"""JPEG and PNG as tensors, by Pillow: an extra, so this file is imported only by `run.picture_decoder`.

What is looked at before anything is decoded: the size of the file, its first bytes, the width, height and number of
pixels that its header claims. Every step's result is bounded by the same number of pixels, before it is made: of a
picture of 1 × 60000 the shorter side cannot be made 256.
EXIF's orientation is applied, since a camera's picture lies on its side otherwise; everything else that EXIF says is
left alone. An animated PNG is its first picture. Transparency is dropped, as Pillow does. Grey of 16 bits keeps its
upper 8.
Leaves out: what Pillow itself may get wrong, which the sandbox bounds, and the deadline of a run.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.JpegImagePlugin
import PIL.PngImagePlugin

from blindai.errors import InvalidInputError, TooLargeError
from blindai.oip.datatypes import Datatype
from blindai.pipeline.declaration import (
    MAX_SIDE,
    CentreCrop,
    CentreSquare,
    Crop,
    Letterbox,
    Picture,
    Resize,
    ResizeShorter,
)
from blindai.pipeline.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.oip.datatypes import Array
    from blindai.pipeline.declaration import Step

NAME = "picture"
MAX_FILE_BYTES = 64 * 1024 * 1024
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
_HINT = "Send the bytes of a JPEG or PNG file."
_Box = tuple[int, int, int, int]


def decode_once() -> None:
    """One picture of each kind, so that what a decoder opens late is open when the process is closed."""
    for kind in ("JPEG", "PNG"):
        file = io.BytesIO()
        PIL.Image.new("RGB", (8, 8)).save(file, kind)
        decoded(file.getvalue(), grey=True, max_pixels=64).resize((4, 4))


class Pictures:
    """A declared recipe for pictures."""

    name = NAME

    def __init__(self, declared: Picture) -> None:
        self._declared = declared
        self.feeds = ((declared.to, Datatype.FP32, 4),)

    def prepare(self, files: Sequence[bytes]) -> dict[str, Array]:
        """The model's input.

        Raises:
            InvalidInputError: a file is no JPEG or PNG that can be decoded, or the pictures end in different sizes.
            TooLargeError: a file, a picture or a step's result is larger than allowed.
        """
        return self.framed(files)[0]

    def framed(self, files: Sequence[bytes]) -> tuple[dict[str, Array], tuple[Frame, ...]]:
        """The same, and where what the model sees lies in each picture."""
        rows, frames = zip(*(self._tensor(file) for file in files), strict=True)
        if len({row.shape for row in rows}) != 1:
            raise InvalidInputError("the pictures end in different sizes", hint="Send them one at a time.")
        return {self._declared.to: np.stack(rows)}, frames

    def _tensor(self, file: bytes) -> tuple[Array, Frame]:
        declared = self._declared
        picture = decoded(file, grey=declared.colours == "L", max_pixels=declared.max_pixels)
        frame = Frame(width=picture.width, height=picture.height)
        try:
            for step in declared.steps:
                picture, frame = self._done(picture, step, frame)
            pixels = np.asarray(picture, dtype=np.float32)
        except MemoryError:
            raise TooLargeError("the picture takes more memory than a model has") from None
        pixels = pixels.reshape(picture.height, picture.width, -1)
        if declared.colours == "BGR":
            pixels = pixels[:, :, ::-1]
        mean, deviation = (np.array(numbers, np.float32) for numbers in (declared.mean, declared.deviation))
        values = (pixels * np.float32(declared.scale) - mean) / deviation
        return np.ascontiguousarray(values if declared.layout == "NHWC" else values.transpose(2, 0, 1)), frame

    def _done(self, picture: Any, step: Step, frame: Frame) -> tuple[Any, Frame]:
        match step:
            case Crop() | CentreSquare() | CentreCrop():
                box = self._bounded_box(picture.size, step)
                return picture.crop(box), frame.moved(box[0], box[1])
            case Resize():
                size = step.width, step.height
                return self._resized(picture, size, step.filter), frame.resized(picture.size, size)
            case ResizeShorter():
                size = _scaled(picture.size, step.size / min(picture.size))
                return self._resized(picture, size, step.filter), frame.resized(picture.size, size)
            case Letterbox():
                size = _scaled(picture.size, min(step.width / picture.width, step.height / picture.height))
                inner, frame = self._resized(picture, size, step.filter), frame.resized(picture.size, size)
                border = (step.width - inner.width) // 2, (step.height - inner.height) // 2
                return _framed(inner, (step.width, step.height), border, step.border), frame.moved(
                    -border[0], -border[1]
                )

    def _bounded_box(self, size: tuple[int, int], step: Crop | CentreSquare | CentreCrop) -> _Box:
        left, top, right, bottom = _box(size, step)
        self._bound(right - left, bottom - top)
        return left, top, right, bottom

    def _resized(self, picture: Any, size: tuple[int, int], filter_name: str) -> Any:
        self._bound(*size)
        return picture.resize(size, PIL.Image.Resampling[filter_name.upper()])

    def _bound(self, width: int, height: int) -> None:
        if max(width, height) > MAX_SIDE or width * height > self._declared.max_pixels:
            raise TooLargeError(
                "a step of the model's recipe would make this picture too large", hint="Its proportions are extreme."
            )


def decoded(file: bytes, *, grey: bool, max_pixels: int) -> Any:
    """A file's picture, upright, as RGB or grey.

    Raises:
        InvalidInputError: no JPEG or PNG that can be decoded.
        TooLargeError: the file has more than 64 MiB, or its header claims more pixels than `max_pixels`.
    """
    if len(file) > MAX_FILE_BYTES:
        raise TooLargeError(f"a picture's file has more than {MAX_FILE_BYTES} bytes")
    kind = next((kind for magic, kind in _MAGIC.items() if file.startswith(magic)), None)
    if kind is None:
        raise InvalidInputError("the file is neither JPEG nor PNG", hint=_HINT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd but harmless files
        try:
            picture = PIL.Image.open(io.BytesIO(file), formats=[kind])
            _check_claim(picture.size, max_pixels)
            picture.load()
            return _in_eight_bits(PIL.ImageOps.exif_transpose(picture), grey=grey)
        except TooLargeError:
            raise
        except PIL.Image.DecompressionBombError:
            raise _too_many_pixels(max_pixels) from None
        except MemoryError:
            raise TooLargeError("the picture takes more memory than a model has") from None
        except Exception:  # noqa: BLE001  # Pillow raises a dozen unrelated classes; its words may quote data
            raise InvalidInputError(f"the {kind} file cannot be decoded", hint=_HINT) from None


def _check_claim(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise _too_many_pixels(max_pixels)


def _too_many_pixels(max_pixels: int) -> TooLargeError:
    return TooLargeError(
        f"the picture has more than {max_pixels} pixels, or a side of more than {MAX_SIDE}", hint="Make it smaller."
    )


def _in_eight_bits(picture: Any, *, grey: bool) -> Any:
    if picture.mode.startswith("I"):  # Pillow itself would clip
        picture = PIL.Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return picture.convert("L" if grey else "RGB")


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _box(size: tuple[int, int], step: Crop | CentreSquare | CentreCrop) -> _Box:
    """Left, top, right, bottom; outside the picture is black."""
    width, height = size
    if isinstance(step, Crop):
        left, top = min(int(width * step.left), width - 1), min(int(height * step.top), height - 1)
        return (
            left,
            top,
            max(left + 1, width - int(width * step.right)),
            max(top + 1, height - int(height * step.bottom)),
        )
    wide, high = (min(size), min(size)) if isinstance(step, CentreSquare) else (step.width, step.height)
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _framed(inner: Any, size: tuple[int, int], at: tuple[int, int], colour: int) -> Any:
    frame = PIL.Image.new(inner.mode, size, colour if inner.mode == "L" else (colour,) * 3)
    frame.paste(inner, at)
    return frame
