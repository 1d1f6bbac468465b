"""Several items appraised as one machine: a CPU with its GPUs, a vTPM beside its CPU, and policies with alternatives.

Fake vendors sign; their roots stand in the table of TEEs in place of the real ones, and nothing else is replaced.
"""

from __future__ import annotations

import dataclasses
import functools
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from fakes import amd, azure, nvidia
from fakes.machines import machines, strict_policy_of
from fakes.tpm_vendor import FakeTpm

from blindai.attestation.appraise import appraise
from blindai.attestation.binding import Binding, InsecureUnbound, Mode, device_digest
from blindai.attestation.checks import Checks
from blindai.attestation.evidence import EvidenceItem, Level, Outcome
from blindai.attestation.policy import Policy
from blindai.attestation.policy_file import Skip, TeePolicy
from blindai.attestation.tee import TEES, Role, sev_snp
from blindai.attestation.tee.sev_snp import SevSnpPolicy
from blindai.attester.simulation import SimulationAttester
from blindai.errors import PolicyViolationError, RejectedEvidenceError, StaleEvidenceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blindai.attestation.evidence import AttestationResult

NOW = amd.NOW.timestamp()
SKIP = Skip(reason="not tested here")
UNDEVICED = Binding(mode=Mode.FRESH, keyset_id=b"k" * 32, challenge=b"c" * 32)
UNBOUND = InsecureUnbound(reason="judged alone")


@pytest.fixture(autouse=True)
def _fake_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    verifiers: dict[str, Any] = {tee: machines()[tee].verify for tee in ("nvidia_gpu", "azure_vtpm")}
    verifiers["sev_snp"] = lambda item, now, checks: sev_snp.verify(item, now, checks, roots=amd.pinned(item))
    for tee, verify in verifiers.items():
        monkeypatch.setitem(TEES, tee, dataclasses.replace(TEES[tee], verify=verify))


def policy(*any_of: Sequence[TeePolicy]) -> Policy:
    return Policy(
        source="test",
        insecure_simulation=any(tee.tee == "simulation" for tees in any_of for tee in tees),
        minimum_level=Level.FRESH,
        operator=SKIP,
        runtime=SKIP,
        any_of=tuple(tuple(tees) for tees in any_of),
        release=SKIP,
    )


@functools.cache
def gpu(number: int) -> EvidenceItem:
    """One of a pool of GPUs that answer the nonce of `UNDEVICED`; each has a serial number of its own."""
    chain = nvidia.device_chain(serial=0x41431D480FE5E87274 + number)
    of_device = tuple(nvidia.answer(child, issuer) for child, issuer in pairwise(chain[1:]))
    answers = (*of_device, *nvidia.good_answers()[len(of_device) :])
    report = nvidia.report(nonce=UNDEVICED.device_nonce())
    return nvidia.hopper().replace(report=report, chain=chain, answers=answers).item()


def bound_to(*devices: EvidenceItem) -> Binding:
    return dataclasses.replace(UNDEVICED, device_digest=device_digest([device.evidence for device in devices]))


def cpu(binding: Binding) -> EvidenceItem:
    item = amd.FakeMachine(fields={"report_data": binding.bound()}).item()
    return dataclasses.replace(item, endorsements=machines()["sev_snp"].item.endorsements)


def strict(*tees: str) -> tuple[TeePolicy, ...]:
    return tuple(strict_policy_of(tee) for tee in tees)


def judged(items: Sequence[EvidenceItem], accepted: Policy, binding: Binding | InsecureUnbound) -> AttestationResult:
    return appraise(items, accepted, binding=binding, now=NOW)


def refusal_of(
    items: Sequence[EvidenceItem],
    accepted: Policy,
    binding: Binding | InsecureUnbound,
    error: type[RejectedEvidenceError] = StaleEvidenceError,
) -> RejectedEvidenceError:
    with pytest.raises(RejectedEvidenceError) as refusal:
        judged(items, accepted, binding)
    assert type(refusal.value) is error
    return refusal.value


