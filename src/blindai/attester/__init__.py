"""Evidence, made in the guest: one file per TEE, each the mirror of `attestation/tee/` (docs/spec/evidence.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from blindai.attestation.evidence import EvidenceItem


class Attester(Protocol):
    """What makes evidence on this machine."""

    @property
    def tee(self) -> str:
        """The TEE's name, as in `EvidenceItem.tee`."""

    def attest(self, bound: bytes) -> EvidenceItem:
        """Evidence that carries `bound` (`binding.report_data`, 64 bytes), with its endorsements; may block."""
