"""From `--endorsements`, `--fetch` and what goes with them to a source of endorsements, and back into a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from blindai.client.own_endorsements import Endorsements
from blindai.endorsements import complete
from blindai.endorsements.bundle import Recorder, encode_bundle
from blindai.endorsements.cache import write_private
from blindai.endorsements.documents import Service
from blindai.endorsements.services import Endpoints

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    own = own_endorsements(bundles=bundles, fetch=fetch, pccs=pccs, kds=kds, cache=cache)
    if own is None and save:
        raise typer.BadParameter("--save-endorsements needs --fetch or --endorsements")
    source = None if own is None else own.open()
    recorder = Recorder(behind=source) if source and save else None
    return Endorsing(source=source, recorder=recorder, save_to=save, now=now)


def own_endorsements(
    *, bundles: Path | None, fetch: bool, pccs: str | None, kds: str | None, cache: Path | None
) -> Endorsements | None:
    """What the options say about where endorsements come from; None if nothing.

    Raises:
        BadParameter: options that do nothing, or an address that is none.
    """
    if not fetch and (pccs or kds or cache):
        raise typer.BadParameter("--pccs, --kds and --cache say how to fetch, and need --fetch")
    for option, service, url in (("--pccs", Service.INTEL_PCS, pccs), ("--kds", Service.AMD_KDS, kds)):
        if url is not None:
            _require_address(option, service, url)
    if bundles is None and not fetch:
        return None
    return Endorsements(bundles=bundles, fetch=fetch, cache=cache, amd_kds=kds, intel_pcs=pccs)


def _require_address(option: str, service: Service, url: str) -> None:
    try:
        Endpoints(**{service.value: url})
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
