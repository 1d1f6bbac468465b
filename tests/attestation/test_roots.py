"""Pinned roots that are a choice among others: who may vouch for what, also where no real evidence is at hand."""

from __future__ import annotations

from blindai.attestation.roots import AZURE_VTPM_ROOTS, TPM_ROOTS


def test_an_azure_vtpm_is_vouched_for_by_microsoft_alone() -> None:
    assert [root.name for root in AZURE_VTPM_ROOTS] == ["microsoft"]
    assert len(TPM_ROOTS) > 1
    assert set(AZURE_VTPM_ROOTS) < set(TPM_ROOTS)
