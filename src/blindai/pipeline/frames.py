"""Where the picture that a model sees lies in the picture that was sent, so that boxes find their way back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A window on the upright picture: the model's pixel (x, y) is (left + x · across, top + y · down) of it.

    Attributes:
        width, height: of the picture that was sent, in its pixels, after EXIF's orientation.
        left, top: where the window begins, in the same pixels; negative within a border.
        across, down: pixels of the picture to one of the window.
    """

    width: int
    height: int
    left: float = 0.0
    top: float = 0.0
    across: float = 1.0
    down: float = 1.0

    def moved(self, right: int, down: int) -> Self:
        """The window that begins so many of its own pixels further."""
        return replace(self, left=self.left + right * self.across, top=self.top + down * self.down)

    def resized(self, before: tuple[int, int], after: tuple[int, int]) -> Self:
        """The same window with another number of pixels, (width, height)."""
        return replace(self, across=self.across * before[0] / after[0], down=self.down * before[1] / after[1])
