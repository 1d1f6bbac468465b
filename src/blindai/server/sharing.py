"""Who else may run a tenant's models, and who may see that they exist; decided by their owner, at any time.

By name, so a new version needs no new decision; forgotten with the name's last version, so that another model under the
same name is not shared by accident. Kept as long as the models themselves (model_store.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Decisions = tuple[tuple[str, str, "Share"], ...]

EVERYBODY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """With whom a name is shared: tenants, or `*` for everybody.

    Attributes:
        run: may run it (and read its metadata, without which nobody can).
        visible: find it in their list of models.
    """

    run: frozenset[str] = frozenset()
    visible: frozenset[str] = frozenset()

    def lets_run(self, tenant: str) -> bool:
        """Whether a guest may run it."""
        return not self.run.isdisjoint({tenant, EVERYBODY})

    def shows(self, tenant: str) -> bool:
        """Whether a guest sees it."""
        return not self.visible.isdisjoint({tenant, EVERYBODY})


NOT_SHARED = Share()


def _keep_nothing(_decisions: Decisions) -> None:
    """Where models end with the server, so do decisions about them."""


class Sharing:
    """Every owner's decisions; used from the event loop only.

    Args:
        decided: owner, name and decision, of before.
        keep: is given all of them before a new one counts; if it raises, nothing has changed.
    """

    def __init__(
        self, decided: Iterable[tuple[str, str, Share]] = (), keep: Callable[[Decisions], None] = _keep_nothing
    ) -> None:
        self._shares = {(owner, name): share for owner, name, share in decided}
        self._keep = keep

    def of(self, owner: str, name: str) -> Share:
        """The decision about a name; shared with nobody unless there is one."""
        return self._shares.get((owner, name), NOT_SHARED)

    def decide(self, owner: str, name: str, share: Share) -> None:
        """Set it; effective for the next request.

        Raises:
            ModelStoreError: it cannot be kept, and does not count.
        """
        changed = {key: of for key, of in self._shares.items() if key != (owner, name)}
        if share != NOT_SHARED:
            changed[owner, name] = share
        if changed != self._shares:
            self._keep(tuple((*key, of) for key, of in changed.items()))
            self._shares = changed

    def forget(self, owner: str, name: str) -> None:
        """The name is gone."""
        self.decide(owner, name, NOT_SHARED)

    def visible_to(self, tenant: str) -> tuple[tuple[str, str], ...]:
        """Owner and name of everything that other owners show to a tenant."""
        return tuple(key for key, share in self._shares.items() if key[0] != tenant and share.shows(tenant))
