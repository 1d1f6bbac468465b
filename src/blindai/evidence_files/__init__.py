"""Reads evidence from files as vendors and others publish them, for people who judge evidence without a server.

One module per TEE: `read_folder(folder, collateral=…)` gives the items of evidence with their endorsements.
Here: which of them a folder is for, told by its files, and what a single file is, told by its first bytes; never by a
name that somebody gave it. Leaves out: the judgement (attestation/), and fetching what is missing (endorsements/).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from blindai.attestation.evidence import (
    MAX_DOCUMENT_BYTES,
    AttestationDocument,
    EvidenceItem,
    parse_document,
    parse_document_members,
)
from blindai.attestation.tee import simulation
from blindai.errors import MalformedEvidenceError
from blindai.evidence_files import azure_vtpm, nitro, nvidia_gpu, sev_snp, sgx, tdx, tpm
from blindai.wire import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE_BYTES = 4 * MAX_DOCUMENT_BYTES

# SEV-SNP ABI (AMD 56860) §7.3 table "ATTESTATION_REPORT": versions 2 to 5, all of 1184 bytes.
_SNP_BYTES, _SNP_VERSIONS = 1184, range(2, 6)
# Intel DCAP quote header: u16 version, u16 attestation key type, then for version 4 and up u32 TEE type.
_QUOTE_HEADER_BYTES = 48
_SGX_QUOTE, _QUOTE_VERSIONS, _ECDSA_P256 = 3, range(3, 6), 2
_TEE_TYPES = {0x00: "sgx", 0x81: "tdx"}
# RFC 8949 and 9052: an array of four whose first member is a map of one in a byte string, tagged 18 or not.
_COSE_SIGN1 = (b"\x84\x44\xa1\x01\x38\x22", b"\xd2\x84\x44\xa1\x01\x38\x22")
# What needs more than one file, and how it begins.
_PARTS = {
    b"HCLA": "an Azure HCL report, which is judged together with the vTPM's quote",
    b"\xffTCG": "a TPM quote, which is judged together with its signature and key",
    b"\x11\xe0": "an NVIDIA report, which is judged together with its certificates",
}


class Reader(Protocol):
    """How a TEE's module reads a folder."""

    def __call__(self, folder: Path, *, collateral: Path | None = None) -> tuple[EvidenceItem, ...]:
        """The items of evidence in the folder, with their endorsements."""


_QUOTE_READERS: dict[str | None, Reader] = {"sgx": sgx.read_folder, "tdx": tdx.read_folder}


def _read_quote(folder: Path, *, collateral: Path | None = None) -> tuple[EvidenceItem, ...]:
    """SGX and TDX share a name; the quote says which it is."""
    tee = _quote_tee((folder / sgx.QUOTE).read_bytes())
    return _QUOTE_READERS.get(tee, tdx.read_folder)(folder, collateral=collateral)


