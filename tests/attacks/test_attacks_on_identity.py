"""Authentic evidence of the wrong server: another service, operator or configuration, and keys that are not of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attacks.forger import INSTANCE, Forger, impostor
from attacks.world import OUTPUT, is_sealed
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blindai.attestation.binding import Mode
from blindai.attestation.policy import Policy, parse_policy
from blindai.channel.admission import admit
from blindai.channel.attested import MAX_CLOCK_DIFFERENCE_S, accept_published
from blindai.channel.keyring import DEFAULT_EPOCH_S
from blindai.channel.keyset import MAX_FRESH_S
from blindai.client.attest_flow import ATTESTATION_PATH
from blindai.errors import KeysetExpiredError, PolicyViolationError, WrongOperatorError, WrongServiceError
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.world import Victim, World
    from fakes.network import Answered, Sent

    from blindai.channel.admission import Admission

OPERATOR = Ed25519PrivateKey.from_private_bytes(bytes(32))
FAR = 1 << 40
DAY_S = 24 * 3600


def policy(
    *,
    operator: Ed25519PrivateKey | None = None,
    runtime: str = 'skip = "not tested here"',
    release: str = 'skip = "not tested here"',
) -> Policy:
    """A policy for simulation that pins an operator, or demands something of the runtime or the release."""
    pinned = 'skip = "not tested here"'
    if operator:
        pinned = f'public_keys = ["{base64url_encode(operator.public_key().public_bytes_raw())}"]'
    text = f"""
