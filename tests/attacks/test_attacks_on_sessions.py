"""Attacks on sessions: replayed, stolen, shuffled, held back, evicted, and shared by a fork (sealed.md §5)."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from attacks.world import (
    MODEL,
    OUTPUT,
    Victim,
    World,
    flip,
    infer_ask,
    is_in_session,
    is_sealed,
    nth_sealed,
    seal_in_session,
)
from fakes.network import Network, Sent

from blindai.channel.exchange import SESSION_HEADER_BYTES, SessionSecret
from blindai.channel.sessions import WINDOW, SessionTable
from blindai.client import flows
from blindai.client.attest_flow import ATTESTATION_PATH
from blindai.client.exchange_flow import SealedRequest, exchange

if TYPE_CHECKING:
    from blindai.channel.sessions import ClientSession
    from blindai.client.attest_flow import Flow
    from blindai.client.results import InferResult
    from blindai.client.transport import HttpRequest, HttpResponse

HELD_BACK_S = 121.0


def warmed_up(world: World, network: Network | None = None) -> Victim:
    """A client with a session; its next inference is one request in it."""
    victim = world.victim(network)
    assert victim.infer() == OUTPUT
    victim.network.log.clear()
    world.effects.counts.clear()
    return victim


def session_of(victim: Victim) -> ClientSession:
    opened = victim.connection._session
    assert opened is not None
    return opened[1]


def magics(victim: Victim) -> list[bytes]:
    return [sent.body[:4] for sent, _ in victim.network.log if is_sealed(sent)]


def test_a_replayed_request_is_refused_on_every_connection(world: World) -> None:
    victim = warmed_up(world)
    victim.infer()
    request = victim.network.log[-1][0]
    replays = [world.network().deliver(request) for _ in range(3)]
    assert [(answered.status, answered.body) for answered in replays] == [(409, b"")] * 3
    assert world.effects.runs == 1


@pytest.mark.parametrize(
    ("at", "status"),
    [(4, 421), (27, 400), (SESSION_HEADER_BYTES - 1, 400)],
    ids=["session id", "number", "rnd"],
)
def test_a_captured_request_under_another_header_is_refused(world: World, at: int, status: int) -> None:
    """Captured before it arrived, so that its own number has not run."""
    victim = warmed_up(world)
    _flow, request = start(victim)
    captured = as_sent(request)
    changed = flip(captured.body, at, 0x40)  # number 1 becomes 65, which is in the window and has not run either
    assert world.network().deliver(dataclasses.replace(captured, body=changed)).status == status
    assert world.effects.runs == 0
    assert world.network().deliver(captured).status == 200
    assert world.effects.runs == 1


def test_who_stole_the_session_id_can_neither_ask_nor_burn_a_number(world: World) -> None:
    victim = warmed_up(world)
    honest, keyset = session_of(victim), victim.connection.attested
    assert keyset is not None
    stolen = SessionSecret(prk=os.urandom(32), session_id=honest.secret.session_id)
    for number in range(4):
        forged = seal_in_session(stolen, keyset, infer_ask(), number=number + 1)
        assert world.network().deliver(forged.sent()).status in {400, 409}
    assert world.effects.runs == 0
    assert victim.infer() == OUTPUT
    assert magics(victim) == [b"BSS1"]


def test_a_number_outside_the_window_is_refused(world: World) -> None:
    victim = warmed_up(world)
    secret, keyset = session_of(victim).secret, victim.connection.attested
    assert keyset is not None
    highest = 0  # the warm-up was an opening and number 0
    for number, status in ((highest + WINDOW + 1, 409), (1 << 32, 409), (1 << 63, 409), (highest + WINDOW, 200)):
        message = seal_in_session(secret, keyset, infer_ask(), number=number)
        assert world.network().deliver(message.sent()).status == status
    assert world.effects.runs == 1


def start(victim: Victim) -> tuple[Flow[InferResult], HttpRequest]:
    values = np.array([2.0, 40.0], dtype=np.float32)
    flow = flows.infer(victim.connection, MODEL, values, version=None, outputs=())
    return flow, next(flow)


def end(flow: Flow[InferResult], response: HttpResponse) -> InferResult:
    try:
        flow.send(response)
    except StopIteration as done:
        result: InferResult = done.value
        return result
    raise AssertionError("the flow wants more")


def test_six_hundred_requests_shuffled_over_eight_connections_run_once_each(world: World) -> None:
    victim = warmed_up(world)
    started = [start(victim) for _ in range(600)]
    random.Random(7).shuffle(started)  # noqa: S311  # an order that repeats, not a secret
    connections = [world.network() for _ in range(8)]
    for at, (flow, request) in enumerate(started):
        assert end(flow, connections[at % 8].send(request))["y"].tolist() == OUTPUT
    assert world.effects.runs == 600
    captured = [sent for connection in connections for sent, _ in connection.log]
    assert len({sent.body for sent in captured}) == 600
    assert {connections[0].deliver(sent).status for sent in captured} == {409}
    assert world.effects.runs == 600


def test_a_request_held_back_for_two_minutes_is_not_run_and_the_client_asks_again(world: World) -> None:
    def hold(sent: Sent) -> Sent:
        world.time.pass_s(HELD_BACK_S)
        return sent

    network = world.network()
    victim = warmed_up(world, network)
    network.on_request = nth_sealed(0, hold)
    assert victim.infer() == OUTPUT
    assert magics(victim) == [b"BSS1", b"BSQ1"]
    assert world.effects.runs == 1


def test_a_request_held_back_for_two_minutes_never_runs_later(world: World) -> None:
    """The path kept it, and the client has long given up."""
    victim = warmed_up(world)
    _flow, request = start(victim)
    kept = as_sent(request)
    world.time.pass_s(HELD_BACK_S)
    answered = world.network().deliver(kept)
    assert answered.status == 200  # the refusal is sealed
    assert world.effects.runs == 0


def as_sent(request: HttpRequest) -> Sent:
    body = request.body
    assert body is not None
    assert not isinstance(body, bytes)
    return Sent(method=request.method, path=request.path, headers=request.headers, body=b"".join(body))


def test_an_evicted_client_opens_one_more_session_by_itself(world: World) -> None:
    app = dataclasses.replace(
        world.app, sealed=dataclasses.replace(world.app.sealed, sessions=SessionTable(max_sessions=1))
    )
    small = dataclasses.replace(world, app=app)
    victim = warmed_up(small)
    small.victim().infer()
    assert victim.infer() == OUTPUT
    assert magics(victim) == [b"BSS1", b"BSQ1"]
    assert [sent.path for sent, _ in victim.network.log].count(ATTESTATION_PATH) == 1


def test_one_client_cannot_evict_another_by_opening_many_sessions(world: World) -> None:
    victim = warmed_up(world)
    other = world.victim()
    for _ in range(70):
        other.infer()
        other.connection.drop_session(session_of(other))
    assert victim.infer() == OUTPUT
    assert magics(victim) == [b"BSS1"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # the child only computes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_shares_neither_session_nor_keys(world: World) -> None:
    victim = warmed_up(world)
    parent = session_of(victim)
    token = victim.connection.token
    seen = in_a_child(victim)
    assert seen == {"asks for": ATTESTATION_PATH, "attested": False, "session": False, "same token": False}
    assert victim.infer() == OUTPUT
    assert session_of(victim) is parent
    assert victim.connection.token == token
    assert number_of(victim.network.log[-1][0]) == 1  # 0 was the warm-up; the child has taken none


def in_a_child(victim: Victim) -> dict[str, object]:
    """What a child that goes on using the connection would do first."""
    reading, writing = os.pipe()
    token, child = victim.connection.token, os.fork()
    if not child:
        try:
            request = next(exchange(victim.connection, SealedRequest(method="GET", path="/v2")))
            seen = {
                "asks for": request.path,
                "attested": victim.connection.attested is not None,
                "session": victim.connection._session is not None,
                "same token": victim.connection.token == token,
            }
            os.write(writing, json.dumps(seen).encode())
        finally:
            os._exit(0)  # nothing of pytest may run twice
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        written = pipe.read()
    os.waitpid(child, 0)
    found: dict[str, object] = json.loads(written)
    return found


def number_of(sent: Sent) -> int:
    assert is_in_session(sent)
    return int.from_bytes(sent.body[20:28], "big")
