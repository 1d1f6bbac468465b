"""Fetches and keeps what vendors publish about their hardware (docs/spec/endorsements.md).

`complete` puts endorsements beside evidence: a server staples them with it, and a client that insists on its own uses
it on what a server stapled. Nothing here decides about trust. Leaves out: what endorsements must say (attestation/).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blindai.attestation.tee import azure_vtpm, nvidia_gpu, sev_snp, sgx, tdx, tpm
from blindai.endorsements.amd import amd_endorsements
from blindai.endorsements.intel import intel_endorsements
from blindai.endorsements.nvidia import nvidia_endorsements
from blindai.endorsements.vendor_crls import tpm_endorsements

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blindai.attestation.evidence import EvidenceItem
    from blindai.endorsements.documents import Source

    Fetcher = Callable[[EvidenceItem, Source, float], Mapping[str, bytes]]

# What each TEE's evidence needs from its vendor. The others carry everything with them: a Nitro document its chain,
# simulated evidence its root.
FETCHERS: dict[str, Fetcher] = {
    sev_snp.TEE: amd_endorsements,
    sgx.TEE: intel_endorsements,
    tdx.TEE: intel_endorsements,
    nvidia_gpu.TEE: nvidia_endorsements,
    tpm.TEE: tpm_endorsements,
    azure_vtpm.TEE: tpm_endorsements,
}


def complete(item: EvidenceItem, source: Source, *, now: float) -> EvidenceItem:
    """The item with the source's endorsements in place of those that came with it; kept is what no service has.

    Args:
        item: evidence as it came, with any endorsements or none.
        source: `Services`, a `Cache` before them, a `Bundle`, or another.
        now: Unix seconds; says which documents have ended.

    Raises:
        EndorsementsUnavailableError: the source lacks one, or cannot be reached.
        MalformedEvidenceError: the evidence does not say what it needs.
    """
    fetcher = FETCHERS.get(item.tee)
    if fetcher is None:
        return item
    return replace(item, endorsements=tuple(sorted(fetcher(item, source, now).items())))
