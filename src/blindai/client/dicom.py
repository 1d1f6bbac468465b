"""A DICOM file's picture, and nothing else of it: names, dates and numbers of a patient stay on this machine.

    stored values · rescale (PS3.3 C.11.1) · window (C.11.2) · MONOCHROME1 turned over · grey PNG of 8 bits

For models whose pipeline takes pictures: `client.infer("xray", dicom.picture("scan.dcm"))`. Needs the extra `dicom`.
What is burnt into the pixels, such as a name in a corner, is part of the picture and goes along.
Leaves out: colour, several frames, and tables (VOI LUT, Modality LUT) in place of a window or slope.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from blindai.errors import InvalidInputError

if TYPE_CHECKING:
    import os

    from blindai.oip.datatypes import Array

_WHITE = 255.0
_LINEAR, _EXACT, _SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"


def picture(path: str | os.PathLike[str]) -> bytes:
    """The pixels of a DICOM file as it would be shown, as a grey PNG without any text in it.

    Without a window the smallest value is black and the largest white.

    Raises:
        ImportError: the extra `dicom` is not installed.
        FileNotFoundError: no such file.
        InvalidInputError: no DICOM file with one grey picture that can be decoded.
    """
    import pydicom  # noqa: PLC0415  # an extra

    try:
        dataset = pydicom.dcmread(path)
        grey = _shown(dataset, np.asarray(dataset.pixel_array))
    except (OSError, InvalidInputError):
        raise
    except Exception as problem:  # noqa: BLE001  # pydicom raises many unrelated classes
        raise InvalidInputError(f"the DICOM file has no picture that can be read ({type(problem).__name__})") from None
    return _png(grey)


def _shown(dataset: Any, stored: Array) -> Array:
    interpretation = dataset.PhotometricInterpretation
    if interpretation not in {"MONOCHROME1", "MONOCHROME2"} or stored.ndim != 2 or not stored.size:  # noqa: PLR2004
        raise InvalidInputError("the DICOM file holds colour or several frames, not one grey picture")
    if "ModalityLUTSequence" in dataset or ("VOILUTSequence" in dataset and "WindowCenter" not in dataset):
        raise InvalidInputError("the DICOM file has a table of values, which is not applied here")
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    values = stored.astype(np.float64) * slope + intercept
    if "WindowCenter" in dataset:
        function = dataset.get("VOILUTFunction", _LINEAR)
        light = _windowed(values, _first(dataset.WindowCenter), _first(dataset.WindowWidth), function)
    else:
        low, high = float(values.min()), float(values.max())
        light = (values - low) / (high - low) if high > low else np.zeros_like(values)
    if not np.isfinite(light).all():
        raise InvalidInputError("the DICOM file's values are not numbers")
    grey = np.round(light.clip(0, 1) * _WHITE)
    return np.asarray(_WHITE - grey if interpretation == "MONOCHROME1" else grey).astype(np.uint8)


def _windowed(values: Array, centre: float, width: float, function: str) -> Array:
    """Between 0 and 1 inside the window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == _LINEAR and width >= 1:
        if width == 1:
            return np.asarray(values > centre - 0.5, dtype=np.float64)
        return (values - (centre - 0.5)) / (width - 1) + 0.5
    if function == _EXACT and width > 0:
        return (values - centre) / width + 0.5
    if function == _SIGMOID and width > 0:
        with np.errstate(over="ignore"):  # far below the window e^x is infinite, and its share black
            return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    raise InvalidInputError("the DICOM file has no window that can be applied")


def _first(value: Any) -> float:
    """Of several windows the first, which is the one to begin with."""
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)


def _png(grey: Array) -> bytes:
    """A PNG of one grey channel: header, pixels and end, and nothing else (ISO/IEC 15948)."""
    height, width = grey.shape
    lines = np.zeros((height, width + 1), dtype=np.uint8)  # each begins with its filter: none
    lines[:, 1:] = grey
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
