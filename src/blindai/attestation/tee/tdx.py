"""Intel TDX: quotes of versions 4 and 5, made for a trust domain by Intel's TD quoting enclave (docs/spec/tee/tdx.md).

Leaves out: what SGX has in common with it: the quote's form (intel/quote.py), its chain (intel/chain.py), the state of
the platform (intel/tcb.py) and what is accepted of it (intel/policy.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.checks import judge, leave_out
from blindai.attestation.expectations import judge_accepted, judge_flag, read_accepted, read_flag, read_track
from blindai.attestation.intel.ccel import MeasuredEvent, judge_events, judge_replay, parse_ccel
from blindai.attestation.intel.chain import DocumentKinds, Trust, equal_where, follow_chain
from blindai.attestation.intel.collateral import TD_QE, TDX
from blindai.attestation.intel.masked import Masked, judge_masked, read_masked
from blindai.attestation.intel.policy import (
    INTEL_CODES,
    INTEL_FIELDS,
    IntelClaims,
    IntelPolicy,
    check_platform,
    judge_status,
    platform_claims,
    read_intel_fields,
    trackable,
)
from blindai.attestation.intel.quote import TEE_TDX, Quote, TdReport, parse_quote
from blindai.attestation.intel.tcb import module_identity, tdx_state
from blindai.attestation.policy_file import Skip
from blindai.attestation.roots import INTEL_SGX_ROOT
from blindai.errors import UnauthenticEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blindai.attestation.checks import Checks
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.intel.collateral import TcbInfo
    from blindai.attestation.intel.tcb import TcbState
    from blindai.attestation.policy_file import Section
    from blindai.attestation.roots import PinnedRoot

TEE = "tdx"
VERSIONS = (4, 5)
CCEL = "ccel"
KINDS = DocumentKinds(tcb_info=(TDX, 3), qe_identity=(TD_QE, 2), others=frozenset({CCEL}))

# TD attributes ("Intel TDX Module Base Architecture" §22.2, table "ATTRIBUTES"), bit by bit.
_UNDER_DEBUG = 0xFF  # TUD: DEBUG is bit 0, and what may be added to it exposes a TD as well
ATTRIBUTE_BITS = {"debug": 0, "sept_ve_disable": 28, "migratable": 29, "pks": 30, "kl": 31, "perfmon": 63}
# XFAM (§22.3): bits 0 and 1 are always set, and only these may be.
_XFAM_ALWAYS = 0x3
_XFAM_POSSIBLE = 0x0006DBE7

REGISTERS = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
_OWN_WORDS = ("mr_config_id", "mr_owner", "mr_owner_config")
_FIELD_OF = {"mrtd": "mr_td", "rtmr0": "rt_mr0", "rtmr1": "rt_mr1", "rtmr2": "rt_mr2", "rtmr3": "rt_mr3"}
_ACCEPTED = (*REGISTERS, *_OWN_WORDS, "mr_seam", "mr_service_td")
_DIGEST_BYTES = 48
_XFAM_BYTES = 8

_WHY = {
    "mrtd": "It names the firmware that the TD began with.",
    "rtmr0": "It names the firmware's configuration: its variables, tables and the TD's shape.",
    "rtmr1": "It names the boot loader or kernel that the firmware started.",
    "rtmr2": "It names what the boot loader started: kernel, initial RAM disk and command line.",
    "rtmr3": "It names what the running system measured, if it does.",
    "mr_config_id": "Whoever started the TD said here how the software is configured.",
    "mr_owner": "Whoever started the TD said here who owns it.",
    "mr_owner_config": "Whoever started the TD said here what its owner configured.",
    "mr_seam": "It names the exact TDX module that keeps the host out.",
    "mr_service_td": "A service TD, such as one for migration, has access to this TD's secrets.",
    "debug": "The host reads and writes a TD that runs under debug.",
    "sept_ve_disable": "Otherwise the host can take pages away and have the guest handle that, unprepared.",
    "migratable": "A TD that can be migrated trusts the migration TD of whoever started it.",
    "pks": "Protection keys for supervisor pages: the guest's own affair.",
    "kl": "Key Locker: the guest's own affair.",
    "perfmon": "Performance monitoring: counters of a TD are more to watch it by.",
}
_HINTS = {
    **dict.fromkeys(REGISTERS, "compare with what the image's builder publishes before you change the policy"),
    "debug": "start the TD without debug; a debug TD keeps no secret",
    "sept_ve_disable": "start the TD with sept-ve-disable=on",
}
CODES = frozenset(
    f"{TEE}.{code}"
    for code in (
        *INTEL_CODES,
        "tcb_status_current",
        *ATTRIBUTE_BITS,
        "under_debug",
        "attributes_reserved",
        "xfam_fixed",
        "xfam",
        *_ACCEPTED,
        "measured_events",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxClaims(IntelClaims):
    """What an authentic quote says of a TD.

    Attributes:
        events: what the event log extended, which replays to the quote; None without a log.
    """

    tee: str = TEE
    version: int
    report: TdReport
    events: tuple[MeasuredEvent, ...] | None

    def attribute(self, name: str) -> bool:
        """One of the TD's attributes."""
        return bool(_number(self.report.td_attributes) >> ATTRIBUTE_BITS[name] & 1)

    def facts(self) -> tuple[tuple[str, str], ...]:
        """Each claim as a name and a text."""
        state = self.state
        report = self.report
        return (
            ("hardware", f"Intel TDX, quote version {self.version}"),
            *((name.upper(), getattr(report, _FIELD_OF.get(name, name)).hex()) for name in (*REGISTERS, *_OWN_WORDS)),
            ("MRSEAM", report.mr_seam.hex()),
            ("SERVICETD", report.mr_service_td.hex() if report.mr_service_td else "not in a quote of version 4"),
            ("TEE_TCB_SVN", report.tee_tcb_svn.hex()),
            ("attributes", ", ".join(name for name in ATTRIBUTE_BITS if self.attribute(name)) or "none"),
            ("XFAM", report.xfam.hex()),
            ("event log", "none" if self.events is None else f"{len(self.events)} events that replay"),
            ("current TCB status", str(state.current) if state and state.current else "not said"),
            *self.platform_facts(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxPolicy(IntelPolicy):
    """What a policy accepts of a TD; each name is the claim's."""

    tee: str = TEE
    mrtd: tuple[bytes, ...] | Skip
    rtmr0: tuple[bytes, ...] | Skip
    rtmr1: tuple[bytes, ...] | Skip
    rtmr2: tuple[bytes, ...] | Skip
    rtmr3: tuple[bytes, ...] | Skip
    mr_config_id: tuple[bytes, ...] | Skip
    mr_owner: tuple[bytes, ...] | Skip
    mr_owner_config: tuple[bytes, ...] | Skip
    mr_seam: tuple[bytes, ...] | Skip
    mr_service_td: tuple[bytes, ...] | Skip
    debug: bool | Skip
    sept_ve_disable: bool | Skip
    migratable: bool | Skip
    pks: bool | Skip
    kl: bool | Skip
    perfmon: bool | Skip
    xfam: Masked | Skip
    measured_events: tuple[bytes, ...] | Skip


def parse(raw: bytes) -> Quote:
    """Read a TDX quote.

    Raises:
        MalformedEvidenceError: it is not exactly one, of version 4 or 5 and of at most 64 KiB.
    """
    return parse_quote(raw, tee=TEE, tee_type=TEE_TDX, versions=VERSIONS)


def verify(
    item: EvidenceItem, now: float, checks: Checks, *, roots: Sequence[PinnedRoot] = (INTEL_SGX_ROOT,)
) -> TdxClaims:
    """Follow the signatures from Intel's root to the quote, and find the state that Intel gives its platform.

    Raises:
        MalformedEvidenceError: the quote or an endorsement is not exactly what it is called.
        UnauthenticEvidenceError: a signature, a root or a certified identity is another, or a key was revoked.
    """
    with checks.parsing(
        code=f"{TEE}.quote_format",
        expected="a TDX quote of version 4 or 5",
        why="What can be read in two ways can be judged in two ways.",
    ):
        quote = parse(item.evidence)
    report = quote.body
    assert isinstance(report, TdReport)  # noqa: S101  # versions 4 and 5 have nothing else; for the type checker
    vouched = follow_chain(quote, item, checks, Trust(tee=TEE, kinds=KINDS, roots=roots, now=now))
    collateral = vouched.endorsements.collateral
    state: TcbState | None = None
    if collateral is not None:
        checks.require(_judge_module(report, collateral.tcb_info), UnauthenticEvidenceError, tee=TEE)
        state = tdx_state(
            vouched.pck,
            quote.qe_report.isv_svn,
            collateral.tcb_info,
            collateral.qe_identity,
            tee_tcb_svn=report.tee_tcb_svn,
            tee_tcb_svn2=report.tee_tcb_svn2,
        )
    return TdxClaims(
        bound=report.report_data,
        version=quote.version,
        report=report,
        events=_replayed_events(item, report, checks),
        **platform_claims(vouched, state, now),
    )


def _judge_module(report: TdReport, tcb_info: TcbInfo) -> Finding:
    """A module that Intel does not know has no level either, which the policy's checks refuse."""
    identity = module_identity(tcb_info, report.tee_tcb_svn)
    holds = identity is None or (
        report.mr_signer_seam == identity.mr_signer
        and equal_where(report.seam_attributes, identity.attributes, identity.attributes_mask)
    )
    expected = (
        f"MRSIGNERSEAM {identity.mr_signer.hex()}, SEAMATTRIBUTES {identity.attributes.hex()} where "
        f"{identity.attributes_mask.hex()}"
        if identity
        else "a TDX module that Intel knows"
    )
    return judge(
        holds=holds,
        code=f"{TEE}.module_identity",
        expected=expected,
        found=f"MRSIGNERSEAM {report.mr_signer_seam.hex()}, SEAMATTRIBUTES {report.seam_attributes.hex()}",
        why="Only Intel's TDX module keeps the host out of a TD.",
    )


def _replayed_events(item: EvidenceItem, report: TdReport, checks: Checks) -> tuple[MeasuredEvent, ...] | None:
    log = dict(item.endorsements).get(CCEL)
    if log is None:
        return None
    with checks.parsing(
        code=f"{TEE}.ccel_format",
        expected="a CCEL event log with digests of SHA-384",
        why="What can be read in two ways can be judged in two ways.",
    ):
        events = parse_ccel(log, tee=TEE)
    finding = judge_replay(events, report.runtime_registers, tee=TEE)
    checks.require(finding, UnauthenticEvidenceError, tee=TEE)
    return events


def check(claims: TdxClaims, policy: TdxPolicy) -> Iterator[Finding]:
    """Compare the platform, the TD's attributes and its measurements with the policy."""
    yield from check_platform(claims, policy)
    if claims.state is not None and claims.report.tee_tcb_svn2 is not None:
        yield judge_status(policy, f"{TEE}.tcb_status_current", claims.state.current)
    yield from _check_attributes(claims, policy)
    for name in _ACCEPTED:
        yield _judge_digest(claims, policy, name)
    yield judge_events(policy.measured_events, claims.events, claims.report.runtime_registers, tee=TEE)


def _check_attributes(claims: TdxClaims, policy: TdxPolicy) -> Iterator[Finding]:
    attributes, xfam = _number(claims.report.td_attributes), _number(claims.report.xfam)
    for name in ATTRIBUTE_BITS:
        yield judge_flag(
            getattr(policy, name),
            code=f"{TEE}.{name}",
            found=claims.attribute(name),
            why=_WHY[name],
            hint=_HINTS.get(name, ""),
        )
    known = sum(1 << bit for bit in ATTRIBUTE_BITS.values())
    yield _judge_zero("under_debug", attributes & _UNDER_DEBUG & ~1, "Each of these bits exposes a TD as debug does.")
    yield _judge_zero(
        "attributes_reserved", attributes & ~known & ~_UNDER_DEBUG, "Nobody knows what an unknown bit allows."
    )
    yield judge(
        holds=xfam & _XFAM_ALWAYS == _XFAM_ALWAYS and not xfam & ~_XFAM_POSSIBLE,
        code=f"{TEE}.xfam_fixed",
        expected=f"bits {_XFAM_ALWAYS:#x} set, and none outside {_XFAM_POSSIBLE:#x}",
        found=f"{xfam:#x}",
        why="The TDX module starts no TD with other features.",
    )
    yield judge_masked(
        policy.xfam,
        code=f"{TEE}.xfam",
        found=claims.report.xfam,
        why="Each extended feature that a TD may use is more state that it must keep.",
    )


def _judge_zero(name: str, bits: int, why: str) -> Finding:
    return judge(holds=not bits, code=f"{TEE}.{name}", expected="0", found=f"{bits:#x}", why=why)


def _judge_digest(claims: TdxClaims, policy: TdxPolicy, name: str) -> Finding:
    accepted = getattr(policy, name)
    found: bytes | None = getattr(claims.report, _FIELD_OF.get(name, name))
    if found is not None:
        return judge_accepted(accepted, code=f"{TEE}.{name}", found=found, why=_WHY[name], hint=_HINTS.get(name, ""))
    return _judge_absent_service_td(accepted)


def _judge_absent_service_td(accepted: tuple[bytes, ...] | Skip) -> Finding:
    """A quote of version 4 does not name service TDs; whoever expects one is not told of it."""
    code, found, why = f"{TEE}.mr_service_td", "not in a quote of version 4", _WHY["mr_service_td"]
    if isinstance(accepted, Skip):
        return leave_out(code=code, reason=accepted.reason, found=found, why=why)
    none = bytes(_DIGEST_BYTES)
    return judge(holds=none in accepted, code=code, expected="a service TD that is accepted", found=found, why=why)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")


def parse_policy(section: Section) -> TdxPolicy:
    """Read `[tee.tdx]`.

    Raises:
        InvalidPolicyError: anything but exactly that table.
    """
    section.require_keys("track", *INTEL_FIELDS, *_ACCEPTED, *ATTRIBUTE_BITS, "xfam", "measured_events")
    fields: dict[str, Any] = {name: read_accepted(section, name, _DIGEST_BYTES) for name in _ACCEPTED}
    fields |= {name: read_flag(section, name) for name in ATTRIBUTE_BITS}
    return TdxPolicy(
        track=read_track(section, trackable(TEE, CODES)),
        xfam=read_masked(section, "xfam", _XFAM_BYTES),
        measured_events=read_accepted(section, "measured_events", _DIGEST_BYTES),
        **read_intel_fields(section),
        **fields,
    )
