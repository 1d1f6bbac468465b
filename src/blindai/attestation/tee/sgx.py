"""Intel SGX: quotes of version 3, made for an enclave by Intel's quoting enclave (docs/spec/tee/sgx.md).

Leaves out: what TDX has in common with it: the quote's form (intel/quote.py), its chain (intel/chain.py), the state of
the platform (intel/tcb.py) and what is accepted of it (intel/policy.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.expectations import (
    judge_accepted,
    judge_flag,
    judge_minimum,
    one_of,
    read_accepted,
    read_flag,
    read_minimum,
    read_track,
)
from blindai.attestation.intel.chain import DocumentKinds, Trust, follow_chain
from blindai.attestation.intel.collateral import QE, SGX
from blindai.attestation.intel.masked import Masked, judge_masked, read_masked
from blindai.attestation.intel.policy import (
    INTEL_CODES,
    INTEL_FIELDS,
    IntelClaims,
    IntelPolicy,
    check_platform,
    platform_claims,
    read_intel_fields,
    trackable,
)
from blindai.attestation.intel.quote import TEE_SGX, Quote, SgxReport, parse_quote
from blindai.attestation.intel.tcb import sgx_state
from blindai.attestation.policy_file import Skip
from blindai.attestation.roots import INTEL_SGX_ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.policy_file import Section
    from blindai.attestation.roots import PinnedRoot

TEE = "sgx"
VERSIONS = (3,)
KINDS = DocumentKinds(tcb_info=(SGX, 3), qe_identity=(QE, 2))

# ATTRIBUTES.FLAGS (Intel SDM volume 3D, table 35-3), bit by bit.
FLAG_BITS = {
    "INIT": 0,
    "DEBUG": 1,
    "MODE64BIT": 2,
    "PROVISIONKEY": 4,
    "EINITTOKEN_KEY": 5,
    "CET": 6,
    "KSS": 7,
    "AEX_NOTIFY": 10,
}
_INIT_AND_MODE64 = 1 << FLAG_BITS["INIT"] | 1 << FLAG_BITS["MODE64BIT"]

# Size in bytes of each list of accepted values.
_ACCEPTED = {"mr_enclave": 32, "mr_signer": 32, "config_id": 64}
# Size in bytes of each register that is compared where a mask looks.
_MASKED = {"attributes_flags": 8, "attributes_xfrm": 8, "misc_select": 4}
_MINIMA = ("isv_svn", "config_svn")
_WHY = {
    "mr_enclave": "It names the enclave's code, initial data and layout.",
    "mr_signer": "It names the key that signed the enclave, whose holder can sign another one.",
    "isv_prod_id": "One signer makes several enclaves, and each is told from the others by this number.",
    "isv_svn": "The signer raises this number with each weakness that it closes.",
    "config_id": "Whoever started the enclave said here how it is configured.",
    "config_svn": "Whoever started the enclave said here how new its configuration is.",
    "attributes_flags": "The flags say which keys and features the enclave has.",
    "attributes_xfrm": "Each extended feature that an enclave may use is more state that it must keep.",
    "misc_select": "It says what the enclave is told about its own faults.",
    "debug": "The host reads and writes an enclave that runs under debug.",
}
_HINTS = {
    "mr_enclave": "compare with what the enclave's builder publishes before you change the policy",
    "debug": "build and start the enclave without debug; a debug enclave keeps no secret",
}
CODES = frozenset(
    f"{TEE}.{code}" for code in (*INTEL_CODES, "debug", "mode64", "isv_prod_id", *_ACCEPTED, *_MINIMA, *_MASKED)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxClaims(IntelClaims):
    """What an authentic quote says of an enclave."""

    tee: str = TEE
    report: SgxReport

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Each claim as a name and a text."""
        report = self.report
        return (
            ("hardware", "Intel SGX, quote version 3"),
            ("MRENCLAVE", report.mr_enclave.hex()),
            ("MRSIGNER", report.mr_signer.hex()),
            ("ISVPRODID", str(report.isv_prod_id)),
            ("ISVSVN", str(report.isv_svn)),
            ("ISVEXTPRODID", report.isv_ext_prod_id.hex()),
            ("ISVFAMILYID", report.isv_family_id.hex()),
            ("CONFIGID", report.config_id.hex()),
            ("CONFIGSVN", str(report.config_svn)),
            ("flags", ", ".join(name for name, bit in FLAG_BITS.items() if report.flags >> bit & 1) or "none"),
            ("XFRM", report.attributes[8:].hex()),
            ("MISCSELECT", report.misc_select.hex()),
            *self.platform_facts(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxPolicy(IntelPolicy):
    """What a policy accepts of an enclave; `debug` is the value that DEBUG must have, or skipped for either one.

    Attributes:
        isv_prod_id: any of these.
        isv_svn: the least; likewise `config_svn`.
        attributes_flags: 8 bytes as in the report, that is little endian; likewise the next.
        misc_select: 4 bytes, little endian.
    """

    tee: str = TEE
    mr_enclave: tuple[bytes, ...] | Skip
    mr_signer: tuple[bytes, ...] | Skip
    isv_prod_id: tuple[int, ...] | Skip
    isv_svn: int | Skip
    config_id: tuple[bytes, ...] | Skip
    config_svn: int | Skip
    debug: bool | Skip
    attributes_flags: Masked | Skip
    attributes_xfrm: Masked | Skip
    misc_select: Masked | Skip


def parse(raw: bytes) -> Quote:
    """Read an SGX quote.

    Raises:
        MalformedEvidenceError: it is not exactly one, of version 3 and of at most 64 KiB.
    """
    return parse_quote(raw, tee=TEE, tee_type=TEE_SGX, versions=VERSIONS)


def verify(
    item: EvidenceItem, now: float, checks: Checks, *, roots: Sequence[PinnedRoot] = (INTEL_SGX_ROOT,)
) -> SgxClaims:
    """Follow the signatures from Intel's root to the quote, and find the state that Intel gives its platform.

    Raises:
        MalformedEvidenceError: the quote or an endorsement is not exactly what it is called.
        UnauthenticEvidenceError: a signature, a root or a certified identity is another, or a key was revoked.
    """
    with checks.parsing(
        code=f"{TEE}.quote_format",
        expected="an SGX quote of version 3",
        why="What can be read in two ways can be judged in two ways.",
    ):
        quote = parse(item.evidence)
    report = quote.body
    assert isinstance(report, SgxReport)  # noqa: S101  # version 3 has nothing else; for the type checker
    vouched = follow_chain(quote, item, checks, Trust(tee=TEE, kinds=KINDS, roots=roots, now=now))
    collateral = vouched.endorsements.collateral
    svn = quote.qe_report.isv_svn
    state = sgx_state(vouched.pck, svn, collateral.tcb_info, collateral.qe_identity) if collateral else None
    return SgxClaims(bound=report.report_data, report=report, **platform_claims(vouched, state, now))


def check(claims: SgxClaims, policy: SgxPolicy) -> Iterator[Finding]:
    """Compare the platform, the enclave's attributes and its identity with the policy."""
    report = claims.report
    yield from check_platform(claims, policy)
    yield judge_flag(
        policy.debug,
        code=f"{TEE}.debug",
        found=bool(report.flags >> FLAG_BITS["DEBUG"] & 1),
        why=_WHY["debug"],
        hint=_HINTS["debug"],
    )
    yield judge(
        holds=report.flags & _INIT_AND_MODE64 == _INIT_AND_MODE64,
        code=f"{TEE}.mode64",
        expected="INIT and MODE64BIT",
        found=f"{report.flags:#x}",
        why="Only an enclave that was initialised, in 64-bit mode, is the one that was measured.",
    )
    flags, xfrm = report.attributes[:8], report.attributes[8:]
    registers = {"attributes_flags": flags, "attributes_xfrm": xfrm, "misc_select": report.misc_select}
    for name, found in registers.items():
        yield judge_masked(getattr(policy, name), code=f"{TEE}.{name}", found=found, why=_WHY[name])
    yield from _check_identity(report, policy)


def _check_identity(report: SgxReport, policy: SgxPolicy) -> Iterator[Finding]:
    for name in _ACCEPTED:
        yield judge_accepted(
            getattr(policy, name),
            code=f"{TEE}.{name}",
            found=getattr(report, name),
            why=_WHY[name],
            hint=_HINTS.get(name, ""),
        )
    yield _judge_product(policy.isv_prod_id, report.isv_prod_id)
    for name in _MINIMA:
        yield judge_minimum(getattr(policy, name), code=f"{TEE}.{name}", found=getattr(report, name), why=_WHY[name])


def _judge_product(accepted: tuple[int, ...] | Skip, found: int) -> Finding:
    code, why = f"{TEE}.isv_prod_id", _WHY["isv_prod_id"]
    if isinstance(accepted, Skip):
        return leave_out(code=code, reason=accepted.reason, found=str(found), why=why)
    return judge(holds=found in accepted, code=code, expected=one_of(map(str, accepted)), found=str(found), why=why)


def parse_policy(section: Section) -> SgxPolicy:
    """Read `[tee.sgx]`.

    Raises:
        InvalidPolicyError: anything but exactly that table, or a signer without its product.
    """
    section.require_keys("track", *INTEL_FIELDS, *_ACCEPTED, *_MASKED, *_MINIMA, "isv_prod_id", "debug")
    fields: dict[str, Any] = {name: read_accepted(section, name, size) for name, size in _ACCEPTED.items()}
    fields |= {name: read_minimum(section, name) for name in _MINIMA}
    fields |= {name: read_masked(section, name, size) for name, size in _MASKED.items()}
    isv_prod_id = _read_products(section)
    if isinstance(isv_prod_id, Skip) and not isinstance(fields["mr_signer"], Skip):
        raise section.error("must be set beside `mr_signer`: one signer makes several enclaves", "isv_prod_id")
    return SgxPolicy(
        track=read_track(section, trackable(TEE, CODES)),
        isv_prod_id=isv_prod_id,
        debug=read_flag(section, "debug"),
        **read_intel_fields(section),
        **fields,
    )


def _read_products(section: Section) -> tuple[int, ...] | Skip:
    values = section.members["isv_prod_id"]
    if isinstance(values, dict):
        return section.section("isv_prod_id").skip()
    if not isinstance(values, list) or not values or not all(type(one) is int and 0 <= one <= 0xFFFF for one in values):  # noqa: PLR2004  # 16 bits
        raise section.error("must be a list of at least one number from 0 to 65535", "isv_prod_id")
    return tuple(values)
