"""Documents in memory, kept until the issuer's next update and not longer (docs/spec/endorsements.md §4).

For whoever asks again and again while one process runs: a client that attests anew every few minutes, a server that
staples. Leaves out: what outlives the process (cache.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blindai.endorsements.documents import Document, Resource, Source

MAX_KEPT_DOCUMENTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A source that remembers what another one answered; threads may share it."""

    behind: Source
    _kept: dict[Resource, Document] = field(default_factory=dict, repr=False)

    def get(self, resource: Resource, *, now: float) -> Document:
        """From memory while it holds, else from behind; raises as that does."""
        kept = self._kept.get(resource)
        if kept is not None and now < kept.expires_at:
            return kept
        document = self.behind.get(resource, now=now)
        if len(self._kept) >= MAX_KEPT_DOCUMENTS:  # evidence says what is asked for, and so could ask for ever more
            self._kept.clear()
        self._kept[resource] = document
        return document
