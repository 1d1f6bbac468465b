"""AMD SEV-SNP: an attestation report, signed by a VCEK or VLEK (docs/spec/tee/sev_snp.md, the same steps and codes).

Vendor documents: 56860 "SEV-SNP Firmware ABI Specification" revision 1.58, 57230 "VCEK Certificate and KDS Interface".
Beside it: amd/report.py (`parse`), amd/certificates.py, amd/tcb.py, amd/flags.py, and amd/policy.py
(`parse_policy`). The report of an Azure guest's paravisor is verified here, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from blindai.attestation.amd.certificates import (
    SigningKey,
    judge_revocation,
    names_of,
    read_amd_certificate,
    read_amd_issuer,
    read_crl,
    read_endorsement,
    roles_of,
    times_of,
)
from blindai.attestation.amd.checks import check_guest, check_host
from blindai.attestation.amd.flags import GUEST_POLICY_FLAGS, PLATFORM_FLAGS, unknown_bits
from blindai.attestation.amd.policy import CHIP_ID_BYTES, SevSnpPolicy, parse_policy
from blindai.attestation.amd.report import TEE, Report, parse
from blindai.attestation.amd.tcb import Product, Tcb, product_of, read_tcb
from blindai.attestation.checks import FETCH_THEM, judge
from blindai.attestation.evidence import Claims
from blindai.attestation.roots import AMD_ROOTS
from blindai.attestation.x509_chain import judge_chain, utc_text
from blindai.errors import MalformedEvidenceError, UnauthenticEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography import x509

    from blindai.attestation.amd.certificates import Endorsement, RevocationList
    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.roots import PinnedRoot

__all__ = ["TEE", "SevSnpClaims", "SevSnpPolicy", "check", "parse", "parse_policy", "verify"]

VEK, INTERMEDIATE, ROOT, CRL = "vek", "intermediate", "root", "crl"
CHAIN = (VEK, INTERMEDIATE, ROOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class SevSnpClaims(Claims):
    """What an authentic report says.

    Attributes:
        report: every field, as it stands.
        product_name: as AMD's certificate says it, for example `Milan-B0`.
        chip_id: the chip that AMD's certificate names, 64 bytes (Turin's 8 and zeros); None with a VLEK, which is the
            key of a cloud provider and not of a chip.
        csp_id: the cloud provider that the VLEK's certificate names.
        reported: the TCB that AMD's certificate proves; committed and current are at least that.
        revocation: None if no revocation list came with the evidence.
        verified_at: Unix seconds.
    """

    tee: str = TEE
    report: Report
    product: Product
    product_name: str
    signing_key: SigningKey
    chip_id: bytes | None = field(repr=False)
    csp_id: str | None
    reported: Tcb
    committed: Tcb
    current: Tcb
    launch: Tcb
    revocation: RevocationList | None
    verified_at: float

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Each claim as a name and a text, in AMD's words."""
        report = self.report
        signer = f"VLEK of {self.csp_id}" if self.csp_id else "VCEK"
        crl = f"until {utc_text(self.revocation.next_update)}" if self.revocation else "none"
        vectors = (("launch mitigations", report.launch_mit_vector), ("mitigations", report.current_mit_vector))
        return (
            ("hardware", f"AMD {self.product_name}, CPU {report.cpuid or 'not told'}, signed by a {signer}"),
            ("report version", str(report.version)),
            ("chip id", self.chip_id.hex() if self.chip_id else "hidden"),
            ("reported TCB", str(self.reported)),
            ("committed TCB", str(self.committed)),
            ("current TCB", str(self.current)),
            ("launch TCB", str(self.launch)),
            ("firmware", f"{report.current_version}, committed {report.committed_version}"),
            *((name, "not told" if vector is None else hex(vector)) for name, vector in vectors),
            ("revocation list", crl),
            ("guest policy", f"ABI {report.policy_abi[0]}.{report.policy_abi[1]}, {_set_flags(report)[0]}"),
            ("platform", _set_flags(report)[1]),
            ("VMPL", str(report.vmpl)),
            ("measurement", report.measurement.hex()),
            ("host data", report.host_data.hex()),
            ("family id", report.family_id.hex()),
            ("image id", report.image_id.hex()),
            ("guest SVN", str(report.guest_svn)),
            ("id key digest", report.id_key_digest.hex()),
            ("author key digest", report.author_key_digest.hex()),
            ("report id", report.report_id.hex()),
        )


