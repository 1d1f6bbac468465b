"""Is this evidence trusted? The one function that decides (docs/spec/appraisal.md §1, the same six steps).

Pure: no network, clock, operating system or randomness; it returns a result or raises, never a bool.
Leaves out: the keyset, its service, operator and times (channel/attested.py), which are about the keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.attestation.binding import InsecureUnbound, Mode, device_digest
from blindai.attestation.checks import Checks, failed, judge, leave_out, only_track
from blindai.attestation.evidence import AttestationResult, Claims
from blindai.attestation.policy import skipped_checks
from blindai.attestation.tee import TEES, Role, device_evidence, simulation
from blindai.errors import PolicyViolationError, StaleEvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blindai.attestation.binding import Binding
    from blindai.attestation.evidence import EvidenceItem, Finding
    from blindai.attestation.policy import Policy
    from blindai.attestation.policy_file import TeePolicy


def appraise(
    evidence: Sequence[EvidenceItem], policy: Policy, *, binding: Binding | InsecureUnbound, now: float
) -> AttestationResult:
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
    # 1. Exactly the TEEs that an alternative of the policy names: nothing missing, nothing extra.
    alternatives = _require_named_tees(evidence, policy, checks)
    # 2. Each item is parsed exactly, and is authentic at `now`.
    claims: tuple[Claims, ...] = tuple(TEES[item.tee].verify(item, now, checks) for item in evidence)
    # 3. Each item is bound to the keys and the challenge, or to the item that carries the binding for it.
    _require_binding(claims, binding, checks)
    # 4. The items speak for one machine.
    _require_one_machine(evidence, claims, binding, checks)
    # 5. The claims meet the policy; every finding is collected before anything is raised.
    _require_policy(claims, alternatives, checks)
    # 6. The result names every check, and the skipped ones with their reason.
    checks.record(skipped_checks(policy))
    return AttestationResult(
        tees=tuple(claim.tee for claim in claims),
        claims=claims,
        findings=checks.findings,
        simulated=any(claim.tee == simulation.TEE for claim in claims),
    )


def _require_named_tees(
    evidence: Sequence[EvidenceItem], policy: Policy, checks: Checks
) -> tuple[tuple[TeePolicy, ...], ...]:
    """The alternatives that name what is shown; a device may be shown several times."""
    shown = sorted(_once_per_device(item.tee for item in evidence))
    fitting = tuple(tees for tees in policy.any_of if sorted(tee.tee for tee in tees) == shown)
    named = " or ".join(_list([tee.tee for tee in tees]) for tees in policy.any_of) or "no TEE"
    for finding in (
        _judge_simulation(policy, is_shown=simulation.TEE in shown),
        judge(
            holds=bool(policy.any_of),
            code="policy.no_reference_values",
            expected="a policy that names at least one TEE and its reference values",
            found=f"{policy.source}: {named}",
            why="Authentic evidence of unknown software says only that somebody owns such hardware.",
            hint="reference values are the measurements that you trust: get them from whoever builds the server, "
            "write them into a policy file, and give it with policy=… or --policy FILE",
        ),
        judge(
            holds=bool(fitting) and all(name in TEES for name in shown),
            code="policy.tees",
            expected=f"evidence of exactly {named}",
            found=_list(shown),
            why="A TEE that is missing, doubled or not expected is not the machine that the policy describes.",
        ),
    ):
        checks.require(finding, PolicyViolationError)
    return fitting


def _once_per_device(shown: Iterable[str]) -> Iterator[str]:
    devices = set()
    for name in shown:
        if name in TEES and TEES[name].role is Role.DEVICE:
            if name in devices:
                continue
            devices.add(name)
        yield name


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


def _require_binding(claims: Sequence[Claims], binding: Binding | InsecureUnbound, checks: Checks) -> None:
    if isinstance(binding, InsecureUnbound):
        checks.record(_leave_out_binding(claim, binding) for claim in claims)
        return
    challenge_bytes = len(binding.challenge)
    mode = judge(
        holds=challenge_bytes == (32 if binding.mode is Mode.FRESH else 0),
        code="binding.mode",
        expected="a challenge of 32 bytes when fresh, none when cached",
        found=f"{binding.mode.name.lower()} with a challenge of {challenge_bytes} bytes",
        why="Evidence made for everybody must not pass for evidence made for us.",
    )
    checks.require(mode, StaleEvidenceError)
    is_carried = any(TEES[claim.tee].role is Role.CARRIER for claim in claims)
    for claim in claims:
        if is_carried and TEES[claim.tee].role is Role.MACHINE:
            continue  # step 4 compares it with the item that carries the binding for it
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


def _leave_out_binding(claim: Claims, unbound: InsecureUnbound) -> Finding:
    return leave_out(
        code="binding.report_data",
        reason=unbound.reason,
        found=claim.bound.hex(),
        why="Evidence that is bound to nothing may be anybody's, shown by anybody.",
    )


def _require_one_machine(
    evidence: Sequence[EvidenceItem],
    claims: Sequence[Claims],
    binding: Binding | InsecureUnbound,
    checks: Checks,
) -> None:
    by_role = {role: [claim for claim in claims if TEES[claim.tee].role is role] for role in Role}
    for finding in (
        _judge_count(by_role[Role.MACHINE], by_role[Role.CARRIER]),
        *_judge_carried(evidence, by_role[Role.MACHINE], by_role[Role.CARRIER]),
        *_judge_devices(by_role[Role.DEVICE]),
    ):
        checks.require(finding, StaleEvidenceError)
    if not isinstance(binding, InsecureUnbound):
        checks.require(_judge_device_digest(evidence, binding), StaleEvidenceError)


def _judge_count(machines: Sequence[Claims], carriers: Sequence[Claims]) -> Finding:
    return judge(
        holds=len(machines) == 1 and len(carriers) <= 1,
        code="machine.one",
        expected="one machine",
        found=f"{len(machines)} machine{'' if len(machines) == 1 else 's'}, {len(carriers)} carrying the binding",
        why="Evidence of two machines, each good, may hide a third.",
    )


def _judge_carried(
    evidence: Sequence[EvidenceItem], machines: Sequence[Claims], carriers: Sequence[Claims]
) -> Iterator[Finding]:
    """The CPU's report names the vTPM's key, and the vTPM's quote the binding."""
    for machine, carrier in zip(machines, carriers, strict=False):
        expected = carrier.carrier_report_data() or b""
        yield judge(
            holds=machine.bound == expected,
            code="machine.carrier",
            expected=expected.hex(),
            found=machine.bound.hex(),
            why="Otherwise a quote of one machine's vTPM could stand beside another machine's report.",
        )
        shown = [item.evidence for item in evidence if item.tee == machine.tee]
        is_its_own = all(carrier.carries_for(machine.tee, report) for report in shown)
        yield judge(
            holds=is_its_own,
            code="machine.carried_report",
            expected=f"the report for which the evidence of {carrier.tee} was made",
            found="that report" if is_its_own else f"another report of {machine.tee}",
            why="What was measured beside one report says nothing about the machine of another.",
        )


