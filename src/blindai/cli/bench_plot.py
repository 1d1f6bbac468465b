"""Bars for `blindai bench`: as text in a terminal, and as a small SVG file; nothing to install."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_ROW, _LABEL, _BARS, _RIGHT = 22, 250, 420, 130  # pixels
_COLOURS = {False: "#7a8ca3", True: "#1b7f4d"}


def rate_text(rate: float) -> str:
    """So many in a second, in three figures."""
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s"  # noqa: PLR2004  # three figures are enough


def text_bar(value: float, most: float, *, width: int) -> str:
    """A bar of at most so many characters, in eighths of one."""
    eighths = round(8 * width * value / most) if most > 0 else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def svg_bars(title: str, bars: Sequence[tuple[str, float, str]], *, marked: int | None = None) -> str:
    """A bar chart.

    Args:
        title: above it.
        bars: label, value, and the value as it is written.
        marked: index of the one to stand out.
    """
    most = max((value for _, value, _ in bars), default=0) or 1
    width, height = _LABEL + _BARS + _RIGHT, _ROW * (len(bars) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        "<style>text { font: 13px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="{_ROW - 4}" font-weight="bold">{escape(title)}</text>',
    ]
    for index, (label, value, written) in enumerate(bars):
        top, length, colour = _ROW * (index + 1) + 6, _BARS * value / most, _COLOURS[index == marked]
        base = top + _ROW - 9
        lines += [
            f'<text x="{_LABEL - 8}" y="{base}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{_LABEL}" y="{top}" width="{length:.1f}" height="{_ROW - 6}" fill="{colour}"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{base}">{escape(written)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
