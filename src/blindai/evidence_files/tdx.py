"""Reads TDX evidence from a folder: `quote.bin`, and beside it a file of Intel's collateral.

Leaves out: the judgement (attestation/tee/tdx.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee.tdx import TEE
from blindai.evidence_files.intel_collateral_file import read_collateral

if TYPE_CHECKING:
    from pathlib import Path

QUOTE = "quote.bin"


def read_folder(folder: Path, *, collateral: Path | None = None) -> tuple[EvidenceItem, ...]:
    """The quote of a folder.

    Args:
        folder: holds `quote.bin`.
        collateral: one file of collateral; if none is given, the folder's only `collateral*.json`, if it has just one.

    Raises:
        MalformedEvidenceError: the collateral is not such a file.
        OSError: a file cannot be read.
    """
    files = [collateral] if collateral else sorted(folder.glob("collateral*.json"))
    endorsements = read_collateral(files[0], tee=TEE) if len(files) == 1 else ()
    return (EvidenceItem(tee=TEE, evidence=(folder / QUOTE).read_bytes(), endorsements=endorsements),)
