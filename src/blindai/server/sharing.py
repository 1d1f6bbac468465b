"""Who else may run a tenant's models, and who may see that they exist; decided by their owner, at any time.

By name, so a new version needs no new decision; forgotten with the name's last version, so that another model under the
same name is not shared by accident. Kept as long as the models themselves, and changed with them (model_store.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

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


class Sharing:
    """Every owner's decisions at one moment; nothing changes it."""

    def __init__(self, decided: Iterable[tuple[str, str, Share]] = ()) -> None:
        self._shares = {(owner, name): share for owner, name, share in decided}

    def of(self, owner: str, name: str) -> Share:
        """The decision about a name; shared with nobody unless there is one."""
        return self._shares.get((owner, name), NOT_SHARED)

    def visible_to(self, tenant: str) -> tuple[tuple[str, str], ...]:
        """Owner and name of everything that other owners show to a tenant."""
        return tuple(key for key, share in self._shares.items() if key[0] != tenant and share.shows(tenant))

    def decisions(self) -> Decisions:
        """All of them, in the order in which they were made."""
        return tuple((*key, share) for key, share in self._shares.items())

    def with_decision(self, owner: str, name: str, share: Share) -> Sharing:
        """The same, but for one name."""
        others = tuple(one for one in self.decisions() if one[:2] != (owner, name))
        return Sharing(others if share == NOT_SHARED else (*others, (owner, name, share)))

    def without(self, owner: str, names: Container[str]) -> Sharing:
        """The same, but that these names of an owner are gone."""
        return Sharing(one for one in self.decisions() if one[0] != owner or one[1] not in names)