# A file that every folder of a TEE has, as a pattern, and who reads such folders.
READERS: tuple[tuple[str, Reader], ...] = (
    ("hcl_report.bin", azure_vtpm.read_folder),
    ("report.bin", sev_snp.read_folder),
    (sgx.QUOTE, _read_quote),
    ("*_report.bin", nvidia_gpu.read_folder),
    ("attestation_document.cose", nitro.read_folder),
    ("quote*.msg", tpm.read_folder),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Evidence that was found in files.

    Attributes:
        name: of the file or folder.
        document: the attestation document that it came in, which says what it is about; None if it came bare.
    """

    name: str
    items: tuple[EvidenceItem, ...]
    document: AttestationDocument | None = None


def read_sample(path: Path, *, now: float, collateral: Path | None = None) -> Sample:
    """What a file, or a folder of one sample, holds.

    Args:
        path: raw evidence, our JSON (an attestation document or a proof), or a folder with a TEE's files.
        now: Unix seconds; of several files of Intel's collateral in a folder, the newest of that time is taken.
        collateral: a folder of the vendor's certificates, or Intel's collateral as a file, for folders without them.

    Raises:
        MalformedEvidenceError: none of these.
        OSError: it cannot be read.
    """
    if path.is_dir():
        reader = _reader_of(path)
        if reader is None:
            raise _unknown(path.name, "a folder with none of the files that evidence of a TEE is published in")
        return Sample(name=path.name, items=reader(path, collateral=collateral or _newest_collateral(path, now)))
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise _unknown(path.name, f"more than {MAX_FILE_BYTES} bytes")
    if data.lstrip()[:1] == b"{":
        document = _document(data)
        return Sample(name=path.name, items=document.evidence, document=document)
    return Sample(name=path.name, items=(EvidenceItem(tee=_tee_of(path.name, data), evidence=data, endorsements=()),))


def sample_folders(path: Path) -> Iterator[Path]:
    """The folders at or below `path` that hold one sample each, in the order of their names."""
    if _reader_of(path) is not None:
        yield path
        return
    for below in sorted(path.iterdir()):
        if below.is_dir() and not below.is_symlink():
            yield from sample_folders(below)


def folders_without_sample(path: Path) -> Iterator[Path]:
    """The folders at or below `path` that hold files, and no sample there or deeper."""
    if _reader_of(path) is not None:
        return
    below = [one for one in sorted(path.iterdir()) if one.is_dir() and not one.is_symlink()]
    if any(one.is_file() for one in path.iterdir()) and not any(sample_folders(path)):
        yield path
        return
    for one in below:
        yield from folders_without_sample(one)


def _reader_of(folder: Path) -> Reader | None:
    return next((reader for mark, reader in READERS if any(folder.glob(mark))), None)


def _newest_collateral(folder: Path, now: float) -> Path | None:
    """Of several, the one issued last before `now`; one alone is found by the reader itself."""
    files = sorted(folder.glob("collateral*.json"))
    if len(files) <= 1:
        return None
    issued = {path: _issued(path) for path in files}
    return max(files, key=lambda path: (issued[path] <= now, issued[path] if issued[path] <= now else -issued[path]))


def _issued(path: Path) -> float:
    """When its TCB info was issued, if that can be told; what it is worth is judged later."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    try:
        tcb_info = strict_json(strict_json(data, max_bytes=MAX_FILE_BYTES)["tcb_info"].encode(), max_bytes=len(data))
        return datetime.fromisoformat(tcb_info["issueDate"]).timestamp()
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0.0


def _document(data: bytes) -> AttestationDocument:
    """A bare attestation document, or the one inside a proof."""
    try:
        members = strict_json(data, max_bytes=MAX_FILE_BYTES)
    except ValueError as error:
        raise MalformedEvidenceError(f"not strict JSON: {error}", finding_code="evidence.document") from None
    return parse_document_members(members["attestation"]) if "attestation" in members else parse_document(data)


def _tee_of(name: str, data: bytes) -> str:
    if data.startswith(simulation.MAGIC):
        return simulation.TEE
    if data.startswith(_COSE_SIGN1):
        return "nitro"
    if len(data) == _SNP_BYTES and int.from_bytes(data[:4], "little") in _SNP_VERSIONS:
        return "sev_snp"
    if tee := _quote_tee(data):
        return tee
    part = next((what for magic, what in _PARTS.items() if data.startswith(magic)), None)
    raise _unknown(name, f"{part}: give the folder" if part else f"{len(data)} bytes that begin as none of these")


def _quote_tee(data: bytes) -> str | None:
    version, key_type = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
    if len(data) <= _QUOTE_HEADER_BYTES or version not in _QUOTE_VERSIONS or key_type != _ECDSA_P256:
        return None
    return "sgx" if version == _SGX_QUOTE else _TEE_TYPES.get(int.from_bytes(data[4:8], "little"))


def _unknown(name: str, found: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(
        f"{name}: expected a SEV-SNP report, a TDX or SGX quote, a Nitro document, simulated evidence, "
        f"an attestation document or a proof in JSON, or a folder of a TEE's files; found {found}",
        finding_code="evidence.document",
        hint="give the bytes as the vendor's tool wrote them, not as text; or a folder with the files that "
        "docs/spec/tee names for the TEE",
    )
