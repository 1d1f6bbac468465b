"""Reads TDX evidence from a folder: `quote.bin`, and beside it a file of Intel's collateral and an event log.

Leaves out: the judgement (attestation/tee/tdx.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee.tdx import CCEL, TEE
from blindai.evidence_files.intel_collateral_file import read_collateral

if TYPE_CHECKING:
    from pathlib import Path

QUOTE = "quote.bin"
EVENT_LOG = "ccel_data.dat"


def read_folder(folder: Path, *, collateral: Path | None = None) -> tuple[EvidenceItem, ...]:
    """The quote of a folder.

    Args:
        folder: holds `quote.bin`, and perhaps `ccel_data.dat`.
        collateral: one file of collateral; if none is given, the folder's only `collateral*.json`, if it has just one.

    Raises:
        MalformedEvidenceError: the collateral is not such a file.
        OSError: a file cannot be read.
    """
    files = [collateral] if collateral else sorted(folder.glob("collateral*.json"))
    endorsements = read_collateral(files[0], tee=TEE) if len(files) == 1 else ()
    log = folder / EVENT_LOG
    if log.is_file():
        endorsements = (*endorsements, (CCEL, log.read_bytes()))
    return (EvidenceItem(tee=TEE, evidence=(folder / QUOTE).read_bytes(), endorsements=endorsements),)
