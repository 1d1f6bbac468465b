"""From `--endorsements`, `--fetch` and what goes with them to a source of endorsements, and back into a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from blindai.endorsements import complete
from blindai.endorsements.bundle import FirstOf, Recorder, encode_bundle, open_bundles
from blindai.endorsements.cache import Cache, write_private
from blindai.endorsements.services import Endpoints, Services

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from blindai.attestation.evidence import EvidenceItem
    from blindai.endorsements.documents import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsing:
    """What is put beside evidence, and what was used for it.

    Attributes:
        source: None leaves evidence as it came.
        save_to: where the bundle goes, or nowhere.
    """

    source: Source | None
    recorder: Recorder | None = field(repr=False)
    save_to: Path | None
    now: float

    def complete(self, items: Sequence[EvidenceItem]) -> tuple[EvidenceItem, ...]:
        """The items with the source's endorsements in place of those that came with them.

        Raises:
            EndorsementsUnavailableError: the source lacks one.
        """
        source = self.recorder or self.source
        if source is None:
            return tuple(items)
        return tuple(complete(item, source, now=self.now) for item in items)

    def save(self) -> None:
        """Write the bundle, if one was asked for."""
        if self.save_to is not None and self.recorder is not None:
            write_private(self.save_to, encode_bundle(self.recorder.answers))


def endorsing(
    *,
    bundles: Path | None,
    fetch: bool,
    pccs: str | None,
    kds: str | None,
    cache: Path | None,
    save: Path | None,
    now: float,
) -> Endorsing:
    """What the options say: bundles first, then the network if that was asked for.

    Raises:
        BadParameter: options that do nothing.
        EndorsementsUnavailableError: a bundle cannot be read.
    """
    if not fetch and (pccs or kds or cache):
        raise typer.BadParameter("--pccs, --kds and --cache say how to fetch, and need --fetch")
    sources = tuple(_sources(bundles=bundles, fetch=fetch, pccs=pccs, kds=kds, cache=cache))
    if not sources and save:
        raise typer.BadParameter("--save-endorsements needs --fetch or --endorsements")
    source = FirstOf(sources=sources) if sources else None
    recorder = Recorder(behind=source) if source and save else None
    return Endorsing(source=source, recorder=recorder, save_to=save, now=now)


def _sources(
    *, bundles: Path | None, fetch: bool, pccs: str | None, kds: str | None, cache: Path | None
) -> Iterator[Source]:
    if bundles is not None:
        yield open_bundles(bundles)
    if fetch:
        services = Services(endpoints=_endpoints(pccs=pccs, kds=kds))
        yield Cache(folder=cache, behind=services) if cache else services


def _endpoints(*, pccs: str | None, kds: str | None) -> Endpoints:
    named = {"intel_pcs": pccs, "amd_kds": kds}
    try:
        return Endpoints(**{name: url for name, url in named.items() if url is not None})
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
