"""Is this evidence trusted? The one function that decides (docs/spec/appraisal.md §1, the same six steps).

Pure: no network, clock, operating system or randomness; it returns a result or raises, never a bool.
Leaves out: the keyset, its service, operator and times (channel/attested.py), which are about the keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.binding import Mode, device_digest
from blindai.attestation.checks import Checks, failed, judge, leave_out
from blindai.attestation.evidence import AttestationResult, Claims
from blindai.attestation.policy import skipped_checks
from blindai.attestation.tee import TEES, simulation
from blindai.errors import PolicyViolationError, StaleEvidenceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.attestation.binding import Binding
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.policy import Policy


def appraise(evidence: Sequence[EvidenceItem], policy: Policy, *, binding: Binding, now: float) -> AttestationResult:
    """Decide whether evidence is what the policy accepts, and about what the binding says.

    Args:
        evidence: everything that the server showed.
        policy: what the relying party accepts.
        binding: what the evidence must be about, computed by the verifier from what it knows.
        now: the verifier's time, in Unix seconds.

    Raises:
        MalformedEvidenceError: step 2, an item cannot be parsed exactly.
        UnauthenticEvidenceError: step 2, no signed way to a pinned root.
        StaleEvidenceError: steps 3 and 4, about other keys or another machine.
        PolicyViolationError: step 1, not the TEEs that the policy names; step 5, claims that it does not accept.
            Each error's `findings` holds every check made so far; step 5 makes all of its checks first.
    """
    checks = Checks()
    # 1. Exactly the TEEs that the policy names: nothing missing, nothing extra.
    _require_named_tees(evidence, policy, checks)
    # 2. Each item is parsed exactly, and is authentic at `now`.
    claims: tuple[Claims, ...] = tuple(TEES[item.tee].verify(item, now, checks) for item in evidence)
    # 3. Each item is bound to the keys and the challenge.
    _require_binding(claims, binding, checks)
    # 4. The items speak for one machine.
    _require_one_machine(claims, binding, checks)
    # 5. The claims meet the policy; every finding is collected before anything is raised.
    _require_policy(claims, policy, checks)
    # 6. The result names every check, and the skipped ones with their reason.
    checks.record(skipped_checks(policy))
    return AttestationResult(
        tees=tuple(claim.tee for claim in claims),
        claims=claims,
        findings=checks.findings,
        simulated=any(claim.tee == simulation.TEE for claim in claims),
    )


def _require_named_tees(evidence: Sequence[EvidenceItem], policy: Policy, checks: Checks) -> None:
    shown = sorted(item.tee for item in evidence)
    named = sorted(tee.tee for tee in policy.tees)
    for finding in (
        _judge_simulation(policy, is_shown=simulation.TEE in shown),
        judge(
            holds=bool(named),
            code="policy.no_reference_values",
            expected="a policy that names at least one TEE and its reference values",
            found=f"{policy.source}: {_list(named)}",
            why="Authentic evidence of unknown software says only that somebody owns such hardware.",
            hint="reference values are the measurements that you trust: get them from whoever builds the server, "
            "write them into a policy file, and give it with policy=… or --policy FILE",
        ),
        judge(
            holds=shown == named and all(name in TEES for name in shown),
            code="policy.tees",
            expected=f"evidence of exactly {_list(named)}",
            found=_list(shown),
            why="A TEE that is missing, doubled or not expected is not the machine that the policy describes.",
        ),
    ):
        checks.require(finding, PolicyViolationError)


def _judge_simulation(policy: Policy, *, is_shown: bool) -> Finding:
    found = "simulated evidence" if is_shown else "none"
    why = "A simulated server protects nothing: anybody can make its evidence."
    if policy.insecure_simulation:
        reason = "the policy says insecure_simulation"
        return leave_out(code="simulation.not_accepted", reason=reason, found=found, why=why)
    return judge(
        holds=not is_shown,
        code="simulation.not_accepted",
        expected="no simulated evidence",
        found=found,
        why=why,
        hint="a simulated server protects nothing; to use one on purpose, with data that anybody may see, "
        "say insecure_simulation=True or --insecure-simulation",
    )


def _require_binding(claims: Sequence[Claims], binding: Binding, checks: Checks) -> None:
    challenge_bytes = len(binding.challenge)
    mode = judge(
        holds=challenge_bytes == (32 if binding.mode is Mode.FRESH else 0),
        code="binding.mode",
        expected="a challenge of 32 bytes when fresh, none when cached",
        found=f"{binding.mode.name.lower()} with a challenge of {challenge_bytes} bytes",
        why="Evidence made for everybody must not pass for evidence made for us.",
    )
    checks.require(mode, StaleEvidenceError)
    for claim in claims:
        expected = TEES[claim.tee].slot(binding)
        bound = judge(
            holds=claim.bound == expected,
            code="binding.report_data",
            expected=expected.hex(),
            found=claim.bound.hex(),
            why="Evidence is worth something only for the keys and the nonce that it names.",
            hint="the evidence is about other keys or an older nonce; someone may be replaying it",
        )
        checks.require(bound, StaleEvidenceError, tee=claim.tee)


def _require_one_machine(claims: Sequence[Claims], binding: Binding, checks: Checks) -> None:
    """No TEE of this release stands beside another or has devices, so one machine is one item."""
    finding = judge(
        holds=len(claims) == 1 and binding.device_digest == device_digest([]),
        code="machine.one",
        expected="one TEE and no devices",
        found=f"{len(claims)} TEE{'' if len(claims) == 1 else 's'} and "
        f"{'no devices' if binding.device_digest == device_digest([]) else 'devices'}",
        why="Evidence of two machines, each good, may hide a third.",
    )
    checks.require(finding, StaleEvidenceError)


def _require_policy(claims: Sequence[Claims], policy: Policy, checks: Checks) -> None:
    for claim in claims:
        checks.record(TEES[claim.tee].check(claim, policy.for_tee(claim.tee)))
    bad = failed(checks.findings)
    if bad:
        raise checks.rejection(bad[0], PolicyViolationError, tee=bad[0].code.partition(".")[0])


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "no TEE"