def gpus_policy(gpus: int) -> Policy:
    device = dataclasses.replace(strict_policy_of("nvidia_gpu"), gpus=gpus, switches=0)  # type: ignore[call-arg]
    return policy((*strict("sev_snp"), device))


# --- a CPU and its GPUs


def test_a_cpu_and_its_gpus_are_one_machine() -> None:
    binding = bound_to(gpu(0), gpu(1))
    result = judged([cpu(binding), gpu(0), gpu(1)], gpus_policy(2), binding)
    assert result.tees == ("sev_snp", "nvidia_gpu", "nvidia_gpu")
    codes = [finding.code for finding in result.findings if finding.outcome is Outcome.PASSED]
    assert codes.count("binding.report_data") == 3
    for code in ("machine.one", "machine.devices_differ", "machine.devices_bound"):
        assert codes.count(code) == 1


def test_gpus_in_another_order_are_other_gpus() -> None:
    binding = bound_to(gpu(0), gpu(1))
    refused = refusal_of([cpu(binding), gpu(1), gpu(0)], gpus_policy(2), binding)
    assert refused.finding_code == "machine.devices_bound"


def test_one_gpu_shown_twice_is_refused() -> None:
    binding = bound_to(gpu(0), gpu(0))
    refused = refusal_of([cpu(binding), gpu(0), gpu(0)], gpus_policy(2), binding)
    assert refused.finding_code == "machine.devices_differ"
    assert "2 different devices, found 1 different" in str(refused)


def test_a_gpu_that_the_cpu_does_not_name_is_refused() -> None:
    binding = bound_to(gpu(0))
    refused = refusal_of([cpu(UNDEVICED), gpu(0)], gpus_policy(1), UNDEVICED)
    assert refused.finding_code == "machine.devices_bound"
    refused = refusal_of([cpu(UNDEVICED), gpu(0)], gpus_policy(1), binding)
    assert (refused.finding_code, refused.tee) == ("binding.report_data", "sev_snp")


def test_a_gpu_that_answers_another_nonce_is_refused() -> None:
    old = machines()["nvidia_gpu"].item
    binding = bound_to(old)
    refused = refusal_of([cpu(binding), old], gpus_policy(1), binding)
    assert (refused.finding_code, refused.tee) == ("binding.report_data", "nvidia_gpu")


def test_gpus_alone_are_no_machine() -> None:
    binding = bound_to(gpu(0))
    refused = refusal_of([gpu(0)], policy(strict("nvidia_gpu")), binding)
    assert refused.finding_code == "machine.one"
    assert "found 0 machines" in str(refused)


def test_how_many_gpus_there_are_is_judged_over_all_of_them() -> None:
    binding = bound_to(gpu(0), gpu(1))
    refused = refusal_of([cpu(binding), gpu(0), gpu(1)], gpus_policy(3), binding, PolicyViolationError)
    assert refused.finding_code == "nvidia_gpu.gpus"


# --- a vTPM beside its CPU


def vm(binding: Binding = UNDEVICED) -> azure.FakeAzure:
    return azure.FakeAzure(tpm=FakeTpm(with_log=False, bound=binding.bound_32()))


def beside() -> Policy:
    return policy(strict("sev_snp", "azure_vtpm"))


def test_the_vtpm_carries_the_binding_for_its_cpu() -> None:
    machine, carrier = vm().items()
    result = judged([machine, carrier], tracking(beside()), UNDEVICED)
    codes = [finding.code for finding in result.findings if finding.outcome is Outcome.PASSED]
    assert codes.count("binding.report_data") == 1
    assert codes.count("machine.carrier") == codes.count("machine.carried_report") == 1


def tracking(accepted: Policy) -> Policy:
    """Every check of the claims is made, and refuses nothing: these tests are about the steps before."""
    codes = frozenset(f"{tee.tee}.{name}" for tees in accepted.any_of for tee in tees for name in _FAILING)
    return dataclasses.replace(
        accepted, any_of=tuple(tuple(dataclasses.replace(tee, track=codes) for tee in tees) for tees in accepted.any_of)
    )


_FAILING = ("crl", "revocation", "revocation_age", "vm_secure_boot", "ak_certified")


