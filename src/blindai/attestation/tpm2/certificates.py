"""Who certifies a TPM's keys: a vendor's chain for the attestation key (AK) or for the endorsement key (EK).

A chain arrives as endorsements, each in DER: `ak_certificate`, `ak_intermediate_1` to `_3`, `ak_root`, and the CRLs
`ak_crl_1` to `_3` in any order; for the endorsement key the same with `ek`.
An EK's chain says that a TPM is real, not yet that an AK is in it: credential activation does (docs/spec/tee/tpm.md).
Leaves out: revocation (tpm2/revocation.py), and which of these a policy wants (tee/).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blindai.attestation.checks import judge
from blindai.attestation.tpm2.revocation import judge_revocation, read_crl
from blindai.attestation.x509_chain import PURPOSES, judge_chain, judge_links, read_certificate, read_issuer
from blindai.errors import MalformedEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blindai.attestation.evidence import Finding
    from blindai.attestation.roots import PinnedRoot
    from blindai.attestation.tpm2.keys import PublicKey

Kind = Literal["ak", "ek"]

KINDS: tuple[Kind, ...] = ("ak", "ek")
MAX_INTERMEDIATES = 3
MAX_CRLS = 3
# TCG Credential Profiles; TCG OID registry, tcg-kp.
_PURPOSES: dict[Kind, str] = {"ak": "2.23.133.8.3", "ek": "2.23.133.8.1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorChain:
    """A vendor's certificates for one key of a TPM.

    Attributes:
        kind: which key.
        certificates: from the key's own to the root.
        crls: in the order of their names.
    """

    kind: Kind
    certificates: tuple[x509.Certificate, ...] = field(repr=False)
    crls: tuple[x509.CertificateRevocationList, ...] = field(repr=False)

    @property
    def key_sha256(self) -> bytes:
        """SHA-256 over the DER of the leaf's SubjectPublicKeyInfo."""
        return key_sha256(self.certificates[0].public_key())

    @property
    def root_sha256(self) -> bytes:
        """SHA-256 over the DER of the last certificate, pinned or not."""
        return hashlib.sha256(self.certificates[-1].public_bytes(Encoding.DER)).digest()

    def root_name(self, roots: Sequence[PinnedRoot]) -> str:
        """The pinned name of the root, or empty."""
        der = self.certificates[-1].public_bytes(Encoding.DER)
        return next((root.name for root in roots if root.matches(der)), "")


def chain_names(kind: Kind) -> tuple[str, ...]:
    """Every endorsement that a chain of this kind can have."""
    intermediates = (f"{kind}_intermediate_{number}" for number in range(1, MAX_INTERMEDIATES + 1))
    crls = (f"{kind}_crl_{number}" for number in range(1, MAX_CRLS + 1))
    return (f"{kind}_certificate", *intermediates, f"{kind}_root", *crls)


def read_vendor_chain(endorsements: Mapping[str, bytes], kind: Kind, *, tee: str) -> VendorChain | None:
    """The chain of one kind, or None if none of its endorsements is there.

    Raises:
        MalformedEvidenceError: a part is missing (code `<tee>.endorsements`) or is no certificate or CRL
            (`<tee>.certificate_format`, `<tee>.crl_format`).
    """
    names = [name for name in chain_names(kind) if name in endorsements]
    if not names:
        return None
    certificates = [name for name in names if not name.startswith(f"{kind}_crl_")]
    wanted = [name for name in chain_names(kind) if not name.startswith(f"{kind}_crl_")]
    if certificates != [*wanted[: len(certificates) - 1], f"{kind}_root"] or len(certificates) < 2:  # noqa: PLR2004  # leaf and root
        raise MalformedEvidenceError(
            f"expected {kind}_certificate, {kind}_intermediate_1 and so on, and {kind}_root, found {', '.join(names)}",
            finding_code=f"{tee}.endorsements",
            tee=tee,
        )
    leaf, *issuers = certificates
    return VendorChain(
        kind=kind,
        certificates=(
            read_certificate(endorsements[leaf], tee=tee, what=leaf),
            *(read_issuer(endorsements[name], tee=tee, what=name) for name in issuers),
        ),
        crls=tuple(read_crl(endorsements[name], tee=tee) for name in names if name not in certificates),
    )


def judge_vendor_chain(
    chain: VendorChain, *, tee: str, now: float, roots: Sequence[PinnedRoot], key: PublicKey | None = None
) -> Iterator[Finding]:
    """Whether a vendor certified this key; all of it is a matter of authenticity.

    An AK's vendor must be pinned. Which roots an EK's chain may end in, the policy says (tpm2/activation.py).

    Args:
        chain: as read.
        tee: the codes' first half; `ak` or `ek` follows: `<tee>.ak_chain_root` (AK only), `<tee>.ak_chain`,
            `<tee>.ak_chain_validity`, `<tee>.ak_certificate_use`, `<tee>.ak_certificate_key`, `<tee>.ak_crl`,
            `<tee>.ak_revoked`.
        now: Unix seconds.
        roots: the pinned ones, for an AK.
        key: the key that the leaf must be about, if it is known.
    """
    code = f"{chain.kind}_chain"
    if chain.kind == "ak":
        yield from judge_chain(chain.certificates, roots, tee=tee, now=now, code=code, judged_of_leaf=PURPOSES)
    else:
        yield from judge_links(chain.certificates, tee=tee, now=now, code=code, judged_of_leaf=PURPOSES)
    leaf = chain.certificates[0]
    refusal = _wrong_use(leaf, chain.kind)
    yield judge(
        holds=not refusal,
        code=f"{tee}.{chain.kind}_certificate_use",
        expected=f"a certificate of an {chain.kind.upper()}, no CA",
        found=refusal or f"a certificate of an {chain.kind.upper()}",
        why="A vendor certifies other keys too, and some of them sign whatever they are given.",
    )
    if key is not None:
        is_same = _spki(key) == _spki(leaf.public_key())
        yield judge(
            holds=is_same,
            code=f"{tee}.{chain.kind}_certificate_key",
            expected=f"a certificate of the {chain.kind.upper()} that is shown",
            found="that key's" if is_same else "another key's",
            why="A certificate speaks for the key in it, and for no other.",
        )
    yield from judge_revocation(chain.certificates, chain.crls, tee=tee, kind=chain.kind)


def key_sha256(key: object) -> bytes:
    """SHA-256 over the DER of a public key's SubjectPublicKeyInfo."""
    return hashlib.sha256(_spki(key)).digest()


def _spki(key: object) -> bytes:
    data: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]  # any public key has it
    return data


def _wrong_use(leaf: x509.Certificate, kind: Kind) -> str:
    """What in a leaf's extensions says that it is for something else, or nothing; what is not said is no limit."""
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        return "a CA's certificate"
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and x509.ObjectIdentifier(_PURPOSES[kind]) not in purposes:
        return f"one for {', '.join(purpose.dotted_string for purpose in purposes)}"
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or usage.digital_signature != (kind == "ak"):
        return "one whose key usage is another"
    return ""


def _extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
