"""WAV files as tensors; read by an own strict reader, for the sound is hostile input and the format is small.

    "RIFF" u32 "WAVE" · chunks (id, u32 length, bytes, padded to even) · "fmt " before "data"

PCM of 8 (unsigned), 16, 24 and 32 bits and IEEE floats of 32, also as WAVE_FORMAT_EXTENSIBLE; all else is refused.
Source: Microsoft, "Multimedia Programming Interface and Data Specifications 1.0" (1991), and mmreg.h.
Leaves out: compressed sound, and other rates than the model's: resample where the recording lies.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from blindai.errors import InvalidInputError, TooLargeError
from blindai.oip.datatypes import Datatype

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.oip.datatypes import Array
    from blindai.pipeline.declaration import Sound

NAME = "sound"
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBTYPE = bytes.fromhex("00001000800000aa00389b71")  # what follows the format's number in an extensible one
_MAX_CHANNELS = 64
_FORMATS = {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32)}
_QUIET = 1e-7  # what wav2vec2's feature extractor adds to the variance


class Sounds:
    """A declared recipe for sound."""

    name = NAME

    def __init__(self, declared: Sound) -> None:
        self._declared = declared
        self.feeds = ((declared.to, Datatype.FP32, len(declared.layout)),)

    def prepare(self, files: Sequence[bytes]) -> dict[str, Array]:
        """The model's input for one file or several of one length.

        Raises:
            InvalidInputError: not a WAV file that can be read, another rate, no sound, or files of unequal length.
            TooLargeError: longer than the model allows.
        """
        waves = [self._wave(file) for file in files]
        if len({wave.size for wave in waves}) != 1:
            raise InvalidInputError("the sounds are not equally long", hint="Send them one at a time.")
        rows = np.stack(waves)
        return {self._declared.to: rows if self._declared.layout == "NT" else rows[:, np.newaxis, :]}

    def _wave(self, file: bytes) -> Array:
        declared = self._declared
        rate, wave = read_wave(file, max_seconds=declared.max_seconds)
        if rate != declared.rate:
            raise InvalidInputError(
                f"the sound has {rate} samples in a second, the model takes {declared.rate}",
                hint="Resample it, for example: ffmpeg -i IN -ar RATE -ac 1 OUT.wav",
            )
        if declared.samples is not None:
            wave = np.pad(wave[: declared.samples], (0, max(0, declared.samples - wave.size)))
        if declared.normalise:
            wave = (wave - wave.mean()) / np.sqrt(wave.var() + _QUIET)
        return np.ascontiguousarray(wave, dtype="<f4")


def read_wave(file: bytes, *, max_seconds: int) -> tuple[int, Array]:
    """The rate of a WAV file, and its channels' mean as float64 between −1 and 1 (floats as they are written).

    Raises:
        InvalidInputError: not a WAV file that can be read, or no sound in it; a NaN or an infinity.
        TooLargeError: longer than `max_seconds`.
    """
    form = None
    for name, chunk in _chunks(file):
        if name == b"fmt " and form is None:
            form = _format(bytes(chunk))
        elif name == b"data" and form is not None:
            kind, channels, rate, bits = form
            if len(chunk) % (channels * bits // 8):
                raise _broken("the sound ends inside a sample")
            if len(chunk) // (channels * bits // 8) > max_seconds * rate:
                raise TooLargeError(f"the sound is longer than {max_seconds} seconds", hint="Send it in parts.")
            return rate, _mono(bytes(chunk), kind, channels, bits)
    raise _broken("it has no format or no sound")


def _chunks(file: bytes) -> Iterator[tuple[bytes, memoryview]]:
    if len(file) < 12 or file[:4] != b"RIFF" or file[8:12] != b"WAVE":  # noqa: PLR2004  # the header's length
        raise _broken("it does not begin as one")
    view, offset = memoryview(file), 12
    while offset + 8 <= len(file):
        name, length = struct.unpack_from("<4sI", file, offset)
        offset += 8
        if length > len(file) - offset:
            raise _broken("a part of it is cut off")
        yield name, view[offset : offset + length]
        offset += length + length % 2


def _format(chunk: bytes) -> tuple[int, int, int, int]:
    """Kind, channels, samples in a second, bits of a sample."""
    if len(chunk) < 16:  # noqa: PLR2004  # WAVEFORMAT and its bits
        raise _broken("its format is cut off")
    kind, channels, rate, bytes_per_second, frame, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE:
        if len(chunk) != 40 or chunk[28:] != _SUBTYPE or struct.unpack_from("<H", chunk, 18)[0] != bits:  # noqa: PLR2004
            raise _broken("its extensible format is not one of PCM or floats")
        (kind,) = struct.unpack_from("<I", chunk, 24)
    if (kind, bits) not in _FORMATS:
        raise _broken("only PCM of 8, 16, 24 or 32 bits and floats of 32 bits are read")
    fits = frame == channels * bits // 8 and bytes_per_second == rate * frame
    if not 1 <= channels <= _MAX_CHANNELS or not rate or not fits:
        raise _broken("its format contradicts itself")
    return kind, channels, rate, bits


def _mono(data: bytes, kind: int, channels: int, bits: int) -> Array:
    if not data:
        raise _broken("it has no format or no sound")
    if kind == _FLOAT:
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
            samples = np.frombuffer(data, dtype="<f4").astype(np.float64)
        if not np.isfinite(samples).all():
            raise _broken("it holds a NaN or an infinity")
    elif bits == 8:  # noqa: PLR2004  # the only unsigned one
        samples = (np.frombuffer(data, dtype=np.uint8).astype(np.float64) - 128.0) / 128.0
    elif bits == 24:  # noqa: PLR2004  # which numpy lacks: the upper three bytes of 32 bits
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        samples = wide.view("<i4").reshape(-1) / 2.0**31
    else:
        samples = np.frombuffer(data, dtype=f"<i{bits // 8}") / 2.0 ** (bits - 1)
    return np.asarray(samples.reshape(-1, channels).mean(axis=1))


def _broken(why: str) -> InvalidInputError:
    return InvalidInputError(f"the sound is not a WAV file that can be read: {why}", hint="Send uncompressed WAV.")
