"""Compressed bodies: the same bytes, however they are cut; no more inflated than is asked for; all else refused."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindai.errors import InvalidInputError, UnsupportedEncodingError
from blindai.server.content_encoding import inflated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_PIECE_BYTES = 256 * 1024
_WHOLE = gzip.compress(b"ab", mtime=0)
_NOT_GZIP = (b"", b"x", _WHOLE[:-1], _WHOLE + b"x", zlib.compress(b"a"))


async def pieces_of(body: bytes, size: int) -> AsyncIterator[memoryview]:
    for start in range(0, len(body), size):
        yield memoryview(body[start : start + size])


async def collected(body: bytes, encoding: str, size: int = 1000) -> bytes:
    return b"".join([bytes(piece) async for piece in inflated(pieces_of(body, size), encoding)])


@given(body=st.binary(max_size=3000), size=st.integers(1, 400))
def test_bodies_come_out_as_they_went_in(body: bytes, size: int) -> None:
    async def run() -> None:
        assert await collected(gzip.compress(body, mtime=0), "gzip", size) == body
        assert await collected(zlib.compress(body), " Deflate ", size) == body
        assert await collected(body, "identity", size) == body

    asyncio.run(run())


async def test_nothing_is_inflated_beyond_the_next_piece() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    pieces = inflated(pieces_of(bomb, len(bomb)), "gzip")
    first = await anext(pieces)
    assert 0 < len(first) <= _PIECE_BYTES


@pytest.mark.parametrize(
    "body", [b"", b"x", gzip.compress(b"ab", mtime=0)[:-1], gzip.compress(b"ab", mtime=0) + b"x", zlib.compress(b"a")]
)
async def test_what_is_not_compressed_so_to_its_end_is_refused(body: bytes) -> None:
    for size in (1, 1000):
        with pytest.raises(InvalidInputError, match="gzip"):
            await collected(body, "gzip", size)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, deflate", "x"])
async def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedEncodingError):
        await collected(b"", encoding)