version = 1
insecure_simulation = true
[operator]
{pinned}
[level]
minimum = "fresh"
[runtime]
{runtime}
[release]
{release}
[tee.simulation]
measurement.skip = "anybody can sign any measurement"
"""
    return parse_policy(text, source="test")


def admitted(world: World, admission: Admission | None, **settings: Any) -> Victim:
    """A client that pins OPERATOR and meets a server which shows that admission."""
    forger = Forger(world.time)
    return impostor(
        world,
        lambda nonce: forger.document(forger.keyset(nonce, operator=admission)),
        policy=policy(operator=OPERATOR),
        **settings,
    )


def admission(*, key: Ed25519PrivateKey = OPERATOR, **changes: Any) -> Admission:
    return admit(key, **{"service": "blindai-srv", "instance": INSTANCE, "not_after": FAR, **changes})


def test_another_service_is_refused(world: World) -> None:
    with pytest.raises(WrongServiceError):
        world.victim(service="payments").infer()


def test_the_pinned_operators_admission_is_accepted(world: World) -> None:
    """The control of the refusals below."""
    assert admitted(world, admission()).attest().keyset.operator == admission()


def test_an_instance_that_no_operator_admitted_is_refused(world: World) -> None:
    with pytest.raises(WrongOperatorError, match="no operator"):
        admitted(world, None).attest()


def test_an_instance_that_another_operator_admitted_is_refused(world: World) -> None:
    other = admission(key=Ed25519PrivateKey.generate())
    with pytest.raises(WrongOperatorError, match="pins"):
        admitted(world, other).attest()


@pytest.mark.parametrize(
    "changes",
    [{"instance": bytes(32)}, {"service": "other"}, {"attestation_key_name": b"ak"}],
    ids=["another instance", "another service", "another attestation key"],
)
def test_an_admission_of_something_else_is_refused(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(WrongOperatorError, match="not about this instance"):
        admitted(world, admission(**changes)).attest()


def test_an_admission_under_the_pinned_key_signed_by_another_is_refused(world: World) -> None:
    forged = admission(key=Ed25519PrivateKey.generate())
    claimed = type(forged)(
        public_key=OPERATOR.public_key().public_bytes_raw(), not_after=FAR, signature=forged.signature
    )
    with pytest.raises(WrongOperatorError, match="not about this instance"):
        admitted(world, claimed).attest()


def test_an_admission_that_ended_is_refused(world: World) -> None:
    ended = admission(not_after=int(world.time.wall_s))
    with pytest.raises(WrongOperatorError, match="ended"):
        admitted(world, ended).attest()


def test_an_admission_whose_end_was_moved_is_refused(world: World) -> None:
    ended = admission(not_after=int(world.time.wall_s))
    moved = type(ended)(public_key=ended.public_key, not_after=FAR, signature=ended.signature)
    with pytest.raises(WrongOperatorError, match="not about this instance"):
        admitted(world, moved).attest()


def test_an_admission_that_ended_is_refused_in_a_proof_too_however_old_its_keys_say_they_are(world: World) -> None:
    """The host sets the clock by which keys begin, so keys made today can claim the days of an ended admission."""
    forger, now = Forger(world.time), int(world.time.wall_s)
    backdated = {"not_before": now - 2 * DAY_S, "not_after": now - 2 * DAY_S + MAX_FRESH_S}
    document = forger.document(forger.keyset(bytes(32), operator=admission(not_after=now - DAY_S), **backdated))

    def judged_at(moment: float) -> Admission | None:
        accepted = accept_published(document, policy(operator=OPERATOR), service="blindai-srv", now=moment)
        return accepted.keyset.operator

    with pytest.raises(WrongOperatorError, match="ended"):
        judged_at(now)
    assert judged_at(now - DAY_S - 1) == admission(not_after=now - DAY_S)


def test_an_older_release_than_the_policy_accepts_is_refused(world: World) -> None:
    with pytest.raises(PolicyViolationError) as refusal:
        world.victim(policy=policy(release='minimum = "99.0.0"')).infer()
    assert (refusal.value.finding_code, "99.0.0 or later" in str(refusal.value)) == ("release.minimum", True)
    assert world.victim(policy=policy(release='minimum = "0.9.0"')).infer()


def test_a_runtime_that_does_not_meet_the_policy_is_refused(world: World) -> None:
    demanding = policy(runtime='require.isolation = "process"')
    with pytest.raises(PolicyViolationError) as refusal:
        world.victim(policy=demanding).infer()
    assert refusal.value.finding_code == "runtime.isolation"


def test_a_runtime_member_that_the_server_does_not_state_is_refused(world: World) -> None:
    with pytest.raises(PolicyViolationError) as refusal:
        world.victim(policy=policy(runtime="require.tracing = false")).infer()
    assert refusal.value.finding_code == "runtime.tracing"


@pytest.mark.parametrize(
    ("begins_s", "ends_s"),
    [(-MAX_FRESH_S, 0), (MAX_CLOCK_DIFFERENCE_S + 1, MAX_FRESH_S)],
    ids=["ended", "not begun"],
)
def test_keys_that_are_not_of_now_are_refused_at_attestation(world: World, begins_s: float, ends_s: float) -> None:
    forger, now = Forger(world.time), int(world.time.wall_s)
    lifetime = {"not_before": now + int(begins_s), "not_after": now + int(ends_s)}
    victim = impostor(world, lambda nonce: forger.document(forger.keyset(nonce, **lifetime)))
    with pytest.raises(KeysetExpiredError):
        victim.attest()


@pytest.mark.parametrize(("mode", "lifetime_s"), [(Mode.FRESH, MAX_FRESH_S), (Mode.CACHED, DEFAULT_EPOCH_S)])
def test_a_client_attests_anew_once_its_keys_have_ended(world: World, mode: Mode, lifetime_s: int) -> None:
    victim = world.victim(mode=mode)
    assert victim.infer() == OUTPUT
    world.time.pass_s(lifetime_s)
    assert victim.infer() == OUTPUT
    assert attestations(victim) == 2


def test_ended_keys_that_are_served_again_are_used_for_no_request(world: World) -> None:
    """Whoever stands between can keep serving an old cached document, and can only stop the client with it."""
    kept: list[Answered] = []
    victim = world.victim(world.network(on_answer=keep_first_document(kept)), mode=Mode.CACHED)
    victim.infer()
    sealed_before = sealed_requests(victim)
    world.time.pass_s(DEFAULT_EPOCH_S)
    with pytest.raises(KeysetExpiredError):
        victim.infer()
    assert (attestations(victim), sealed_requests(victim)) == (2, sealed_before)


def test_a_host_that_turns_the_servers_clock_back_keeps_no_key_alive(world: World) -> None:
    """The server ends keys by a clock that only moves forward; the wall clock is the host's to set."""
    world.victim(mode=Mode.CACHED).infer()
    old = world.app.sealed.keys.epoch().key_id
    world.time.boot_s += DEFAULT_EPOCH_S
    assert world.app.sealed.keys.find(old) is None


def keep_first_document(kept: list[Answered]) -> Callable[[Sent, Answered], Answered]:
    def answer(sent: Sent, answered: Answered) -> Answered:
        if sent.path != ATTESTATION_PATH:
            return answered
        kept.append(answered)
        return kept[0]

    return answer


def attestations(victim: Victim) -> int:
    return sum(sent.path == ATTESTATION_PATH for sent, _ in victim.network.log)


def sealed_requests(victim: Victim) -> int:
    return sum(is_sealed(sent) for sent, _ in victim.network.log)
