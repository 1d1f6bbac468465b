"""Attacks on sealed answers on their way: changed, cut, swapped, invented, or replaced by a status (sealed.md §4)."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from attacks.world import (
    MODEL,
    OUTPUT,
    Victim,
    World,
    flip,
    frame_ends,
    infer_ask,
    is_sealed,
    nth_answer,
    seal_one_shot,
)

from blindai.channel.exchange import ANSWER_HEADER_BYTES
from blindai.client.exchange_flow import SealedRequest, exchange
from blindai.errors import ConnectionLostError, ReplayedMessageError, SealedMessageError, TruncatedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakes.network import Answered

    from blindai.client.exchange_flow import SealedResult

SMALL = SealedRequest(method="GET", path=f"/v2/models/{MODEL}")
KINDS = pytest.mark.parametrize("sessions", [False, True], ids=["one-shot", "in session"])


def attacked(world: World, attack: Callable[[Answered], Answered], *, sessions: bool) -> Victim:
    """A client of which every answer is attacked from now on; in a session if it wants one."""
    victim = world.victim(sessions=sessions)
    victim.network.drive(exchange(victim.connection, SMALL))
    victim.network.on_answer = lambda sent, answered: attack(answered) if is_sealed(sent) else answered
    return victim


def ask(victim: Victim) -> SealedResult:
    return victim.network.drive(exchange(victim.connection, SMALL))


def honest_answer(world: World, *, sessions: bool) -> bytes:
    victim = attacked(world, lambda answered: answered, sessions=sessions)
    ask(victim)
    return victim.network.log[-1][1].body


def with_body(answered: Answered, body: bytes) -> Answered:
    return dataclasses.replace(answered, body=body)


def flipped_at(position: int) -> Callable[[Answered], Answered]:
    return lambda answered: with_body(answered, flip(answered.body, position))


def cut_at(position: int) -> Callable[[Answered], Answered]:
    return lambda answered: with_body(answered, answered.body[:position])


def refusal(victim: Victim) -> str:
    try:
        ask(victim)
    except (SealedMessageError, TruncatedMessageError) as error:
        return error.code
    return "ACCEPTED"


@KINDS
def test_no_changed_byte_of_an_answer_is_accepted(
    world: World,
    sessions: bool,  # noqa: FBT001  # a parameter
    tell: Callable[[str], None],
) -> None:
    size = len(honest_answer(world, sessions=sessions))
    seen: Counter[str] = Counter()
    victim = attacked(world, lambda answered: answered, sessions=sessions)
    for at in range(size):
        if sessions:
            victim = with_session_again(victim)
        victim.network.on_answer = nth_answer(0, flipped_at(at))
        seen[refusal(victim)] += 1
    tell(f"answer, {'in session' if sessions else 'one-shot'}: {size} changed bytes, {dict(seen)}")
    assert set(seen) == {SealedMessageError.code, TruncatedMessageError.code}


@KINDS
def test_no_truncated_answer_is_accepted(world: World, sessions: bool) -> None:  # noqa: FBT001  # a parameter
    answer = honest_answer(world, sessions=sessions)
    ends = frame_ends(answer, ANSWER_HEADER_BYTES)
    assert ends[-1] == len(answer)
    for cut in (0, 4, ANSWER_HEADER_BYTES - 1, *ends[:-1], *(end - 500 for end in ends[1:]), len(answer) - 1):
        victim = attacked(world, cut_at(cut), sessions=sessions)
        with pytest.raises(TruncatedMessageError):
            ask(victim)


@KINDS
def test_an_answer_followed_by_more_bytes_is_refused(world: World, sessions: bool) -> None:  # noqa: FBT001  # likewise
    victim = attacked(world, lambda answered: with_body(answered, answered.body + b"\0"), sessions=sessions)
    with pytest.raises(SealedMessageError):
        ask(victim)


@KINDS
def test_the_answer_to_an_earlier_request_of_the_same_client_is_refused(
    world: World,
    sessions: bool,  # noqa: FBT001  # a parameter
) -> None:
    kept: list[Answered] = []

    def replay(answered: Answered) -> Answered:
        kept.append(answered)
        return kept[0]

    victim = attacked(world, replay, sessions=sessions)
    ask(victim)
    with pytest.raises(SealedMessageError):
        ask(victim)


def test_answers_swapped_between_two_requests_are_both_refused(world: World) -> None:
    keyset = world.victim().attest()
    one, other = seal_one_shot(keyset, infer_ask()), seal_one_shot(keyset, infer_ask())
    answer_to_one, answer_to_other = (world.network().deliver(message.sent()).body for message in (one, other))
    with pytest.raises(SealedMessageError):
        one.open(answer_to_other)
    with pytest.raises(SealedMessageError):
        other.open(answer_to_one)


def test_the_answer_to_the_opening_is_refused_in_its_session(world: World) -> None:
    victim = world.victim()
    ask(victim)
    opening = victim.network.log[-1][1]
    victim.network.on_answer = lambda _sent, _answered: opening
    with pytest.raises(SealedMessageError):
        ask(victim)


@KINDS
@pytest.mark.parametrize("garbage", [b"{}", b"<html>", os.urandom(4096)], ids=["json", "html", "random"])
def test_an_invented_answer_is_refused(
    world: World,
    sessions: bool,  # noqa: FBT001  # a parameter
    garbage: bytes,
) -> None:
    victim = attacked(world, lambda answered: with_body(answered, garbage), sessions=sessions)
    with pytest.raises((SealedMessageError, TruncatedMessageError)):
        ask(victim)


@KINDS
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, SealedMessageError),
        (409, ReplayedMessageError),
        (302, ConnectionLostError),
        (204, ConnectionLostError),
        (401, ConnectionLostError),
        (404, ConnectionLostError),
        (500, ConnectionLostError),
        (502, ConnectionLostError),
    ],
)
def test_an_outer_status_can_refuse_and_never_answer(
    world: World,
    sessions: bool,  # noqa: FBT001  # a parameter
    status: int,
    expected: type[Exception],
) -> None:
    """A forged status costs the request, and teaches the client nothing."""
    victim = attacked(world, lambda answered: dataclasses.replace(answered, status=status), sessions=sessions)
    sent_before = len(victim.network.log)
    with pytest.raises(expected):
        ask(victim)
    assert len(victim.network.log) == sent_before + 1  # neither repeated nor followed elsewhere


def test_a_client_survives_whatever_was_done_to_its_answers(world: World) -> None:
    victim = attacked(world, lambda answered: with_body(answered, b""), sessions=True)
    with pytest.raises(TruncatedMessageError):
        ask(victim)
    victim.network.on_answer = lambda _sent, answered: answered
    assert victim.infer() == OUTPUT


def with_session_again(victim: Victim) -> Victim:
    """A changed answer ends the session; open the next one, with honest answers."""
    victim.network.on_answer = lambda _sent, answered: answered
    if victim.connection._session is None:
        ask(victim)
    return victim