def test_a_binding_that_the_vtpm_does_not_carry_is_refused() -> None:
    refused = refusal_of(vm().items(), beside(), dataclasses.replace(UNDEVICED, challenge=b"C" * 32))
    assert (refused.finding_code, refused.tee) == ("binding.report_data", "azure_vtpm")


def test_a_vtpm_beside_another_machines_report_is_refused() -> None:
    _, carrier = vm().items()
    refused = refusal_of([cpu(UNDEVICED), carrier], beside(), UNDEVICED)
    assert refused.finding_code == "machine.carrier"


def test_a_vtpm_beside_another_report_of_its_machine_is_refused() -> None:
    machine, carrier = vm().items()
    again = amd.FakeMachine(fields={"report_data": vm().named(), "guest_svn": 7}).item()
    other = dataclasses.replace(machine, evidence=again.evidence)
    refused = refusal_of([other, carrier], beside(), UNDEVICED)
    assert refused.finding_code == "machine.carried_report"
    assert "another report of sev_snp" in str(refused)


def test_evidence_that_is_bound_to_nothing_is_still_one_machines() -> None:
    machine, carrier = vm().items()
    result = judged([machine, carrier], tracking(beside()), UNBOUND)
    reasons = [finding.reason for finding in result.findings if finding.code == "binding.report_data"]
    assert reasons == ["judged alone"] * 2
    refused = refusal_of([cpu(UNDEVICED), carrier], beside(), UNBOUND)
    assert refused.finding_code == "machine.carrier"


def test_two_vtpms_beside_one_cpu_are_refused() -> None:
    machine, carrier = vm().items()
    refused = refusal_of([machine, carrier, carrier], policy(strict("sev_snp", "azure_vtpm", "azure_vtpm")), UNDEVICED)
    assert refused.finding_code == "machine.one"
    assert "found 1 machine, 2 carrying the binding" in str(refused)


def test_what_says_nothing_of_a_report_carries_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    as_carrier = dataclasses.replace(TEES["simulation"], role=Role.CARRIER)
    monkeypatch.setitem(TEES, "simulation", as_carrier)
    simulated = policy(strict("sev_snp", "simulation"))
    carrier = SimulationAttester(bytes, bytes(32)).attest(UNDEVICED.bound())
    refused = refusal_of([cpu(UNDEVICED), carrier], simulated, UNDEVICED)
    assert refused.finding_code == "machine.carrier"
    assert refused.findings[-1].expected == ""


def test_a_device_that_does_not_say_which_it_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEES, "simulation", dataclasses.replace(TEES["simulation"], role=Role.DEVICE))
    simulated = policy(strict("sev_snp", "simulation"))
    device = SimulationAttester(bytes, bytes(32)).attest(b"n" * 64)
    refused = refusal_of([cpu(UNDEVICED), device], simulated, UNBOUND)
    assert refused.finding_code == "machine.devices_differ"


def test_a_machine_that_is_partly_simulated_is_simulated() -> None:
    devices = dataclasses.replace(strict_policy_of("nvidia_gpu"), gpus=1, switches=0)  # type: ignore[call-arg]
    accepted = policy((*strict("simulation"), devices))
    binding = bound_to(gpu(0))
    machine = SimulationAttester(bytes, bytes(32)).attest(binding.bound())
    assert judged([machine, gpu(0)], accepted, binding).simulated
    assert not judged([cpu(binding), gpu(0)], gpus_policy(1), binding).simulated


# --- alternatives, and checks that are only tracked


def test_the_first_of_several_failures_gives_the_error_its_name() -> None:
    accepted = pinning(b"x" * 48, host_data=(b"x" * 32,))
    refused = refusal_of([cpu(UNDEVICED)], policy((accepted,)), UNDEVICED, PolicyViolationError)
    failed = [one.code for one in refused.findings if one.outcome is Outcome.FAILED]
    assert len(failed) > 1
    assert refused.finding_code == failed[0]


