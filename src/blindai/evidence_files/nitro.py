"""A Nitro attestation document as published: one file, `attestation_document.cose`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.evidence import EvidenceItem

if TYPE_CHECKING:
    from pathlib import Path


def read_folder(folder: Path, *, collateral: Path | None = None) -> tuple[EvidenceItem, ...]:  # noqa: ARG001  # its certificates stand in the document
    """The one item in a folder.

    Raises:
        OSError: the file cannot be read.
    """
    return (EvidenceItem(tee="nitro", evidence=(folder / "attestation_document.cose").read_bytes(), endorsements=()),)
