"""How much memory the bodies of all requests may take at a time: many small users, or few large ones.

A body is counted as it arrives, so a length that is only claimed costs nobody anything.
Leaves out: uploads, which stream to disk, and what a model's process uses.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.errors import OverloadedError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True, kw_only=True)
class BodyBudget:
    """Shared by all requests of a server; belongs to one event loop.

    Attributes:
        max_bytes: held at a time.
        held_bytes: now.
    """

    max_bytes: int
    held_bytes: int = 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """One request's share; all of it comes back at the end."""
        share = Share(budget=self)
        try:
            yield share
        finally:
            self.held_bytes -= share.held_bytes


@dataclass(slots=True, kw_only=True)
class Share:
    """What one request holds."""

    budget: BodyBudget
    held_bytes: int = 0

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
