"""Attacks on sealed requests on their way: changed, cut, replayed, rerouted, or not sealed at all (sealed.md §3)."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from attacks.world import (
    MODEL,
    Ask,
    Message,
    World,
    flip,
    frame_ends,
    infer_ask,
    seal_in_session,
    seal_one_shot,
)
from fakes.network import Answered, FakeTransport, Sent, call_app
from onnx import TensorProto, helper

from blindai.attestation.binding import Mode
from blindai.attester.simulation import SimulationAttester
from blindai.channel.exchange import REQUEST_HEADER_BYTES, SessionSecret
from blindai.channel.heads import parse_wire_error
from blindai.channel.keyring import DEFAULT_EPOCH_S, FRESH_HPKE_S
from blindai.errors import ReplayedMessageError, UnauthenticatedError
from blindai.oip.rest import HEADER_LENGTH, InferRequest, encode_infer_request
from blindai.oip.tensors import Tensor, tensor_from
from blindai.server.http_protocol import HttpConnection
from blindai.server.http_server import HttpServer
from blindai.server.request_queue import QueuedRequest
from blindai.server.serve import create_app
from blindai.server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blindai.channel.attested import AttestedKeyset
    from blindai.server.access import Principal

METADATA = Ask(method="GET", path=f"/v2/models/{MODEL}")
DELETE = Ask(method="DELETE", path=f"/v2/repository/models/{MODEL}")


def deliver(world: World, sent: Sent) -> Answered:
    return world.network().deliver(sent)


def outcome(message: Message, answered: Answered) -> str:
    """What the attacker got: an outer status, or the code of the sealed refusal; `SUCCESS` is what must not be."""
    if answered.status != 200:
        assert answered.body == b""
        return str(answered.status)
    answer = message.open(answered.body)
    return f"sealed {parse_wire_error(answer.body).code}" if answer.head.status >= 400 else "SUCCESS"


def open_session(world: World, keyset: AttestedKeyset) -> SessionSecret:
    opening = seal_one_shot(keyset, METADATA, opens_session=True)
    answer = opening.open(deliver(world, opening.sent()).body)
    assert answer.head.session
    return SessionSecret.after(opening.exchange, keyset_id=keyset.keyset_id, answer_header=answer.header)


@pytest.mark.parametrize("ask", [infer_ask(), DELETE], ids=["inference", "deletion"])
def test_no_changed_byte_of_a_one_shot_request_runs(world: World, ask: Ask, tell: Callable[[str], None]) -> None:
    keyset = world.victim().attest()
    size = len(seal_one_shot(keyset, ask).body)
    seen: Counter[str] = Counter()
    for at in range(size):
        message = seal_one_shot(keyset, ask)
        seen[outcome(message, deliver(world, message.sent(flip(message.body, at))))] += 1
    tell(f"one-shot {ask.method}: {size} changed bytes, {dict(seen)}")
    assert set(seen) <= {"400", "421", "sealed sealed_message", "sealed truncated_message"}
    assert (world.effects.runs, world.effects.deletions) == (0, 0)


@pytest.mark.parametrize("ask", [infer_ask(), DELETE], ids=["inference", "deletion"])
def test_no_changed_byte_of_a_request_in_a_session_runs(world: World, ask: Ask, tell: Callable[[str], None]) -> None:
    keyset = world.victim().attest()
    secret, number = open_session(world, keyset), 0
    size = len(seal_in_session(secret, keyset, ask, number=0).body)
    seen: Counter[str] = Counter()
    for at in range(size):
        message = seal_in_session(secret, keyset, ask, number=number)
        answered = deliver(world, message.sent(flip(message.body, at)))
        seen[outcome(message, answered)] += 1
        number += answered.status == 200  # a number is spent once the head was authentic, and only then
    tell(f"in session, {ask.method}: {size} changed bytes, {dict(seen)}")
    assert set(seen) <= {"400", "409", "421", "sealed sealed_message", "sealed truncated_message"}
    assert (world.effects.runs, world.effects.deletions) == (0, 0)


@pytest.mark.parametrize("ask", [infer_ask(), DELETE], ids=["inference", "deletion"])
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "broken off"])
def test_no_truncated_request_runs(world: World, ask: Ask, ended: bool) -> None:  # noqa: FBT001  # a parameter
    keyset = world.victim().attest()
    ends = frame_ends(seal_one_shot(keyset, ask).body, REQUEST_HEADER_BYTES)
    for cut in sorted({0, 4, *(end - 1 for end in ends), *ends[:-1], *(end - 500 for end in ends[1:])}):
        message = seal_one_shot(keyset, ask)
        answered = deliver(world, message.sent(message.body[:cut], ended=ended))
        if answered.status:
            assert outcome(message, answered) in {"400", "sealed truncated_message"}
        else:
            assert not ended
    assert (world.effects.runs, world.effects.deletions) == (0, 0)


def reordered(message: Message, at: list[int]) -> bytes:
    return message.body[: at[0]] + message.body[at[1] : at[2]] + message.body[at[0] : at[1]]


def doubled(message: Message, at: list[int]) -> bytes:
    return message.body + message.body[at[1] : at[2]]


def headless(message: Message, at: list[int]) -> bytes:
    return message.body[: at[0]] + message.body[at[1] :]


def surplus(message: Message, _at: list[int]) -> bytes:
    return message.body + b"\0"


@pytest.mark.parametrize("ask", [infer_ask(), DELETE], ids=["inference", "deletion"])
@pytest.mark.parametrize("change", [reordered, doubled, headless, surplus])
def test_no_request_with_other_frames_runs(
    world: World, ask: Ask, change: Callable[[Message, list[int]], bytes]
) -> None:
    message = seal_one_shot(world.victim().attest(), ask)
    changed = change(message, frame_ends(message.body, REQUEST_HEADER_BYTES))
    assert outcome(message, deliver(world, message.sent(changed))) == "sealed sealed_message"
    assert (world.effects.runs, world.effects.deletions) == (0, 0)


@pytest.mark.parametrize("ask", [infer_ask(), DELETE], ids=["inference", "deletion"])
@pytest.mark.parametrize("change", [doubled, surplus])
@pytest.mark.parametrize("ahead", [0, 1], ids=["with the last frame", "a byte before it"])
def test_no_request_succeeds_whose_surplus_comes_after_its_last_frame(
    world: World, ask: Ask, change: Callable[[Message, list[int]], bytes], ahead: int
) -> None:
    """However the path cuts it: the first piece is all of the request, and what follows is not looked away from."""
    message = seal_one_shot(world.victim().attest(), ask)
    changed = change(message, frame_ends(message.body, REQUEST_HEADER_BYTES))
    sent = message.sent(changed, piece_bytes=len(message.body) - ahead)
    assert outcome(message, deliver(world, sent)) == "sealed sealed_message"
    assert world.effects.deletions == 0


def test_no_changed_or_cut_request_runs_that_comes_in_one_piece(world: World) -> None:
    keyset = world.victim().attest()
    ask = infer_ask()
    whole = seal_one_shot(keyset, ask)
    ends = frame_ends(whole.body, REQUEST_HEADER_BYTES)
    for at in (0, 4, *ends[:-1], *(end - 1 for end in ends)):
        for change in (flip, lambda body, at: body[:at]):
            message = seal_one_shot(keyset, ask)
            answered = deliver(world, message.sent(change(message.body, at), piece_bytes=0))
            assert outcome(message, answered) != "SUCCESS"
    assert outcome(whole, deliver(world, whole.sent(whole.body + b"\0", piece_bytes=0))) == "sealed sealed_message"
    assert world.effects.runs == 0
    message = seal_one_shot(keyset, ask)
    assert outcome(message, deliver(world, message.sent(piece_bytes=0))) == "SUCCESS"


def test_frames_of_another_request_do_not_fit(world: World) -> None:
    keyset = world.victim().attest()
    message, other = seal_one_shot(keyset, infer_ask()), seal_one_shot(keyset, infer_ask())
    end_of_head = frame_ends(message.body, REQUEST_HEADER_BYTES)[1]
    spliced = message.body[:end_of_head] + other.body[end_of_head:]
    assert outcome(message, deliver(world, message.sent(spliced))) == "sealed sealed_message"
    assert world.effects.runs == 0


def test_a_one_shot_request_sent_to_another_route_is_refused(world: World) -> None:
    message = seal_one_shot(world.victim().attest(), infer_ask())
    assert [deliver(world, message.sent(route=route)).status for route in ("", "x", message.route + "A")] == [400] * 3
    assert world.effects.runs == 0


def test_a_request_in_a_session_sent_to_another_route_is_refused(world: World) -> None:
    keyset = world.victim().attest()
    message = seal_in_session(open_session(world, keyset), keyset, infer_ask(), number=0)
    assert [deliver(world, message.sent(route=route)).status for route in ("", "x", message.route + "A")] == [400] * 3
    assert world.effects.runs == 0


OUTER_FORGERIES: dict[str, Callable[[Sent], Sent]] = {
    "a repeated route": lambda sent: dataclasses.replace(sent, headers=(*sent.headers, sent.headers[-1])),
    "a route of other characters": lambda sent: dataclasses.replace(
        sent, headers=(sent.headers[0], ("Blindai-Route", "a/b"))
    ),
    "a route that is too long": lambda sent: dataclasses.replace(
        sent, headers=(sent.headers[0], ("Blindai-Route", "A" * 65))
    ),
    "another content type": lambda sent: dataclasses.replace(
        sent, headers=(("Content-Type", "application/json"), *sent.headers[1:])
    ),
    "two content types": lambda sent: dataclasses.replace(sent, headers=(*sent.headers, sent.headers[0])),
    "no content type": lambda sent: dataclasses.replace(sent, headers=sent.headers[1:]),
    "an unknown magic": lambda sent: dataclasses.replace(sent, body=b"BSQ2" + sent.body[4:]),
    "no body": lambda sent: dataclasses.replace(sent, body=b""),
    "plaintext": lambda sent: dataclasses.replace(sent, body=infer_ask().body),
}


@pytest.mark.parametrize("forgery", OUTER_FORGERIES)
def test_a_request_with_another_outside_is_refused(world: World, forgery: str) -> None:
    message = seal_one_shot(world.victim().attest(), infer_ask())
    assert deliver(world, OUTER_FORGERIES[forgery](message.sent())) == refused(400)
    assert world.effects.runs == 0


def test_plaintext_inference_has_no_door_where_sealing_is_required(world: World) -> None:
    ask = infer_ask()
    settings = dataclasses.replace(world.app.tls.service.settings, require_sealed=True)
    service = dataclasses.replace(world.app.tls.service, settings=settings)
    app = dataclasses.replace(world.app, tls=dataclasses.replace(world.app.tls, service=service))
    sent = Sent(method=ask.method, path=ask.path, headers=ask.headers, body=ask.body)
    answered = world.loop.run_until_complete(call_app(app, sent))
    assert answered.status == 403
    assert parse_wire_error(answered.body).code == "forbidden"
    assert world.effects.runs == 0


def test_a_replayed_one_shot_request_is_refused_under_seal(world: World) -> None:
    message = seal_one_shot(world.victim().attest(), infer_ask())
    first, replay = deliver(world, message.sent()), deliver(world, message.sent())  # each a connection of its own
    assert message.open(first.body).head.status == 200
    assert message.open(replay.body).head.status == 409
    assert outcome(message, replay) == f"sealed {ReplayedMessageError.code}"
    assert world.effects.runs == 1


def test_a_replay_on_another_connection_while_the_first_runs_is_refused(world: World) -> None:
    message = seal_one_shot(world.victim().attest(), infer_ask())

    async def race() -> list[Answered]:
        return list(await asyncio.gather(*(call_app(world.app, message.sent()) for _ in range(8))))

    seen = Counter(outcome(message, answered) for answered in world.loop.run_until_complete(race()))
    assert seen == {"SUCCESS": 1, "sealed replayed_message": 7}
    assert world.effects.runs == 1


@pytest.mark.parametrize(
    ("mode", "after_s", "expected"),
    [
        (Mode.FRESH, FRESH_HPKE_S - 1, "sealed replayed_message"),
        (Mode.FRESH, FRESH_HPKE_S, "421"),
        (Mode.CACHED, DEFAULT_EPOCH_S / 2 + 1, "sealed replayed_message"),
        (Mode.CACHED, DEFAULT_EPOCH_S, "421"),
    ],
    ids=["fresh key lives", "fresh key erased", "next epoch published", "epoch ended"],
)
def test_a_replay_never_runs_however_long_it_waits(world: World, mode: Mode, after_s: float, expected: str) -> None:
    message = seal_one_shot(world.victim(mode=mode).attest(), infer_ask())
    assert outcome(message, deliver(world, message.sent())) == "SUCCESS"
    world.time.pass_s(after_s)
    world.app.sealed.keys.epoch()
    assert outcome(message, deliver(world, message.sent())) == expected
    assert world.effects.runs == 1


def test_neither_kind_of_request_survives_a_restart(world: World, tmp_path: Path) -> None:
    keyset = world.victim().attest()
    one_shot = seal_one_shot(keyset, infer_ask())
    in_session = seal_in_session(open_session(world, keyset), keyset, infer_ask(), number=0)
    restarted = create_app(
        Settings(simulation=True),
        attester=SimulationAttester(os.urandom, bytes(32)),
        directory=tmp_path,
        clock=world.time.server(),
    )
    for message in (one_shot, in_session):
        assert world.loop.run_until_complete(call_app(restarted, message.sent())) == refused(421)
    world.loop.run_until_complete(restarted.sealed.service.pool.close())


def refused(status: int) -> Answered:
    return Answered(status=status, body=b"", headers={"content-length": "0"})


def test_of_one_connection_each_request_is_its_own_heads(world: World) -> None:
    """Behind a proxy, users share a connection: what is kept of one's request stands for no other's."""
    seen: list[tuple[str, str]] = []
    real = world.app.tls.authenticate

    def authenticate(authorization: str, client: str) -> Principal:
        seen.append((authorization, client))
        if authorization == "Bearer nobody":
            raise UnauthenticatedError("no")
        return real("", client)

    door, ask = dataclasses.replace(world.app.tls, authenticate=authenticate), infer_ask()
    users = ["Bearer a", "Bearer a", "Bearer nobody", "", "Bearer a", "Bearer b", "Bearer b", "Bearer nobody"]

    async def over_one_connection() -> bytes:
        transport = FakeTransport()
        connection = HttpConnection(HttpServer(door.answer))
        connection.connection_made(transport)
        for user in users:
            own = f"authorization: {user}\r\nblindai-client: {user[-1:]}\r\n" if user else ""
            lengths = f"content-length: {len(ask.body)}\r\n{HEADER_LENGTH}: {dict(ask.headers)[HEADER_LENGTH]}"
            head = f"POST {ask.path} HTTP/1.1\r\nhost: x\r\n{own}{lengths}\r\n\r\n"
            connection.data_received(head.encode() + ask.body)
            while connection.task is not None:
                await asyncio.wait([connection.task])
        connection.connection_lost(None)
        return bytes(transport.written)

    written = world.loop.run_until_complete(over_one_connection())
    assert seen == [(user, user[-1:]) for user in users]
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", written)
    assert statuses == [b"401" if user == "Bearer nobody" else b"200" for user in users]


def test_what_a_failed_request_brought_is_not_kept_until_the_collector_looks(world: World, tmp_path: Path) -> None:
    (path := tmp_path / "picker.onnx").write_bytes(picker_model())
    world.victim().upload("picker", path)
    keyset = world.victim().attest()
    buffers, length = encode_infer_request(InferRequest(inputs=(tensor_from(np.array([9]), name="at"),)))
    headers = ((HEADER_LENGTH, str(length)),)
    ask = Ask(method="POST", path="/v2/models/picker/infer", body=b"".join(buffers), headers=headers)
    gc.collect()
    gc.disable()
    try:
        before = {id(held) for held in gc.get_objects()}  # other tests' tensors among them
        for _ in range(3):
            message = seal_one_shot(keyset, ask)
            assert outcome(message, deliver(world, message.sent())).startswith("sealed in")
        kept = (held for held in gc.get_objects() if isinstance(held, QueuedRequest | Tensor))
        assert [held for held in kept if id(held) not in before] == []
    finally:
        gc.enable()
        world.victim().delete("picker")


def picker_model() -> bytes:
    """Y = one of three numbers, or a failure for any other place."""
    at, y = (helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in ("at", "y"))
    data = helper.make_tensor("data", TensorProto.INT64, [3], [1, 2, 3])
    graph = helper.make_graph([helper.make_node("Gather", ["data", "at"], ["y"])], "g", [at], [y], [data])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())
