"""Takes fields off the front of a buffer, so that every declared length consumes exactly what it declares.

Leaves out: what the fields mean, and which error a refusal becomes (the parsers that use it).
"""

from __future__ import annotations

from typing import Literal


class ExactReader:
    """A buffer that is read once, from front to end; every refusal is a ValueError in words."""

    def __init__(self, data: bytes, byte_order: Literal["big", "little"] = "big") -> None:
        self._data = data
        self._byte_order = byte_order
        self._position = 0

    @property
    def left(self) -> int:
        """How many bytes have not been taken."""
        return len(self._data) - self._position

    def take(self, size: int, what: str) -> bytes:
        """The next `size` bytes.

        Raises:
            ValueError: fewer are left.
        """
        begin, end = self._position, self._position + size
        if end > len(self._data):
            raise ValueError(f"{what} has {size} bytes, {self.left} are left")
        self._position = end
        return self._data[begin:end]

    def number(self, size: int, what: str) -> int:
        """The next `size` bytes as an unsigned integer.

        Raises:
            ValueError: fewer are left.
        """
        return int.from_bytes(self.take(size, what), self._byte_order)

    def sized(self, length_bytes: int, what: str, *, limit: int) -> bytes:
        """A length of `length_bytes` bytes, and as many bytes as it says.

        Raises:
            ValueError: fewer are left, or the length is above the limit.
        """
        size = self.number(length_bytes, f"the length of {what}")
        if size > limit:
            raise ValueError(f"{what} has {size} bytes, at most {limit} are accepted")
        return self.take(size, what)

    def finish(self, what: str) -> None:
        """Nothing may be left.

        Raises:
            ValueError: something is.
        """
        if self.left:
            raise ValueError(f"{self.left} bytes follow {what}")
