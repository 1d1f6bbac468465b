"""How much memory the bodies of all requests may take at a time: many small users, or few large ones.

A body is counted as it arrives, so a length that is only claimed costs nobody anything.
Leaves out: uploads, which stream to disk, and what a model's process uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from blindai.errors import OverloadedError, TooLargeError


@dataclass(slots=True, kw_only=True)
class BodyBudget:
    """Shared by all requests of a server; belongs to one event loop.

    Attributes:
        max_bytes: held at a time.
        held_bytes: now.
    """

    max_bytes: int
    held_bytes: int = 0

    def share(self) -> Share:
        """One request's share; a `with` block gives all of it back at its end."""
        return Share(self)


class Share:
    """What one request holds."""

    __slots__ = ("budget", "held_bytes")

    def __init__(self, budget: BodyBudget) -> None:
        self.budget = budget
        self.held_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.budget.held_bytes -= self.held_bytes

    def take(self, size: int) -> None:
        """Hold more.

        Raises:
            TooLargeError: no more than this request would pass the whole budget.
            OverloadedError: with those of others it passes the budget.
        """
        budget = self.budget
        if self.held_bytes + size > budget.max_bytes:
            raise TooLargeError(
                "the request takes more memory than this server gives to all", hint="Send tensors in binary form."
            )
        if budget.held_bytes + size > budget.max_bytes:
            raise OverloadedError("the requests of others fill the memory for bodies", hint="Try again in a second.")
        self.held_bytes += size
        budget.held_bytes += size
