"""Finds the line of a TOML file that a table or field stands on, so that a complaint can name it.

`tomllib` forgets where things stood. This reads only what begins a line outside strings and brackets: headers and keys.
Leaves out: whether the text is TOML at all (policy_file.py asks `tomllib` first).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]

_NAME = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*"
_NAMES = re.compile(_NAME)
_HEADER = re.compile(rf"[ \t]*\[(\[?)[ \t]*({_DOTTED})[ \t]*\]")
_KEY = re.compile(rf"[ \t]*{_DOTTED}[ \t]*=")
# What may hold brackets or line ends that mean nothing: multi-line strings, strings, comments.
_OPAQUE = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
    r"|\#[^\n]*+",
    re.DOTALL,
)
_INSIDE = "\0"  # no TOML has it


def line_of(text: str, path: Path) -> int:
    """The line that names `path`, or as much of it as any line does; 1 if none does.

    Args:
        text: valid TOML.
        path: keys from the top; a number chooses one of an array of tables.
    """
    best, best_line = 0, 1
    for line, named in _named(text):
        common = _common(named, path)
        if common > best and common in {len(named), len(path)}:
            best, best_line = common, line
    return best_line


def _named(text: str) -> Iterator[tuple[int, Path]]:
    """Each header and each key at the beginning of a line: its line, and the path that it names."""
    table: Path = ()
    arrays: dict[Path, int] = {}
    lines = text.split("\n")
    for number in _line_beginnings(text):
        if header := _HEADER.match(lines[number]):
            table = _in_arrays(_keys(header[2]), arrays, opens_another=bool(header[1]))
            yield number + 1, table
        elif key := _KEY.match(lines[number]):
            yield number + 1, (*table, *_keys(key[0]))


def _line_beginnings(text: str) -> Iterator[int]:
    """The lines, counted from 0, that begin outside every string and bracket."""
    depth = 0
    for number, line in enumerate(_OPAQUE.sub(_blank, text).split("\n")):
        if depth == 0 and not line.startswith(_INSIDE):
            yield number
        depth += line.count("[") + line.count("{") - line.count("]") - line.count("}")


def _blank(opaque: re.Match[str]) -> str:
    """As many lines, without what stands on them; a line that begins inside says so."""
    return "x" + ("\n" + _INSIDE) * opaque[0].count("\n")


def _in_arrays(keys: tuple[str, ...], arrays: dict[Path, int], *, opens_another: bool) -> Path:
    """The path of a header: where a key names an array of tables, the table that was opened last is meant."""
    path: Path = ()
    for index, key in enumerate(keys):
        path = (*path, key)
        if opens_another and index == len(keys) - 1:
            arrays[path] = arrays.get(path, -1) + 1
        if path in arrays:
            path = (*path, arrays[path])
    return path


def _keys(dotted: str) -> tuple[str, ...]:
    return tuple(name.strip("\"'") for name in _NAMES.findall(dotted))


def _common(one: Path, other: Path) -> int:
    """How many keys both begin with."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
