"""Staples vendors' documents of today to this machine's evidence, and renews them before they end.

Nobody waits for a vendor: evidence goes out with what is held, or as its attester made it, and no key depends on that,
since endorsements are not signed by the machine (docs/spec/endorsements.md §6). A vendor that cannot be reached is
asked again later and later, and what it said last goes on being stapled: whether that will do, each client's policy
says. Leaves out: where the documents come from (endorsements/), and what clients make of them (attestation/).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.endorsements import complete
from blindai.endorsements.services import MissingDocumentError
from blindai.errors import EndorsementsUnavailableError, RejectedEvidenceError
from blindai.server.log import LOG

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from blindai.attestation.evidence import EvidenceItem
    from blindai.endorsements.documents import Document, Resource, Source

LOOK_EVERY_S = 10.0
MIN_AGE_S, MAX_AGE_S = 60.0, 24 * 3600.0  # between them, a document is renewed when half of its time is over
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    document: Document
    renew_s: float


@dataclass(slots=True, kw_only=True)
class Stapler:
    """The documents that go with this machine's evidence.

    Attributes:
        source: asks the endpoints that the operator's configuration names, and no others.
        wall: Unix seconds.
        sleep: waits for so many seconds.
        latest: evidence of this machine, which says what is needed; the one made last.
        generation: counts the changes; whoever keeps stapled evidence looks whether it is still this one.
    """

    source: Source
    wall: Callable[[], float]
    latest: EvidenceItem
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    generation: int = 0
    _held: Mapping[Resource, _Held] = field(default_factory=dict, repr=False)
    _lacks: bool = True

    def staple(self, item: EvidenceItem) -> EvidenceItem:
        """The item with the documents that are held, or as it is if one is lacking; asks nobody, and never fails."""
        self.latest = item
        shelf = _Shelf(held=self._held)
        try:
            return complete(item, shelf, now=self.wall())
        except (EndorsementsUnavailableError, RejectedEvidenceError):
            self._lacks = True  # a new TCB after a firmware update, say
            return item

    async def keep_fresh(self) -> None:
        """Renew for ever; a failure is told in the log, and tried again after a wait that doubles each time."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                if self._lacks or any(self.wall() >= held.renew_s for held in self._held.values()):
                    await asyncio.to_thread(self.renew)
            except Exception as error:  # noqa: BLE001  # whatever it was, the next renewal must still come
                words = str(error) if isinstance(error, EndorsementsUnavailableError) else type(error).__name__
                LOG.warning("endorsements were not renewed, and are tried again in %.0f s: %s", backoff_s, words)
                await self.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
            else:
                backoff_s = FIRST_BACKOFF_S
                await self.sleep(LOOK_EVERY_S)

    def renew(self) -> None:
        """Ask for what is lacking or old; blocks. What came is held even if something else did not come.

        Raises:
            EndorsementsUnavailableError: a document that is due could not be had.
            MalformedEvidenceError: the evidence does not say what it needs.
        """
        renewal = _Renewal(source=self.source, held=self._held, now=self.wall())
        self._lacks = False
        try:
            complete(self.latest, renewal, now=renewal.now)
            self._hold(renewal.used)  # and nothing that is no longer asked for
        except BaseException:
            self._lacks = True
            self._hold({**self._held, **renewal.used})
            raise
        if renewal.failure is not None:
            raise renewal.failure

    def _hold(self, held: Mapping[Resource, _Held]) -> None:
        before = {resource: one.document for resource, one in self._held.items()}
        self._held = held
        if before != {resource: one.document for resource, one in held.items()}:
            self.generation += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shelf:
    """The source of what is held, however old."""

    held: Mapping[Resource, _Held]

    def get(self, resource: Resource, *, now: float) -> Document:  # noqa: ARG002  # a source's signature
        found = self.held.get(resource)
        if found is None:
            raise MissingDocumentError(f"{resource.service.value}{resource.path} is not held")
        return found.document


@dataclass(slots=True, kw_only=True)
class _Renewal:
    """The source of one renewal: what is held and not due, else what the vendor says now, else what is held.

    Attributes:
        used: what was given, which is what the evidence needs.
        failure: why a document that is due is still the old one.
    """

    source: Source
    held: Mapping[Resource, _Held]
    now: float
    used: dict[Resource, _Held] = field(default_factory=dict)
    failure: EndorsementsUnavailableError | None = None

    def get(self, resource: Resource, *, now: float) -> Document:
        found = self.held.get(resource)
        if found is None or now >= found.renew_s:
            found = self._asked(resource, found)
        self.used[resource] = found
        return found.document

    def _asked(self, resource: Resource, old: _Held | None) -> _Held:
        try:
            document = self.source.get(resource, now=self.now)
        except EndorsementsUnavailableError as error:
            if old is None:
                raise
            self.failure = error
            return old
        age_s = min(max((document.expires_at - self.now) / 2, MIN_AGE_S), MAX_AGE_S)
        return _Held(document=document, renew_s=self.now + age_s)
