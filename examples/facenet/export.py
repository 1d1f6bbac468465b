"""Writes FaceNet's network, Inception-ResNet v1, as ONNX with its pictures' recipe: `python export.py --weights FILE`.

The architecture is written after Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning" (arXiv 1602.07261, figures 9 to 14), ending in a unit vector as FaceNet does (arXiv
1503.03832). As those who since trained it on faces have done, it takes 160 × 160 pixels, and a last block without ReLU
follows the paper's. No published weights are here: FILE is yours, a state_dict of `InceptionResnetV1` below;
`--random-weights` needs none and knows no face.
Into the current folder: face.onnx with its pipeline, sample-*.png, and expected.npz, what PyTorch answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from blindai import pipeline

SIDE, NUMBERS = 160, 512
PICTURES = 3


class Convolution(nn.Sequential):
    """Convolved, normalised, rectified; `width` may differ by axis."""

    def __init__(
        self, before: int, after: int, width: int | tuple[int, int], *, stride: int = 1, same: bool = True
    ) -> None:
        widths = (width, width) if isinstance(width, int) else width
        padding = tuple(side // 2 if same else 0 for side in widths)
        super().__init__(
            nn.Conv2d(before, after, widths, stride, padding, bias=False),
            nn.BatchNorm2d(after, eps=1e-3),
            nn.ReLU(),
        )


class Branches(nn.Module):
    """The same picture through each, side by side in channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Concatenated."""
        return torch.cat([branch(picture) for branch in self.branches], dim=1)


class Residual(nn.Module):
    """What the branches find is scaled and added to what came in (section 3.3 of the paper)."""

    def __init__(self, channels: int, found: int, scale: float, *branches: nn.Module, rectified: bool = True) -> None:
        super().__init__()
        self.find = nn.Sequential(Branches(*branches), nn.Conv2d(found, channels, 1))
        self.scale = scale
        self.after: nn.Module = nn.ReLU() if rectified else nn.Identity()

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        added: torch.Tensor = self.after(picture + self.scale * self.find(picture))
        return added


def stem() -> nn.Sequential:
    """Figure 14: 160 × 160 × 3 to 17 × 17 × 256."""
    return nn.Sequential(
        Convolution(3, 32, 3, stride=2, same=False),
        Convolution(32, 32, 3, same=False),
        Convolution(32, 64, 3),
        nn.MaxPool2d(3, 2),
        Convolution(64, 80, 1),
        Convolution(80, 192, 3, same=False),
        Convolution(192, 256, 3, stride=2, same=False),
    )


def block_a() -> Residual:
    """Figure 10, Inception-ResNet-A."""
    narrow = nn.Sequential(Convolution(256, 32, 1), Convolution(32, 32, 3))
    wide = nn.Sequential(Convolution(256, 32, 1), Convolution(32, 32, 3), Convolution(32, 32, 3))
    return Residual(256, 96, 0.17, Convolution(256, 32, 1), narrow, wide)


def reduction_a() -> Branches:
    """Figure 7 with k = 192, l = 192, m = 256, n = 384."""
    deep = nn.Sequential(
        Convolution(256, 192, 1), Convolution(192, 192, 3), Convolution(192, 256, 3, stride=2, same=False)
    )
    return Branches(nn.MaxPool2d(3, 2), Convolution(256, 384, 3, stride=2, same=False), deep)


def block_b() -> Residual:
    """Figure 11, Inception-ResNet-B."""
    crossed = nn.Sequential(Convolution(896, 128, 1), Convolution(128, 128, (1, 7)), Convolution(128, 128, (7, 1)))
    return Residual(896, 256, 0.10, Convolution(896, 128, 1), crossed)


def reduction_b() -> Branches:
    """Figure 12."""

    def narrowed(*more: nn.Module) -> nn.Sequential:
        return nn.Sequential(Convolution(896, 256, 1), *more)

    return Branches(
        nn.MaxPool2d(3, 2),
        narrowed(Convolution(256, 384, 3, stride=2, same=False)),
        narrowed(Convolution(256, 256, 3, stride=2, same=False)),
        narrowed(Convolution(256, 256, 3), Convolution(256, 256, 3, stride=2, same=False)),
    )


def block_c(scale: float = 0.20, *, rectified: bool = True) -> Residual:
    """Figure 13, Inception-ResNet-C."""
    crossed = nn.Sequential(Convolution(1792, 192, 1), Convolution(192, 192, (1, 3)), Convolution(192, 192, (3, 1)))
    return Residual(1792, 384, scale, Convolution(1792, 192, 1), crossed, rectified=rectified)


class InceptionResnetV1(nn.Module):
    """FP32 faces [n, 3, 160, 160] between −1 and 1 in, FP32 unit vectors [n, 512] out."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = nn.Sequential(
            stem(),
            *(block_a() for _ in range(5)),
            reduction_a(),
            *(block_b() for _ in range(10)),
            reduction_b(),
            *(block_c() for _ in range(5)),
            block_c(1.0, rectified=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.face = nn.Sequential(nn.Linear(1792, NUMBERS, bias=False), nn.BatchNorm1d(NUMBERS, eps=1e-3))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Faces of one person lie near each other."""
        return nn.functional.normalize(self.face(self.picture(faces)), dim=1)


def main() -> None:
    """Load, write, and say what PyTorch answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--weights", type=Path, metavar="FILE", help="a state_dict, as torch.save wrote it")
    weights.add_argument("--random-weights", action="store_true", help="seeded; they know no face")
    given = parser.parse_args()
    model = random_network() if given.random_weights else InceptionResnetV1()
    if given.weights:
        model.load_state_dict(torch.load(given.weights, map_location="cpu", weights_only=True))
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, SIDE, SIDE),),
        "face.onnx",
        dynamo=True,
        input_names=["faces"],
        output_names=["vectors"],
        dynamic_shapes=({0: "batch"},),
    )
    recipe = pipeline.picture("faces", steps=[pipeline.Resize(width=SIDE, height=SIDE)], scale=1 / 128, mean=(1.0,))
    pipeline.save("face.onnx", input=recipe)
    faces = torch.stack([pixels(number) for number in range(PICTURES)])
    with torch.no_grad():
        np.savez("expected.npz", vectors=model(faces / 128 - 1).numpy())


def random_network() -> InceptionResnetV1:
    """Seeded; its normalisations have seen some noise, for without any two pictures come out alike."""
    torch.manual_seed(2015)
    model = InceptionResnetV1()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.momentum = None  # the mean of what was seen
    with torch.no_grad():
        model(torch.rand(8, 3, SIDE, SIDE) * 2 - 1)
    return model


def pixels(number: int) -> torch.Tensor:
    """FP32 [3, 160, 160] of 0 to 255: coloured spots, which are no faces; kept as `sample-NUMBER.png`."""
    random = np.random.default_rng(number)
    spots = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(spots).resize((SIDE, SIDE))
    picture.save(f"sample-{number}.png")
    array: Any = np.asarray(picture, np.float32)
    return torch.from_numpy(array).permute(2, 0, 1)


if __name__ == "__main__":
    main()
