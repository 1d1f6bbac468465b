"""A forged 421 can cost a repeated inference; it can never repeat an upload or a deletion (sealed.md §3).

Outer statuses prove nothing, so whoever stands on the path may answer 421 before a request ran, or after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attacks.world import OUTPUT, Victim, World, is_sealed, nth_answer, nth_sealed
from fakes.network import Answered, Network, Sent

from blindai.client.attest_flow import ATTESTATION_PATH
from blindai.errors import PeerKeyMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

    Attack = Callable[[Network], None]

MISDIRECTED = 421


def before_it_runs(network: Network) -> None:
    network.on_request = nth_sealed(0, lambda _sent: Answered(status=MISDIRECTED))


def after_it_ran(network: Network) -> None:
    network.on_answer = nth_answer(0, lambda _answered: Answered(status=MISDIRECTED))


def always_before(network: Network) -> None:
    network.on_request = lambda sent: Answered(status=MISDIRECTED) if is_sealed(sent) else sent


def always_after(network: Network) -> None:
    network.on_answer = lambda sent, answered: Answered(status=MISDIRECTED) if is_sealed(sent) else answered


KINDS = pytest.mark.parametrize("sessions", [False, True], ids=["one-shot", "in session"])


def attacked(world: World, attack: Attack, *, sessions: bool) -> Victim:
    """A client that has worked, and is attacked from its next request on."""
    victim = world.victim(sessions=sessions)
    victim.infer()
    victim.network.log.clear()
    world.effects.counts.clear()
    attack(victim.network)
    return victim


def attestations(victim: Victim) -> int:
    return sum(sent.path == ATTESTATION_PATH for sent, _ in victim.network.log)


@KINDS
@pytest.mark.parametrize(("attack", "runs"), [(before_it_runs, 1), (after_it_ran, 2)])
def test_an_inference_is_repeated_once_after_a_421(
    world: World,
    attack: Attack,
    runs: int,
    sessions: bool,  # noqa: FBT001  # a parameter
) -> None:
    victim = attacked(world, attack, sessions=sessions)
    assert victim.infer() == OUTPUT
    assert (world.effects.runs, attestations(victim)) == (runs, 1)


@KINDS
@pytest.mark.parametrize(("attack", "runs"), [(always_before, 0), (always_after, 2)])
def test_a_second_421_is_an_error(
    world: World,
    attack: Attack,
    runs: int,
    sessions: bool,  # noqa: FBT001  # a parameter
) -> None:
    victim = attacked(world, attack, sessions=sessions)
    with pytest.raises(PeerKeyMismatchError):
        victim.infer()
    assert (world.effects.runs, attestations(victim)) == (runs, 1)


@KINDS
@pytest.mark.parametrize(("attack", "uploads"), [(before_it_runs, 0), (after_it_ran, 1)])
def test_an_upload_is_never_repeated_silently(
    world: World,
    attack: Attack,
    uploads: int,
    sessions: bool,  # noqa: FBT001  # a parameter
) -> None:
    name = f"u-{attack.__name__}-{sessions}"
    victim = attacked(world, attack, sessions=sessions)
    with pytest.raises(PeerKeyMismatchError, match="never repeated silently") as refusal:
        victim.upload(name)
    assert "list the models" in refusal.value.hint
    assert world.effects.uploads == uploads
    assert victim.model_names().count(name) == uploads


@KINDS
@pytest.mark.parametrize(("attack", "deletions"), [(before_it_runs, 0), (after_it_ran, 1)])
def test_a_deletion_is_never_repeated_silently(
    world: World,
    attack: Attack,
    deletions: int,
    sessions: bool,  # noqa: FBT001  # a parameter
) -> None:
    name = f"d-{attack.__name__}-{sessions}"
    world.victim().upload(name)
    victim = attacked(world, attack, sessions=sessions)
    with pytest.raises(PeerKeyMismatchError, match="never repeated silently"):
        victim.delete(name)
    assert world.effects.deletions == deletions
    assert victim.model_names().count(name) == 1 - deletions


def test_after_a_421_the_client_never_settles_for_a_lower_level(world: World) -> None:
    """It attests again as it did before: with a nonce of its own."""
    victim = attacked(world, before_it_runs, sessions=True)
    victim.infer()
    asked = [sent for sent, _ in victim.network.log if sent.path == ATTESTATION_PATH]
    assert [sent.method for sent in asked] == ["POST"]


def test_keys_attested_just_before_a_421_are_attested_again(world: World) -> None:
    """Fresh keys too old to seal to are renewed first; a 421 that meets the new ones means those."""
    victim = attacked(world, before_it_runs, sessions=False)
    world.time.pass_s(110)
    assert victim.infer() == OUTPUT
    assert attestations(victim) == 2


def test_a_broken_connection_is_told_and_nothing_is_repeated(world: World) -> None:
    """Whether the request ran is not known: the caller decides."""

    def cut(sent: Sent) -> Sent | Answered:
        world.network().deliver(sent)
        return Answered(status=0)

    victim = attacked(world, lambda _network: None, sessions=True)
    victim.network.on_request = nth_sealed(0, cut)
    with pytest.raises(ConnectionError):
        victim.infer()
    assert world.effects.runs == 1
