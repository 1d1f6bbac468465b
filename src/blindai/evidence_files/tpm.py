"""Reads a TPM's quote with all that belongs to it from a folder (docs/spec/tee/tpm.md §8).

Files are recognised by the beginnings and ends of their names, as users of tpm2-tools and test collections write them:
`quote*.msg` with `quote*.sig` or `quote*.tpmt_signature`, `ak*.tpmt_public`, `pcrs*.bin` or `pcrs*.json`,
`eventlog.bin`, `ak_cert*.der`, `ekcert*.der` and `ek*.pub`. What tells two quotes apart in the names, such as `_rsa` or
`_sha256`, must be equal; a file without it belongs to every quote. Issuers' certificates and revocation lists are
found by the names inside them, here or in the collateral's folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blindai.attestation.evidence import EvidenceItem
from blindai.attestation.tee.tpm import TEE, TpmEvidence, encode
from blindai.attestation.tpm2.attestation_key import ENDORSEMENT, HIERARCHIES, qualified_name
from blindai.attestation.tpm2.certificates import MAX_INTERMEDIATES
from blindai.attestation.tpm2.keys import parse_public, parsing_tpm
from blindai.attestation.tpm2.quote import parse_quote
from blindai.attestation.x509_chain import UNREADABLE, require_readable
from blindai.errors import MalformedEvidenceError
from blindai.wire import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SUFFIXES = {".pem", ".der", ".crt", ".cer", ".crl"}
_PEM = b"-----BEGIN"
_SIZE_BYTES = 2  # a TPM2B_PUBLIC has its size before the TPMT_PUBLIC
_MAX_JSON_BYTES = 1 << 16
_PREFERRED = ("_sha256", "")


def read_folder(folder: Path, *, collateral: Path | None = None) -> tuple[EvidenceItem, ...]:
    """One quote of the folder, of the SHA-256 bank if the names say so; `verify` says what is missing.

    Raises:
        OSError: there is no quote, or a file cannot be read.
        MalformedEvidenceError: PCR values in JSON in another form than one hexadecimal text for each.
    """
    quotes = read_quotes(folder, collateral=collateral)
    if not quotes:
        raise FileNotFoundError(f"{folder} has no quote*.msg")
    name = next((name for name in _PREFERRED if name in quotes), next(iter(quotes)))
    return (quotes[name],)


def read_quotes(folder: Path, *, collateral: Path | None = None) -> dict[str, EvidenceItem]:
    """Every quote of the folder, by what its file's name has between `quote` and the dot; raises as `read_folder`."""
    names = sorted(path.name.removeprefix("quote").removesuffix(".msg") for path in folder.glob("quote*.msg"))
    endorsements = (
        *vendor_endorsements(folder, "ak", "ak_cert*.der", collateral),
        *vendor_endorsements(folder, "ek", "ekcert*.der", collateral),
    )
    return {
        name: EvidenceItem(tee=TEE, evidence=encode(_evidence(folder, name)), endorsements=endorsements)
        for name in names
    }


def _evidence(folder: Path, name: str) -> TpmEvidence:
    quote, ak_public = _bytes(folder, f"quote{name}.msg"), _bytes(folder, f"ak{name}.tpmt_public", "ak.tpmt_public")
    return TpmEvidence(
        quote=quote,
        signature=_bytes(folder, f"quote{name}.sig", f"quote{name}.tpmt_signature"),
        ak_public=ak_public,
        ak_parent=_parent(folder, quote, ak_public),
        pcr_values=pcr_values(folder, name),
        event_log=_bytes(folder, f"eventlog{name}.bin", "eventlog.bin"),
    )


def _bytes(folder: Path, *names: str) -> bytes:
    """The first of these files that is there, else nothing."""
    return next(((folder / name).read_bytes() for name in names if (folder / name).is_file()), b"")


def _parent(folder: Path, quote: bytes, ak_public: bytes) -> bytes:
    """The hierarchy or the endorsement key below which the quote's signer is this AK; nothing if it is none of them."""
    try:
        signer = parse_quote(quote, tee=TEE).qualified_signer
        ak = parse_public(ak_public, tee=TEE)
    except MalformedEvidenceError:
        return b""
    eks = [path.read_bytes()[_SIZE_BYTES:] for path in sorted(folder.glob("ek*.pub"))]
    below_eks = [qualified_name(parse_public(ek, tee=TEE), ENDORSEMENT) for ek in eks]
    return next((parent for parent in (*HIERARCHIES, *below_eks) if qualified_name(ak, parent) == signer), b"")


def pcr_values(folder: Path, name: str) -> bytes:
    """Raw, or JSON: a list in the order of the indices, or an object by index."""
    raw = _bytes(folder, f"pcrs{name}.bin", "pcrs.bin")
    text = _bytes(folder, f"pcrs{name}.json", "pcrs_sha256.json")
    if raw or not text:
        return raw
    with parsing_tpm(TEE, "evidence"):
        values = strict_json(text, max_bytes=_MAX_JSON_BYTES)
        ordered = [values[index] for index in sorted(values, key=int)] if isinstance(values, dict) else values
        if not isinstance(ordered, list) or not all(isinstance(value, str) for value in ordered):
            raise ValueError("its PCR values are not one text for each")
        return b"".join(bytes.fromhex(value) for value in ordered)


def vendor_endorsements(folder: Path, kind: str, pattern: str, *collateral: Path | None) -> Iterator[tuple[str, bytes]]:
    """A key's certificate, and as much of its chain and of the CRLs about it as the files hold."""
    leaf = next(iter(sorted(folder.glob(pattern))), None)
    if leaf is None:
        return
    files = [path.read_bytes() for place in (folder, *collateral) if place for path in _candidates(place)]
    by_subject = {one.subject: one for data in files for one in _certificates(data)}
    yield f"{kind}_certificate", leaf.read_bytes()
    issuers = list(_issuers(leaf.read_bytes(), by_subject))
    for number, issuer in enumerate(issuers, start=1):
        name = f"{kind}_root" if issuer.issuer == issuer.subject else f"{kind}_intermediate_{number}"
        yield name, issuer.public_bytes(Encoding.DER)
    lists = [crl for data in files for crl in _crls(data) if crl.issuer in [issuer.subject for issuer in issuers]]
    for number, crl in enumerate(lists, start=1):
        yield f"{kind}_crl_{number}", crl.public_bytes(Encoding.DER)


def _issuers(leaf: bytes, by_subject: dict[x509.Name, x509.Certificate]) -> Iterator[x509.Certificate]:
    """From the leaf's issuer up to one that issued itself, or to one that is not there."""
    below = next(iter(_certificates(leaf)), None)
    for _ in range(MAX_INTERMEDIATES + 1):
        if below is None or below.issuer == below.subject or below.issuer not in by_subject:
            return
        below = by_subject[below.issuer]
        yield below


def _candidates(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _certificates(data: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(data) if _PEM in data else [x509.load_der_x509_certificate(data)]
        for certificate in found:
            require_readable(certificate)
    except UNREADABLE:
        return []
    return found


def _crls(data: bytes) -> list[x509.CertificateRevocationList]:
    try:
        crl = x509.load_pem_x509_crl(data) if _PEM in data else x509.load_der_x509_crl(data)
        crl.issuer  # noqa: B018  # parsed only when asked for, and must parse
    except UNREADABLE:
        return []
    return [crl]
