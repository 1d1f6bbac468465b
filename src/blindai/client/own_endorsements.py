"""Where a client that insists on its own endorsements has them from, and the step that puts them in place.

A server could staple an older revocation list while that is still valid. Who insists fetches the vendor's documents, or
reads them from bundles, and puts them where the stapled ones were, before anything is judged; without them nothing is.
Leaves out: who publishes what (endorsements/), and what it must say (attestation/).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blindai.endorsements import complete
from blindai.endorsements.bundle import FirstOf, open_bundles
from blindai.endorsements.cache import Cache
from blindai.endorsements.memory import Memory
from blindai.endorsements.services import Endpoints, Services
from blindai.errors import EndorsementsUnavailableError, InvalidInputError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from blindai.attestation.evidence import AttestationDocument, EvidenceItem
    from blindai.endorsements.documents import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """Your own source of vendors' certificates, revocation lists and collateral: bundles first, then the network.

    Attributes:
        bundles: a bundle, or a folder of bundles (`blindai verify-evidence … --fetch --save-endorsements FILE`).
        fetch: whether the vendors' services are asked for what no bundle has.
        cache: with `fetch`: a folder that keeps documents until they end; without it, memory does.
        amd_kds: with `fetch`: the address of a mirror of AMD's KDS.
        intel_pcs: with `fetch`: the address of a PCCS.
        intel_ca_file: with `fetch`: PEM of the authority of a PCCS with a certificate of its own.
        nvidia_ocsp: with `fetch`: the address of a mirror of NVIDIA's OCSP service.
        nvidia_rim: with `fetch`: the address of a mirror of NVIDIA's RIM service.
        vendor_crl: with `fetch`: the address of a mirror of the lists that a TPM's certificates name.
    """

    bundles: str | os.PathLike[str] | None = None
    fetch: bool = False
    cache: str | os.PathLike[str] | None = None
    amd_kds: str | None = None
    intel_pcs: str | None = None
    intel_ca_file: str | None = None
    nvidia_ocsp: str | None = None
    nvidia_rim: str | None = None
    vendor_crl: str | None = None

    def open(self) -> Source:
        """The source that this describes; bundles are read now, and nothing is fetched yet.

        Raises:
            InvalidInputError: it names no source, says how to fetch without `fetch`, or has an address that is none.
            EndorsementsUnavailableError: a bundle cannot be read.
        """
        return Memory(behind=FirstOf(sources=tuple(self._sources())))

    def _sources(self) -> Iterator[Source]:
        if self.bundles is None and not self.fetch:
            raise InvalidInputError("endorsements of your own come from bundles, or by fetch, or both")
        if self.bundles is not None:
            yield _read_bundles(Path(self.bundles))
        addresses = self._addresses()
        if self.fetch:
            services = Services(endpoints=_endpoints(addresses))
            yield services if self.cache is None else Cache(folder=Path(self.cache), behind=services)
        elif addresses or self.cache is not None:
            raise InvalidInputError("a cache and the addresses of services say how to fetch, and need fetch=True")

    def _addresses(self) -> dict[str, str]:
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(Endpoints)}
        return {name: address for name, address in named.items() if address is not None}


def _read_bundles(path: Path) -> Source:
    try:
        return open_bundles(path)
    except OSError as error:
        raise EndorsementsUnavailableError(
            f"{path} cannot be read: {error.strerror}",
            hint="make a bundle with `blindai verify-evidence … --fetch --save-endorsements FILE`",
        ) from None


def _endpoints(addresses: dict[str, str]) -> Endpoints:
    try:
        return Endpoints(**addresses)
    except ValueError as error:
        raise InvalidInputError(str(error)) from None


def with_own(document: AttestationDocument, source: Source, *, now: float) -> AttestationDocument:
    """The document with the source's endorsements in place of the stapled ones; blocks while they are fetched.

    Raises:
        EndorsementsUnavailableError: one cannot be had; the stapled ones are never taken instead.
        MalformedEvidenceError: the evidence does not say what it needs.
    """
    return dataclasses.replace(document, evidence=tuple(_own(item, source, now) for item in document.evidence))


def _own(item: EvidenceItem, source: Source, now: float) -> EvidenceItem:
    try:
        return complete(item, source, now=now)
    except EndorsementsUnavailableError as error:
        words = f"your own endorsements for the {item.tee} evidence cannot be had: {error}"
        instead = "leave out `endorsements` (--fetch, --endorsements) to judge by what the server staples"
        hint = "; ".join(filter(None, (error.hint, instead)))
        raise EndorsementsUnavailableError(words, hint=hint) from None