def _judge_devices(devices: Sequence[Claims]) -> Iterator[Finding]:
    identities = [device.device_identity() for device in devices]
    if devices:
        yield judge(
            holds=None not in identities and len(set(identities)) == len(identities),
            code="machine.devices_differ",
            expected=f"{len(devices)} different devices",
            found=f"{len(set(identities))} different",
            why="One good device shown twice may hide a bad one.",
        )


def _judge_device_digest(evidence: Sequence[EvidenceItem], binding: Binding) -> Finding:
    expected = device_digest(device_evidence(evidence))
    return judge(
        holds=binding.device_digest == expected,
        code="machine.devices_bound",
        expected=expected.hex(),
        found=binding.device_digest.hex(),
        why="Devices that the CPU's evidence does not name can be exchanged.",
    )


def _require_policy(claims: Sequence[Claims], alternatives: Sequence[Sequence[TeePolicy]], checks: Checks) -> None:
    """One alternative must be met whole; if none is, the one that fails least is told."""
    judged = [tuple(_check_all(claims, tees)) for tees in alternatives]
    best = min(judged, key=lambda findings: len(failed(findings)))
    checks.record(best)
    bad = failed(best)
    if bad:
        first = bad[0]
        raise checks.rejection(first, PolicyViolationError, tee=first.code.partition(".")[0])


def _check_all(claims: Sequence[Claims], tees: Sequence[TeePolicy]) -> Iterator[Finding]:
    policies = {tee.tee: tee for tee in tees}
    for claim in claims:
        accepted = policies[claim.tee]
        yield from only_track(TEES[claim.tee].check(claim, accepted), accepted.track)
    for accepted in tees:
        if together := TEES[accepted.tee].check_together:
            shown = [claim for claim in claims if claim.tee == accepted.tee]
            yield from only_track(together(shown, accepted), accepted.track)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "no TEE"
