"""Inputs a little wrong, drawn from a seed, for where there is no atheris: every platform, every run of the tests.

Leaves out: coverage, which only atheris follows (__main__.py).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MOST_STEPS = 4
_MOST_COPIED_BYTES = 64
# Edges of lengths and counts, and bytes that mean something to a text format or to DER.
_TOKENS = (
    b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\1\0\0\0", b"\0\0\0\1",
    b"{", b"}", b"[", b"]", b'"', b"\\u", b"\\ud800", b":", b",", b"-", b"e9", b"null", b"true", b"9" * 30, b"1.5",
    b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x1f\xff", b"<", b">", b"&", b"]]>", b"<!--", b"\r\n", b"=", b"'", b".",
)  # fmt: skip


def mutations(seeds: Sequence[bytes], count: int, *, seed: int) -> Iterator[bytes]:
    """`count` changed inputs; the same for the same arguments."""
    chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, _MOST_STEPS)):
            chance.choice(_STEPS)(data, chance, seeds)
        yield bytes(data)


def _flip(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))


def _put(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    at = chance.randint(0, len(data))
    data[at:at] = chance.choice(_TOKENS)


def _replace(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    at, token = chance.randint(0, len(data)), chance.choice(_TOKENS)
    data[at : at + len(token)] = token


def _remove(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    at = chance.randint(0, len(data))
    del data[at : at + chance.randint(1, _MOST_COPIED_BYTES)]


def _repeat(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    at = chance.randint(0, len(data))
    piece = data[at : at + chance.randint(1, _MOST_COPIED_BYTES)]
    data[at:at] = piece * chance.choice((1, 1, 2, 30))


def _cut(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    del data[chance.randint(0, len(data)) :]


def _cross(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    data[chance.randint(0, len(data)) :] = other[chance.randint(0, len(other)) :]


_STEPS: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    _flip, _flip, _set, _set, _put, _replace, _remove, _repeat, _cut, _cross,
)  # fmt: skip
