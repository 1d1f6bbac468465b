"""What SGX and TDX share after the signatures: how recent Intel's word is, and which states of a platform are accepted.

The fields stand beside those of the TEE in its table of the policy (docs/spec/tee/tdx.md §4, docs/spec/tee/sgx.md §4).
Leaves out: what the report itself must hold (tee/sgx.py, tee/tdx.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blindai.attestation.checks import FETCH_THEM, judge, leave_out
from blindai.attestation.evidence import Claims
from blindai.attestation.expectations import (
    judge_accepted,
    judge_minimum,
    judge_names,
    one_of,
    read_accepted,
    read_flag,
    read_minimum,
    read_names,
)
from blindai.attestation.intel.collateral import TcbStatus
from blindai.attestation.policy_file import Skip, TeePolicy
from blindai.attestation.x509_chain import utc_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blindai.attestation.evidence import Finding
    from blindai.attestation.intel.chain import Vouched
    from blindai.attestation.intel.pck import Pck
    from blindai.attestation.intel.tcb import TcbState
    from blindai.attestation.policy_file import Section

INTEL_FIELDS = (
    "tcb_statuses",
    "accepted_advisories",
    "minimum_evaluation_number",
    "collateral_grace_s",
    "revocation_grace_s",
    "platforms",
    "dynamic_platform",
    "cached_keys",
    "smt_enabled",
)
_PPID_BYTES = 16
# A platform whose keys Intel took back is not offered as a state that somebody could accept.
_ACCEPTABLE = tuple(status.value for status in TcbStatus if status is not TcbStatus.REVOKED)
_FLAGS = {
    "dynamic_platform": "On a dynamic platform whoever holds the machine can add processor packages to it.",
    "cached_keys": "With cached keys Intel keeps a copy of the platform's root keys, to certify it anew without it.",
    "smt_enabled": "Threads that share a core with the workload can watch it through the caches.",
}
INTEL_CODES = (
    "collateral",
    "collateral_time",
    "evaluation_number",
    "revocation_lists",
    "revocation_time",
    "tcb_level",
    "tcb_status",
    "advisories",
    "platform",
    *_FLAGS,
)
# Without these the quoting enclave is nobody's, and what was revoked would pass.
_NEVER_TRACKED = ("collateral", "tcb_level")


def trackable(tee: str, codes: Iterable[str]) -> frozenset[str]:
    """The codes of a TEE's checks that a policy may only track."""
    return frozenset(codes).difference(f"{tee}.{code}" for code in _NEVER_TRACKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From the youngest issue to the earliest next update of some documents, in Unix seconds."""

    issued: float
    next_update: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelClaims(Claims):
    """What Intel says of the platform.

    Attributes:
        at: the time of the verification, in Unix seconds.
        collateral: None if no collateral came with the quote; then there is no state either.
        evaluation_number: the smaller one of TCB info and QE identity.
        revocation: None if a revocation list is missing.
    """

    at: float
    pck: Pck
    state: TcbState | None
    collateral: Period | None
    evaluation_number: int | None
    revocation: Period | None

    def platform_facts(self) -> tuple[tuple[str, str], ...]:
        """The claims that SGX and TDX share, each as a name and a text."""
        state = self.state
        return (
            ("FMSPC", self.pck.fmspc.hex()),
            ("PPID", self.pck.ppid.hex()),
            ("PCESVN", str(self.pck.pce_svn)),
            ("CPUSVN", self.pck.cpu_svn.hex()),
            ("TCB status", _status_text(state.status) if state else "unknown without collateral"),
            ("TCB date", utc_text(state.date) if state and state.date is not None else "none"),
            ("advisories", ", ".join(state.advisories) or "none" if state else "unknown without collateral"),
            ("QE status", _status_text(state.qe) if state else "unknown without collateral"),
            ("TCB evaluation data number", _told(self.evaluation_number)),
            *((name.replace("_", " "), _flag_text(getattr(self.pck, name))) for name in _FLAGS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelPolicy(TeePolicy):
    """What a policy accepts of the platform.

    Attributes:
        tcb_statuses: names of `TcbStatus`; `Revoked` is never among them.
        accepted_advisories: every advisory that applies to the platform must be among these.
        minimum_evaluation_number: the least TCB evaluation data number; higher ones know of newer advisories.
        collateral_grace_s: for how many seconds past its next update collateral is still used.
        revocation_grace_s: the same for revocation lists; skipped, they may also be missing.
        platforms: PPIDs of 16 bytes.
        dynamic_platform: whether it must be one; likewise the next two.
    """

    tcb_statuses: tuple[str, ...] | Skip
    accepted_advisories: tuple[str, ...] | Skip
    minimum_evaluation_number: int | Skip
    collateral_grace_s: int | Skip
    revocation_grace_s: int | Skip
    platforms: tuple[bytes, ...] | Skip
    dynamic_platform: bool | Skip
    cached_keys: bool | Skip
    smt_enabled: bool | Skip


def platform_claims(vouched: Vouched, state: TcbState | None, now: float) -> dict[str, Any]:
    """The shared fields of the claims."""
    endorsements = vouched.endorsements
    collateral = endorsements.collateral
    issues = [collateral.tcb_info.issue, collateral.qe_identity.issue] if collateral else []
    lists = [one for one in (endorsements.root_ca_crl, endorsements.pck_crl) if one is not None]
    return {
        "at": now,
        "pck": vouched.pck,
        "state": state,
        "collateral": _period([(issue.issued, issue.next_update) for issue in issues], count=2),
        "evaluation_number": min((issue.evaluation_number for issue in issues), default=None),
        "revocation": _period([(one.issued, one.next_update) for one in lists], count=2),
    }


def _period(documents: list[tuple[float, float]], *, count: int) -> Period | None:
    if len(documents) < count:
        return None
    return Period(issued=max(issued for issued, _ in documents), next_update=min(update for _, update in documents))


def read_intel_fields(section: Section) -> dict[str, Any]:
    """The shared fields of a TEE's table.

    Raises:
        InvalidPolicyError: one of them is of another form.
    """
    minima = ("minimum_evaluation_number", "collateral_grace_s", "revocation_grace_s")
    return {
        "tcb_statuses": read_names(section, "tcb_statuses", _ACCEPTABLE),
        "accepted_advisories": read_names(section, "accepted_advisories"),
        "platforms": read_accepted(section, "platforms", _PPID_BYTES),
        **{name: read_minimum(section, name) for name in minima},
        **{name: read_flag(section, name) for name in _FLAGS},
    }


def check_platform(claims: IntelClaims, policy: IntelPolicy) -> Iterator[Finding]:
    """Compare what Intel says of the platform with the policy."""
    yield from _check_collateral(claims, policy)
    yield from _check_revocation(claims, policy)
    yield from _check_state(claims, policy)
    yield judge_accepted(
        policy.platforms,
        code=f"{claims.tee}.platform",
        found=claims.pck.ppid,
        why="Whoever holds a machine can take its keys by tapping its memory bus, and no evidence shows that.",
        hint="list the PPIDs of machines in hands that you trust",
    )
    for name, why in _FLAGS.items():
        yield _judge_optional_flag(
            getattr(policy, name), code=f"{claims.tee}.{name}", found=getattr(claims.pck, name), why=why
        )


def _check_collateral(claims: IntelClaims, policy: IntelPolicy) -> Iterator[Finding]:
    yield judge(
        holds=claims.collateral is not None,
        code=f"{claims.tee}.collateral",
        expected="TCB info and QE identity",
        found="both" if claims.collateral else "none",
        why="Without them nobody knows whether Intel's quoting enclave signed, or what the platform's SVNs are worth.",
        hint=f"ask the operator to staple them as Intel's PCS or a PCCS gives them, or {FETCH_THEM}",
    )
    if claims.collateral is None:
        return
    yield _judge_period(
        claims.collateral,
        claims.at,
        policy.collateral_grace_s,
        code=f"{claims.tee}.collateral_time",
        why="Old collateral does not know of newer advisories.",
    )
    yield judge_minimum(
        policy.minimum_evaluation_number,
        code=f"{claims.tee}.evaluation_number",
        found=claims.evaluation_number or 0,
        why="Intel publishes early and standard collateral side by side; the higher number knows of more.",
        hint="ask for the collateral of update=early, or lower minimum_evaluation_number",
    )


def _check_revocation(claims: IntelClaims, policy: IntelPolicy) -> Iterator[Finding]:
    code, found = f"{claims.tee}.revocation_lists", "both" if claims.revocation else "at least one missing"
    why = "A key that Intel took back still signs."
    if isinstance(policy.revocation_grace_s, Skip):
        yield leave_out(code=code, reason=policy.revocation_grace_s.reason, found=found, why=why)
    else:
        yield judge(
            holds=claims.revocation is not None,
            code=code,
            expected="the revocation lists of the root and of the PCK's issuer",
            found=found,
            why=why,
            hint=f"ask the operator to staple root_ca_crl, pck_crl and pck_crl_issuer_chain, or {FETCH_THEM}",
        )
    if claims.revocation is not None:
        yield _judge_period(
            claims.revocation,
            claims.at,
            policy.revocation_grace_s,
            code=f"{claims.tee}.revocation_time",
            why="A list that Intel has replaced does not know of the keys that it took back since.",
        )


def _judge_period(period: Period, at: float, grace_s: int | Skip, *, code: str, why: str) -> Finding:
    found = f"{utc_text(period.issued)} to {utc_text(period.next_update)}"
    if isinstance(grace_s, Skip):
        return leave_out(code=code, reason=grace_s.reason, found=found, why=why)
    grace = f", or past its end by {grace_s} s at most" if grace_s else ""
    return judge(
        holds=period.issued <= at <= period.next_update + grace_s,
        code=code,
        expected=f"a period that holds {utc_text(at)}{grace}",
        found=found,
        why=why,
        hint=f"ask the operator to staple the documents of today, or {FETCH_THEM}; the policy's grace_s fields can "
        "accept old ones for longer",
    )


def _check_state(claims: IntelClaims, policy: IntelPolicy) -> Iterator[Finding]:
    state = claims.state
    if state is None:
        return
    parts = f"platform {_status_text(state.platform)}, QE {_status_text(state.qe)}"
    if state.module is not None or state.status is None:
        parts += f", TDX module {_status_text(state.module)}" if claims.tee == "tdx" else ""
    yield judge(
        holds=state.status not in {None, TcbStatus.REVOKED},
        code=f"{claims.tee}.tcb_level",
        expected="a level that Intel supports and has not revoked",
        found=parts,
        why="Below Intel's lowest level nobody says what an attacker can do.",
        hint="the platform needs newer firmware, microcode or TDX module; ask its operator",
    )
    yield judge_status(policy, f"{claims.tee}.tcb_status", state.status)
    yield judge_names(
        policy.accepted_advisories,
        code=f"{claims.tee}.advisories",
        found=state.advisories,
        why="Each advisory names a weakness that this platform still has.",
        hint="read each at intel.com/security-center, and list in accepted_advisories those that do not concern you",
    )


def judge_status(policy: IntelPolicy, code: str, status: TcbStatus | None) -> Finding:
    """Whether the policy lists a state."""
    why = "The state says what Intel still advises to do before the platform is to be trusted."
    if isinstance(policy.tcb_statuses, Skip):
        return leave_out(code=code, reason=policy.tcb_statuses.reason, found=_status_text(status), why=why)
    return judge(
        holds=status is not None and status.value in policy.tcb_statuses,
        code=code,
        expected=one_of(policy.tcb_statuses),
        found=_status_text(status),
        why=why,
        hint="the platform's operator can update it; to accept the state, list it in tcb_statuses",
    )


def _judge_optional_flag(required: bool | Skip, *, code: str, found: bool | None, why: str) -> Finding:  # noqa: FBT001  # the policy's value
    if isinstance(required, Skip):
        return leave_out(code=code, reason=required.reason, found=_flag_text(found), why=why)
    return judge(holds=found is required, code=code, expected=_flag_text(required), found=_flag_text(found), why=why)


def _flag_text(flag: bool | None) -> str:  # noqa: FBT001  # what it is about
    return "not said" if flag is None else str(flag).lower()


def _told(number: int | None) -> str:
    return "unknown without collateral" if number is None else str(number)


def _status_text(status: TcbStatus | None) -> str:
    return "without a level" if status is None else status.value
