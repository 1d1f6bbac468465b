"""Request bodies compressed with gzip or deflate (RFC 9110 §8.4), inflated as they arrive.

A few bytes can inflate to gigabytes: nothing is inflated beyond the next piece, and whoever reads counts the pieces.
Leaves out: compressed answers; they would tell the length of secrets that lie beside chosen text.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from blindai.errors import InvalidInputError, UnsupportedEncodingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ENCODINGS = ("gzip", "deflate")
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_PIECE_BYTES = 256 * 1024


async def inflated(pieces: AsyncIterator[memoryview], encoding: str) -> AsyncIterator[memoryview]:
    """The clear pieces of a body, none above 256 KiB.

    Raises:
        UnsupportedEncodingError: neither gzip, deflate nor identity.
        InvalidInputError: the body is not compressed so, or not to its end.
    """
    name = encoding.strip().lower()
    if name in ("identity", ""):
        async for piece in pieces:
            yield piece
        return
    if name not in _WINDOW:
        raise UnsupportedEncodingError(f"a body is sent as it is, or compressed with {' or '.join(ENCODINGS)}")
    inflate = zlib.decompressobj(_WINDOW[name])
    async for piece in pieces:
        rest = bytes(piece)
        while rest:
            clear = _step(inflate, rest, name)
            rest = inflate.unconsumed_tail
            if clear:
                yield memoryview(clear)
            if rest:
                await asyncio.sleep(0)  # others have their turn while one body grows
    if not inflate.eof or inflate.unused_data:
        raise _malformed(name)


def _step(inflate: zlib._Decompress, data: bytes, name: str) -> bytes:
    if inflate.eof:
        raise _malformed(name)
    try:
        return inflate.decompress(data, _PIECE_BYTES)
    except zlib.error:
        raise _malformed(name) from None


def _malformed(name: str) -> InvalidInputError:
    return InvalidInputError(f"the body is not compressed with {name} as its Content-Encoding says, or not to its end")
