"""Who else may run a tenant's models, and who may see that they exist; decided by their owner, at any time.

By name, so a new version needs no new decision; forgotten with the name's last version, so that another model under the
same name is not shared by accident. In memory, as the models themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

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


class Sharing:
    """Every owner's decisions; used from the event loop only."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str], Share] = {}

    def of(self, owner: str, name: str) -> Share:
        """The decision about a name; shared with nobody unless there is one."""
        return self._shares.get((owner, name), NOT_SHARED)

    def decide(self, owner: str, name: str, share: Share) -> None:
        """Set it; effective for the next request."""
        if share == NOT_SHARED:
            self._shares.pop((owner, name), None)
        else:
            self._shares[owner, name] = share

    def forget(self, owner: str, name: str) -> None:
        """The name is gone."""
        self._shares.pop((owner, name), None)

    def visible_to(self, tenant: str) -> tuple[tuple[str, str], ...]:
        """Owner and name of everything that other owners show to a tenant."""
        return tuple(key for key, share in self._shares.items() if key[0] != tenant and share.shows(tenant))