def _set_flags(report: Report) -> tuple[str, str]:
    guest = [flag.name for flag in GUEST_POLICY_FLAGS if flag.is_set(report.policy)]
    platform = [flag.name for flag in PLATFORM_FLAGS if flag.is_set(report.platform_info)]
    unknown = [f"unknown bit {bit}" for bit in unknown_bits(report.platform_info)]
    return ", ".join(guest) or "no flag", ", ".join(platform + unknown) or "no flag"


def verify(item: EvidenceItem, now: float, checks: Checks, *, roots: Sequence[PinnedRoot] = AMD_ROOTS) -> SevSnpClaims:
    """Follow the signatures from AMD's root to the report, and compare what each says of the chip and its TCB.

    Raises:
        MalformedEvidenceError: a report, certificate or revocation list cannot be read exactly, or one is missing.
        UnauthenticEvidenceError: a signature, root, name, time or identity is another, or AMD revoked a certificate.
    """
    with checks.parsing(
        code="sev_snp.format",
        expected="an SEV-SNP report of version 2 to 5",
        why="What can be read in two ways can be judged in two ways.",
    ):
        report = parse(item.evidence)
    endorsements = _endorsements(item, checks)
    with checks.parsing(
        code="sev_snp.certificate_format",
        expected="three X.509 certificates in DER",
        why="What can be read in two ways can be judged in two ways.",
    ):
        issuers = (read_amd_issuer(endorsements[name], name) for name in (INTERMEDIATE, ROOT))
        chain = (read_amd_certificate(endorsements[VEK], VEK), *issuers)
    for finding in judge_chain(chain, roots, tee=TEE, now=now):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    key, product = _require_roles(chain, checks)
    revocation = _require_not_revoked(endorsements[CRL], chain, checks) if CRL in endorsements else None
    with checks.parsing(
        code="sev_snp.vek_format",
        expected="AMD's extensions, each once, and a P-384 key",
        why="The extensions say for which chip and TCB AMD answers.",
    ):
        endorsement = read_endorsement(chain[0], key, product)
    for finding in _judge_signer(report, endorsement):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    claims = _read_claims(report, endorsement, revocation, now=now, checks=checks)
    for finding in _judge_agreement(claims, endorsement):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    return claims


def _endorsements(item: EvidenceItem, checks: Checks) -> dict[str, bytes]:
    names = sorted(name for name, _ in item.endorsements)
    finding = judge(
        holds=names in (sorted(CHAIN), sorted((*CHAIN, CRL))),
        code="sev_snp.endorsements",
        expected=f"{', '.join(CHAIN)}, once each, and perhaps {CRL}",
        found=", ".join(names) or "none",
        why="The chain from the report to a pinned root must be complete.",
        hint="the certificates come from AMD's key distribution service (kdsintf.amd.com): ask the operator to staple "
        f"the VCEK or VLEK of this chip and TCB with its ASK or ASVK and ARK, or {FETCH_THEM}",
    )
    checks.require(finding, MalformedEvidenceError, tee=TEE)
    return dict(item.endorsements)


def _require_roles(chain: Sequence[x509.Certificate], checks: Checks) -> tuple[SigningKey, Product]:
    roles = roles_of(chain)
    finding = judge(
        holds=roles is not None,
        code="sev_snp.chain_roles",
        expected="SEV-VCEK < SEV-<product> < ARK-<product>, or SEV-VLEK < SEV-VLEK-<product> < ARK-<product>",
        found=names_of(chain),
        why="Each of AMD's keys may sign only what its name says: an ASK no VLEK, and no product another's chips.",
    )
    checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    assert roles is not None  # noqa: S101  # or the line before had raised
    return roles


def _require_not_revoked(der: bytes, chain: Sequence[x509.Certificate], checks: Checks) -> RevocationList:
    with checks.parsing(
        code="sev_snp.crl_format",
        expected="a plain revocation list in DER",
        why="What can be read in two ways can be judged in two ways.",
    ):
        crl = read_crl(der)
    for finding in judge_revocation(crl, chain):
        checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    return times_of(crl)


