"""HKDF with SHA-256 (RFC 5869), by which keys and salts are derived (docs/spec/sealed.md, Notation).

A session's PRK gives two outputs for each request, and a receipt's salt one for each body. An `Expander` sets its HMAC
up once and copies it: in the server, between other work, that is a third of the cost of an output.
Leaves out: what the outputs are for (channel/exchange.py, receipts.py).
"""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_BLOCK_BYTES = 32
_MAX_BLOCKS = 255


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 §2.2): 32 bytes."""
    return HKDF.extract(SHA256(), salt, secret)


def expand(secret: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand of a secret that is used once."""
    return Expander(secret).expand(info, size)


class Expander:
    """HKDF-Expand (RFC 5869 §2.3) of one secret, as often as is wanted; does not show it."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        self._keyed = HMAC(secret, SHA256())

    def expand(self, info: bytes, size: int) -> bytes:
        """`size` bytes for what `info` names.

        Raises:
            ValueError: more than 255 blocks of 32 bytes.
        """
        if size > _MAX_BLOCKS * _BLOCK_BYTES:
            raise ValueError(f"HKDF-Expand gives at most {_MAX_BLOCKS * _BLOCK_BYTES} bytes, {size} are wanted")
        output = block = self._block(info + b"\1")
        while len(output) < size:
            block = self._block(block + info + bytes([len(output) // _BLOCK_BYTES + 1]))
            output += block
        return output[:size]

    def _block(self, data: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(data)
        return mac.finalize()
