"""Trains M5 to tell spoken-like tones apart by their raw samples, and writes it: `python export.py`.

M5 after Dai et al., "Very Deep Convolutional Neural Networks for Raw Waveforms" (arXiv 1610.00087, table 1): five
layers, the first as wide as a filter of 10 ms. The sounds are made here: a buzz of a voice's pitch through three
resonances, at the places that the five vowels have, with the speaker, loudness, length and noise drawn anew each time.
Into the current folder: vowels.onnx with its pipeline, sample-*.wav, and expected.npz, what PyTorch answers.
"""

from __future__ import annotations

import sys
import wave
from typing import Any

import numpy as np
import torch

from blindai import pipeline

FLOOR = 0.90  # guessing has 0.20
RATE = 8000  # samples in a second
SAMPLES = 4000
# Hz of the three lowest resonances of a man's vocal tract: Peterson and Barney, "Control Methods Used in a Study of the
# Vowels" (1952), table II.
VOWELS = {
    "ah": (730, 1090, 2440),
    "ee": (270, 2290, 3010),
    "eh": (530, 1840, 2480),
    "aw": (570, 840, 2410),
    "oo": (300, 870, 2240),
}
SEEN, UNSEEN, EPOCHS = 600, 200, 6

Array = np.ndarray[Any, Any]


def spoken(vowel: str, random: np.random.Generator) -> Array:
    """Half a second of somebody's voice [4000], between −1 and 1."""
    pitch = random.uniform(90, 250) * (1 + 0.03 * np.sin(2 * np.pi * 5 * np.arange(SAMPLES) / RATE))
    tract = random.uniform(0.9, 1.15)  # shorter than a man's where above 1
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = np.zeros(SAMPLES)
    for harmonic in range(1, int(RATE / 2 / pitch.max())):
        hertz = harmonic * pitch.mean()
        gain = sum(1 / (1 + ((hertz - tract * place) / 90) ** 2) / n for n, place in enumerate(VOWELS[vowel], 1))
        sound += gain * np.sin(harmonic * phase + random.uniform(0, 2 * np.pi))
    begins, lasts = random.integers(0, SAMPLES // 4), random.integers(SAMPLES // 2, SAMPLES * 3 // 4)
    heard = np.zeros(SAMPLES)
    heard[begins : begins + lasts] = np.hanning(lasts) * sound[:lasts]
    heard *= random.uniform(0.2, 0.9) / np.abs(heard).max()
    return np.clip(heard + random.normal(0, 0.01, SAMPLES), -1, 1)


def sounds(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """So many [number, 1, 4000], and which vowel each is."""
    random = np.random.default_rng(seed)
    which = random.integers(0, len(VOWELS), number)
    waves = np.stack([spoken(list(VOWELS)[vowel], random) for vowel in which])
    return torch.from_numpy(waves[:, np.newaxis]).float(), torch.from_numpy(which)


def m5(classes: int) -> torch.nn.Module:
    """FP32 sounds [n, 1, samples] in, FP32 logits [n, classes] out."""

    def layer(channels_in: int, channels: int, width: int, stride: int) -> list[torch.nn.Module]:
        convolution = torch.nn.Conv1d(channels_in, channels, width, stride, padding=width // 2)
        return [convolution, torch.nn.BatchNorm1d(channels), torch.nn.ReLU(), torch.nn.MaxPool1d(4)]

    return torch.nn.Sequential(
        *layer(1, 128, 80, 4),
        *layer(128, 128, 3, 1),
        *layer(128, 256, 3, 1),
        *layer(256, 512, 3, 1),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(512, classes),
    )


def train(model: torch.nn.Module, heard: torch.Tensor, which: torch.Tensor) -> None:
    """Adam, as in the paper."""
    steps = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(heard)).split(32):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(model(heard[batch]), which[batch]).backward()
            steps.step()
    model.eval()


def main() -> None:
    """Train, judge by other speakers, write."""
    torch.manual_seed(2016)
    model = m5(len(VOWELS))
    train(model, *sounds(SEEN, seed=1))
    heard, which = sounds(UNSEEN, seed=2)
    with torch.no_grad():
        accuracy = float((model(heard).argmax(1) == which).float().mean())
    print(f"held-out accuracy {accuracy:.3f} (floor {FLOOR:.3f})")
    if accuracy < FLOOR:
        sys.exit("not good enough, and not written")
    write(model)


def write(model: torch.nn.Module) -> None:
    """The model, its pipeline, a recording of each vowel, and what PyTorch says of them."""
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, SAMPLES),),
        "vowels.onnx",
        dynamo=True,
        input_names=["sounds"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
    )
    pipeline.save(
        "vowels.onnx",
        input=pipeline.sound("sounds", rate=RATE, layout="NCT", samples=SAMPLES),
        output=pipeline.labels(list(VOWELS)),
    )
    random = np.random.default_rng(3)
    waves = {vowel: (spoken(vowel, random) * 32767).astype("<i2") for vowel in sorted(VOWELS)}
    for vowel, samples in waves.items():
        with wave.open(f"sample-{vowel}.wav", "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))  # one channel, two bytes a sample
            file.writeframes(samples.tobytes())
    heard = torch.from_numpy(np.stack(list(waves.values()))[:, np.newaxis] / 32768).float()
    with torch.no_grad():
        scores, order = model(heard).softmax(-1).sort(descending=True)
    labels = np.array(list(VOWELS))[order.numpy()]
    np.savez("expected.npz", labels=labels, scores=scores.numpy())


if __name__ == "__main__":
    main()