def _judge_signer(report: Report, endorsement: Endorsement) -> Iterator[Finding]:
    """Which key, of which product, and its signature: each is looked at only if the one before it passed."""
    key, product = endorsement.signing_key, endorsement.product
    masked = " and MASK_CHIP_KEY, under which a VCEK signs nothing" if report.mask_chip_key else ""
    yield judge(
        holds=report.signing_key == key and not (report.mask_chip_key and key is SigningKey.VCEK),
        code="sev_snp.signing_key",
        expected=f"SIGNING_KEY {key.value} ({key.name}), as the certificate's",
        found=f"SIGNING_KEY {report.signing_key}{masked}",
        why="A report that names another kind of key was not made with this one.",
    )
    named = product_of(report.cpuid) if report.cpuid else product
    yield judge(
        holds=named is product,
        code="sev_snp.product",
        expected=f"a CPU of the chain's product, {product.value}",
        found=f"{named.value if named else 'another CPU'} ({report.cpuid or 'not told in version 2'})",
        why="Patch levels mean something only for the product whose key vouches for them.",
    )
    holds = _is_signed(report, endorsement)
    expected = f"the {key.name}'s signature over bytes 0x000 to 0x29f"
    yield judge(
        holds=holds,
        code="sev_snp.signature",
        expected=expected,
        found=expected if holds else "a signature that does not verify",
        why="Unsigned claims are anybody's words.",
    )


def _is_signed(report: Report, endorsement: Endorsement) -> bool:
    try:
        endorsement.public_key.verify(encode_dss_signature(*report.signature), report.signed, ECDSA(SHA384()))
    except InvalidSignature:
        return False
    return True


def _read_claims(
    report: Report, endorsement: Endorsement, revocation: RevocationList | None, *, now: float, checks: Checks
) -> SevSnpClaims:
    product, hwid = endorsement.product, endorsement.hwid
    with checks.parsing(
        code="sev_snp.tcb_format",
        expected=f"TCB versions in the layout of {product.value}",
        why="Turin's bytes mean other components than Milan's and Genoa's.",
    ):
        return SevSnpClaims(
            bound=report.report_data,
            report=report,
            product=product,
            product_name=endorsement.product_name,
            signing_key=endorsement.signing_key,
            chip_id=None if hwid is None else hwid.ljust(CHIP_ID_BYTES, b"\0"),
            csp_id=endorsement.csp_id,
            reported=read_tcb(report.reported_tcb, product),
            committed=read_tcb(report.committed_tcb, product),
            current=read_tcb(report.current_tcb, product),
            launch=read_tcb(report.launch_tcb, product),
            revocation=revocation,
            verified_at=now,
        )


def _judge_agreement(claims: SevSnpClaims, endorsement: Endorsement) -> Iterator[Finding]:
    """The certificate and the report speak of one product, one TCB and one chip."""
    yield judge(
        holds=endorsement.product_name.partition("-")[0] == claims.product.value,
        code="sev_snp.vek_product",
        expected=f"a key of {claims.product.value}, as its issuer's",
        found=endorsement.product_name,
        why="A key of another product would vouch for patch levels that mean something else.",
    )
    yield judge(
        holds=endorsement.tcb == claims.reported,
        code="sev_snp.vek_tcb",
        expected=f"REPORTED_TCB as in the certificate: {endorsement.tcb}",
        found=str(claims.reported),
        why="The key is derived from the TCB, so the certificate is what proves it.",
        hint="the certificate is of before or after a firmware update: ask the operator to staple the documents for "
        f"REPORTED_TCB, or {FETCH_THEM}",
    )
    hidden = not any(claims.report.chip_id)
    yield judge(
        holds=hidden or claims.chip_id in (None, claims.report.chip_id),
        code="sev_snp.chip_id",
        expected=f"CHIP_ID {claims.chip_id.hex()}, as in the certificate, or zeros"
        if claims.chip_id
        else "any CHIP_ID",
        found="zeros" if hidden else claims.report.chip_id.hex(),
        why="A key speaks for the chip that it was fused into, and for no other.",
    )
    yield judge(
        holds=claims.committed.is_at_least(claims.reported) and claims.current.is_at_least(claims.committed),
        code="sev_snp.tcb_order",
        expected="reported TCB ≤ committed TCB ≤ current TCB, in every component",
        found=f"reported {claims.reported}; committed {claims.committed}; current {claims.current}",
        why="Firmware that keeps AMD's rules never reports more than it runs.",
    )


def check(claims: SevSnpClaims, policy: SevSnpPolicy) -> Iterator[Finding]:
    """Compare the host (chip, firmware, settings) and then the guest (its policy, measurement, identity)."""
    yield from check_host(claims, policy)
    yield from check_guest(claims, policy)
