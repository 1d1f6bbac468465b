"""WAV files of every kind that is read, and of those that are not."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest

from blindai import pipeline
from blindai.errors import InvalidInputError, TooLargeError
from blindai.pipeline.sounds import Sounds, read_wave

RATE = 8000
SAMPLES = (0.0, 0.5, -0.5, -1.0)
PACKED = {
    (1, 8): bytes(int(sample * 128) + 128 for sample in SAMPLES),
    (1, 16): struct.pack("<4h", *(int(sample * 2**15) for sample in SAMPLES)),
    (1, 24): b"".join((int(sample * 2**23) & 0xFFFFFF).to_bytes(3, "little") for sample in SAMPLES),
    (1, 32): struct.pack("<4i", *(int(sample * 2**31) for sample in SAMPLES)),
    (3, 32): struct.pack("<4f", *SAMPLES),
}


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def wave(data: bytes, *, kind: int = 1, bits: int = 16, channels: int = 1, extensible: bool = False) -> bytes:
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else kind, channels, RATE, RATE * frame, frame, bits)
    if extensible:
        form += struct.pack("<HHII", 22, bits, 0, kind) + bytes.fromhex("00001000800000aa00389b71")
    body = b"WAVE" + chunk(b"fmt ", form) + chunk(b"LIST", b"odd") + chunk(b"data", data)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(("kind", "bits"), PACKED)
def test_every_sample_format_is_the_same_sound(kind: int, bits: int, extensible: bool) -> None:  # noqa: FBT001
    rate, samples = read_wave(wave(PACKED[kind, bits], kind=kind, bits=bits, extensible=extensible), max_seconds=1)
    assert rate == RATE
    assert samples == pytest.approx(SAMPLES, abs=1e-6)


def test_channels_are_averaged() -> None:
    _, samples = read_wave(wave(PACKED[1, 16], channels=2), max_seconds=1)
    assert samples == pytest.approx([0.25, -0.75])


GOOD = wave(PACKED[1, 16])


@pytest.mark.parametrize(
    "file",
    [
        b"", GOOD[:11], GOOD[:30], GOOD[:-2], b"RIFX" + GOOD[4:], GOOD.replace(b"data", b"dada"),
        wave(PACKED[1, 16], kind=2), wave(PACKED[1, 16], kind=3), wave(PACKED[1, 16], bits=12), wave(b"", bits=16),
        wave(PACKED[1, 16], channels=0), wave(PACKED[1, 16], channels=65), wave(PACKED[1, 16][:-1]),
        wave(struct.pack("<f", math.nan), kind=3, bits=32), wave(struct.pack("<f", math.inf), kind=3, bits=32),
        wave(PACKED[1, 16], kind=0x10001, extensible=True),
        wave(PACKED[1, 16], extensible=True).replace(b"\xaa", b"\0"),
    ],
    ids=range(17),
)  # fmt: skip
def test_what_is_no_wave_file_is_refused(file: bytes) -> None:
    with pytest.raises(InvalidInputError, match="WAV"):
        read_wave(file, max_seconds=1)


def tensor(file: bytes, **how: object) -> np.ndarray:
    (array,) = Sounds(pipeline.sound("x", rate=RATE, **how)).prepare([file]).values()  # type: ignore[arg-type]
    return np.asarray(array)


def test_the_recipe_cuts_fills_and_normalises() -> None:
    assert tensor(GOOD, samples=6)[0] == pytest.approx([*SAMPLES, 0, 0])
    assert tensor(GOOD, samples=2)[0] == pytest.approx(SAMPLES[:2])
    assert tensor(GOOD, layout="NCT").shape == (1, 1, 4)
    normal = tensor(GOOD, normalise=True)
    assert normal.dtype == np.float32
    assert (float(normal.mean()), float(normal.std())) == pytest.approx((0, 1), abs=1e-6)
    assert tensor(wave(bytes(8)), normalise=True).tolist() == [[0, 0, 0, 0]]


def test_another_rate_or_too_much_sound_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="8000 samples in a second, the model takes 16000"):
        Sounds(pipeline.sound("x", rate=16000)).prepare([GOOD])
    with pytest.raises(TooLargeError, match="1 seconds"):
        read_wave(wave(bytes(2 * RATE + 2)), max_seconds=1)
    with pytest.raises(InvalidInputError, match="equally long"):
        Sounds(pipeline.sound("x", rate=RATE)).prepare([GOOD, wave(bytes(2))])
