"""What comes with an Intel quote: certificates, revocation lists, TCB info and QE identity, read and not yet believed.

Names are those of Intel's PCS and of its quote collateral (docs/spec/tee/tdx.md §2).
Leaves out: who signed them (intel/chain.py).
"""

from __future__ import annotations

import binascii
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509

from blindai.attestation.checks import FETCH_THEM, judge
from blindai.attestation.intel.collateral import parse_qe_identity, parse_tcb_info
from blindai.attestation.x509_bounds import require_bounded, without_warnings
from blindai.attestation.x509_chain import MAX_CERTIFICATES, UNREADABLE, holds_whole_bytes, read_certificate
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.intel.collateral import QeIdentity, TcbInfo
    from blindai.attestation.intel.quote import Quote

PCK_CHAIN = "pck_chain"
ROOT_CA_CRL = "root_ca_crl"
PCK_CRL_NAMES = frozenset({"pck_crl", "pck_crl_issuer_chain"})
COLLATERAL_NAMES = frozenset(
    f"{document}{part}" for document in ("tcb_info", "qe_identity") for part in ("", "_signature", "_issuer_chain")
)
ALL_NAMES = frozenset({PCK_CHAIN, ROOT_CA_CRL}) | PCK_CRL_NAMES | COLLATERAL_NAMES

_SIGNATURE_BYTES = 64
_LINE_ENDS = b"\r\n"
_PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"
_PEM_END = b"-----END CERTIFICATE-----"

Chain = tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # the same only as itself: cryptography's has no hash
class RevocationList:
    """A CRL; times in Unix seconds."""

    crl: x509.CertificateRevocationList = field(repr=False)
    issued: float
    next_update: float
    serials: frozenset[int] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDocument:
    """The exact bytes that a TCB signer signed, its signature r ‖ s, and its chain."""

    data: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    chain: Chain = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """TCB info and QE identity; a quote can be judged only with both."""

    tcb_info_document: SignedDocument
    tcb_info: TcbInfo
    qe_identity_document: SignedDocument
    qe_identity: QeIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """Everything that came with a quote; what is None did not, and is missed in the policy's checks."""

    pck_chain: Chain = field(repr=False)
    root_ca_crl: RevocationList | None
    pck_crl: RevocationList | None
    pck_crl_issuer_chain: Chain = field(repr=False)
    collateral: Collateral | None


def read_endorsements(
    item: EvidenceItem, quote: Quote, checks: Checks, *, tee: str, others: frozenset[str]
) -> Endorsements:
    """Read all of them exactly, but for those that only one TEE has, whose names are `others`.

    Raises:
        MalformedEvidenceError: a name that is unknown, doubled or lacks its companions, or bytes that are not what
            they are called.
    """
    checks.require(_judge_names(item, tee, ALL_NAMES | others), MalformedEvidenceError, tee=tee)
    named = dict(item.endorsements)
    why = "What can be read in two ways can be judged in two ways."
    with checks.parsing(
        code=f"{tee}.certificate_format", expected="certificates in PEM, from the leaf to the root", why=why
    ):
        known: dict[bytes, x509.Certificate] = {}
        pems = [pem for pem in (quote.pck_chain, named.get(PCK_CHAIN)) if pem is not None]
        pck_chains = {_read_chain(pem, known, tee, "the PCK chain", own=1) for pem in pems}
        written = (name for name in named if name.endswith("_issuer_chain"))
        chains = {name: _read_chain(named[name], known, tee, name) for name in written}
    checks.require(_judge_pck_chains(pck_chains, tee), MalformedEvidenceError, tee=tee)
    with checks.parsing(code=f"{tee}.crl_format", expected="revocation lists in DER", why=why):
        crls = {name: _read_crl(named[name], tee, name) for name in (ROOT_CA_CRL, "pck_crl") if name in named}
    with checks.parsing(code=f"{tee}.collateral_format", expected="TCB info and QE identity in JSON", why=why):
        collateral = _read_collateral(named, chains, tee) if named.keys() >= COLLATERAL_NAMES else None
    return Endorsements(
        pck_chain=pck_chains.pop(),
        root_ca_crl=crls.get(ROOT_CA_CRL),
        pck_crl=crls.get("pck_crl"),
        pck_crl_issuer_chain=chains.get("pck_crl_issuer_chain", ()),
        collateral=collateral,
    )


def _judge_names(item: EvidenceItem, tee: str, known: frozenset[str]) -> Finding:
    names = [name for name, _ in item.endorsements]
    is_whole = all(len(group.intersection(names)) in {0, len(group)} for group in (PCK_CRL_NAMES, COLLATERAL_NAMES))
    return judge(
        holds=set(names) <= known and len(set(names)) == len(names) and is_whole,
        code=f"{tee}.endorsements",
        expected=f"{', '.join(sorted(known))}; each at most once, and with its companions",
        found=", ".join(names) or "none",
        why="What nobody reads may be anything, and half a document proves nothing.",
        hint=f"take them as Intel's PCS or a PCCS gives them, or {FETCH_THEM}",
    )


