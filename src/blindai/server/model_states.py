"""Which stored models are served, and how far a load has come (Triton, model repository extension).

A stored model is ready unless somebody unloaded it: its process starts on first need.
Known by its place in the order of uploads, which no other model ever gets: uploaded again, it is ready again.
Leaves out: the processes themselves (`worker_pool`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.server.catalogue import StoredModel

READY = "READY"
LOADING = "LOADING"
UNAVAILABLE = "UNAVAILABLE"
UNLOADED = "unloaded"


@dataclass(slots=True, kw_only=True)
class ModelStates:
    """The models that are not simply ready; belongs to one event loop.

    Attributes:
        unloaded: places in the order of uploads.
        loading: likewise, while they load.
    """

    unloaded: set[int] = field(default_factory=set)
    loading: set[int] = field(default_factory=set)

    def is_served(self, model: StoredModel) -> bool:
        """Whether requests may run it."""
        return model.sequence not in self.unloaded

    def of(self, model: StoredModel) -> tuple[str, str]:
        """State and reason, in Triton's words."""
        if model.sequence in self.loading:
            return LOADING, ""
        return (READY, "") if self.is_served(model) else (UNAVAILABLE, UNLOADED)

    @contextlib.contextmanager
    def load(self, model: StoredModel) -> Iterator[None]:
        """While a model loads; it is served afterwards, and stays what it was if that fails."""
        waiting = not self.is_served(model)
        if waiting:
            self.loading.add(model.sequence)
        try:
            yield
            self.unloaded.discard(model.sequence)
        finally:
            self.loading.discard(model.sequence)

    def unload(self, model: StoredModel) -> None:
        """Serve it no longer."""
        self.unloaded.add(model.sequence)

    def forget(self, model: StoredModel) -> None:
        """It was deleted."""
        self.unloaded.discard(model.sequence)
