"""Documents in memory, kept for a day, and never past the issuer's next update (docs/spec/endorsements.md §4).

For whoever asks again and again while one process runs: a client that attests anew every few minutes, a server that
staples. Leaves out: what outlives the process (cache.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blindai.endorsements.documents import Document, Resource, Source

MAX_KEPT_DOCUMENTS = 256
MAX_AGE_S = 24 * 3600.0  # some lists hold for a year, and a process may live as long


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A source that remembers what another one answered; threads may share it."""

    behind: Source
    _kept: dict[Resource, tuple[Document, float]] = field(default_factory=dict, repr=False)

    def get(self, resource: Resource, *, now: float) -> Document:
        """From memory while it is fresh, else from behind; raises as that does."""
        document, until = self._kept.get(resource, (None, 0.0))
        if document is not None and now < until:
            return document
        document = self.behind.get(resource, now=now)
        if len(self._kept) >= MAX_KEPT_DOCUMENTS:  # evidence says what is asked for, and so could ask for ever more
            self._kept.clear()
        self._kept[resource] = document, min(document.expires_at, now + MAX_AGE_S)
        return document