def _judge_pck_chains(chains: set[Chain], tee: str) -> Finding:
    return judge(
        holds=len(chains) == 1,
        code=f"{tee}.one_pck_chain",
        expected=f"one PCK chain, in the quote or as {PCK_CHAIN}",
        found=f"{len(chains)} different ones" if chains else "none",
        why="Without a PCK certificate nobody vouches for the quoting enclave, and with two nobody knows which.",
        hint=f"a quote that only names its PCK certificate needs it from a PCCS, as {PCK_CHAIN}",
    )


def _read_chain(pem: bytes, known: dict[bytes, x509.Certificate], tee: str, what: str, *, own: int = 0) -> Chain:
    """Certificates in the only PEM that they would be written in, line ends aside (RFC 7468 §3, "strict").

    Four chains share their last certificates, so `known` keeps what was read; the first `own` are one platform's.
    """
    *written, end = pem.translate(None, _LINE_ENDS).split(_PEM_END)
    if end or not 1 <= len(written) <= MAX_CERTIFICATES:
        raise _no_chain(tee, what)
    for place, text in enumerate(written):
        if text not in known:
            known[text] = (_read_pem if place < own else _read_issuer)(text, tee, what)
    return tuple(known[text] for text in written)


def _read_pem(text: bytes, tee: str, what: str) -> x509.Certificate:
    return read_certificate(_decode_pem(text, tee, what), tee=tee, what=what)


@functools.lru_cache(maxsize=64)  # Intel has few issuers, and their names take longest to read
def _read_issuer(text: bytes, tee: str, what: str) -> x509.Certificate:
    return _read_pem(text, tee, what)


def _decode_pem(text: bytes, tee: str, what: str) -> bytes:
    base64 = text.removeprefix(_PEM_BEGIN)
    try:
        der = binascii.a2b_base64(base64)
    except binascii.Error:
        raise _no_chain(tee, what) from None
    if text != _PEM_BEGIN + binascii.b2a_base64(der, newline=False):  # the decoder passes over what it does not know
        raise _no_chain(tee, what)
    return der


def _no_chain(tee: str, what: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(
        f"expected 1 to {MAX_CERTIFICATES} certificates in PEM as {what}, and nothing else",
        finding_code=f"{tee}.certificate_format",
        tee=tee,
    )


@functools.lru_cache(maxsize=16)  # Intel has two lists for all platforms
def _read_crl(der: bytes, tee: str, what: str) -> RevocationList:
    """Intel's lists have no critical extension; one that is indirect or partial would mean something else."""
    try:
        crl = x509.load_der_x509_crl(der)
        with without_warnings():
            require_bounded(crl.issuer)
        entries = tuple(crl)
        extensions = [*crl.extensions, *(one for entry in entries for one in entry.extensions)]
        last_update, next_update = crl.last_update_utc, crl.next_update_utc
        serials = frozenset(entry.serial_number for entry in entries)
    except UNREADABLE:
        raise _no_crl(tee, what) from None
    is_partial = any(extension.critical for extension in extensions)
    if next_update is None or is_partial or not holds_whole_bytes(crl.signature, der):
        raise _no_crl(tee, what)
    return RevocationList(crl=crl, issued=last_update.timestamp(), next_update=next_update.timestamp(), serials=serials)


def _no_crl(tee: str, what: str) -> MalformedEvidenceError:
    return MalformedEvidenceError(
        f"expected {what} in DER with a next update and no critical extension",
        finding_code=f"{tee}.crl_format",
        tee=tee,
    )


def _read_collateral(named: dict[str, bytes], chains: dict[str, Chain], tee: str) -> Collateral:
    return Collateral(
        tcb_info_document=_read_document(named, chains, "tcb_info", tee),
        tcb_info=parse_tcb_info(named["tcb_info"], tee=tee),
        qe_identity_document=_read_document(named, chains, "qe_identity", tee),
        qe_identity=parse_qe_identity(named["qe_identity"], tee=tee),
    )


def _read_document(named: dict[str, bytes], chains: dict[str, Chain], name: str, tee: str) -> SignedDocument:
    signature = named[f"{name}_signature"]
    if len(signature) != _SIGNATURE_BYTES:
        raise MalformedEvidenceError(
            f"expected {name}_signature of {_SIGNATURE_BYTES} bytes, found {len(signature)}",
            finding_code=f"{tee}.collateral_format",
            tee=tee,
        )
    return SignedDocument(data=named[name], signature=signature, chain=chains[f"{name}_issuer_chain"])