@pytest.mark.parametrize("names", [["unheard_of"], ["sev_snp", "unheard_of"]])
def test_evidence_that_no_release_can_verify_is_refused_even_if_a_policy_names_it(names: list[str]) -> None:
    foreign = EvidenceItem(tee="unheard_of", evidence=b"", endorsements=())
    shown = [cpu(UNDEVICED) if name == "sev_snp" else foreign for name in names]
    unknown = TeePolicy(tee="unheard_of")
    named = tuple(strict_policy_of(name) if name in TEES else unknown for name in names)
    for accepted in (policy(named), policy(strict("sev_snp"))):
        assert refusal_of(shown, accepted, UNDEVICED, PolicyViolationError).finding_code == "policy.tees"


def test_a_policy_and_evidence_of_nothing_are_said_to_be_that() -> None:
    refused = refusal_of([], policy(strict("tdx")), UNDEVICED, PolicyViolationError)
    assert str(refused) == "policy.tees: expected evidence of exactly tdx, found no TEE"
    assert refused.findings[0].found == "none"
    refused = refusal_of([], policy(), UNDEVICED, PolicyViolationError)
    assert refused.findings[-1].found == "test: no TEE"


def pinning(measurement: bytes, **changes: object) -> SevSnpPolicy:
    accepted = strict_policy_of("sev_snp")
    assert isinstance(accepted, SevSnpPolicy)
    return dataclasses.replace(accepted, measurement=(measurement,), **changes)  # type: ignore[arg-type]  # fields


def test_any_alternative_that_is_met_accepts() -> None:
    good, bad = pinning(b"m" * 48), pinning(b"x" * 48)
    result = judged([cpu(UNDEVICED)], policy((bad,), (good,), strict("tdx")), UNDEVICED)
    (finding,) = (finding for finding in result.findings if finding.code == "sev_snp.measurement")
    assert (finding.outcome, finding.expected) == (Outcome.PASSED, (b"m" * 48).hex())


def test_the_alternative_that_fails_least_is_told() -> None:
    worse = pinning(b"x" * 48, host_data=(b"x" * 32,))
    refused = refusal_of([cpu(UNDEVICED)], policy((worse,), (pinning(b"y" * 48),)), UNDEVICED, PolicyViolationError)
    assert (refused.finding_code, refused.tee) == ("sev_snp.measurement", "sev_snp")
    assert (b"y" * 48).hex() in str(refused)
    assert [one.code for one in refused.findings if one.outcome is Outcome.FAILED] == ["sev_snp.measurement"]


def test_alternatives_are_not_mixed() -> None:
    one = (pinning(b"m" * 48, host_data=(b"x" * 32,)),)
    other = (pinning(b"x" * 48, host_data=SKIP),)
    refusal_of([cpu(UNDEVICED)], policy(one, other), UNDEVICED, PolicyViolationError)


def test_evidence_that_no_alternative_names_is_refused_with_all_of_them() -> None:
    refused = refusal_of([cpu(UNDEVICED)], policy(strict("tdx"), strict("sgx")), UNDEVICED, PolicyViolationError)
    assert refused.finding_code == "policy.tees"
    assert "exactly tdx or sgx, found sev_snp" in str(refused)


def test_a_tracked_check_is_made_and_refuses_nothing() -> None:
    accepted = pinning(b"x" * 48, track=frozenset({"sev_snp.measurement"}))
    result = judged([cpu(UNDEVICED)], policy((accepted,)), UNDEVICED)
    (finding,) = (finding for finding in result.findings if finding.code == "sev_snp.measurement")
    assert finding.outcome is Outcome.TRACKED
    assert finding.line().startswith("! sev_snp.measurement: tracked only: expected 78")
    passed = pinning(b"m" * 48, track=frozenset({"sev_snp.measurement"}))
    outcomes = {finding.outcome for finding in judged([cpu(UNDEVICED)], policy((passed,)), UNDEVICED).findings}
    assert outcomes == {Outcome.PASSED, Outcome.SKIPPED}


def test_a_machine_is_neither_carrier_nor_device() -> None:
    claims = machines()["sev_snp"].verify(cpu(UNDEVICED), NOW, Checks())
    assert claims.carrier_report_data() is None
    assert claims.device_identity() is None
    assert not claims.carries_for("sev_snp", cpu(UNDEVICED).evidence)
