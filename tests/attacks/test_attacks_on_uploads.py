"""Attacks on uploads: whatever is changed or cut on the way, nothing is registered and no file stays (SERVING)."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from attacks.world import Ask, Message, Victim, World, flip, frame_ends, nth_sealed, seal_one_shot
from fakes.network import Answered, Network, Sent

from blindai.bundle import UploadHeader, encode_upload_header
from blindai.channel.exchange import REQUEST_HEADER_BYTES, SESSION_HEADER_BYTES
from blindai.channel.heads import parse_wire_error
from blindai.errors import ConnectionLostError, TruncatedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "attacked"
MEBIBYTE = 1 << 20


def upload_ask(data: bytes) -> Ask:
    header = UploadHeader(version=None, files=(("m.onnx", len(data)),), default_shape=None, load=False)
    return Ask(method="POST", path=f"/v2/repository/models/{NAME}/upload", body=encode_upload_header(header) + data)


def is_registered(world: World) -> bool:
    return any(model.name == NAME for model in world.app.sealed.service.store.models())


def test_no_changed_byte_of_an_upload_registers_a_model(world: World, tell: Callable[[str], None]) -> None:
    keyset, ask = world.victim().attest(), upload_ask(world.model_path.read_bytes())
    size, files = len(seal_one_shot(keyset, ask).body), world.stored_files()
    seen: Counter[str] = Counter()
    for at in range(size):
        message = seal_one_shot(keyset, ask)
        answered = world.network().deliver(message.sent(flip(message.body, at)))
        seen[refusal_in(message, answered)] += 1
    tell(f"upload: {size} changed bytes, {dict(seen)}")
    assert set(seen) <= {"400", "421", "sealed_message", "truncated_message"}
    assert (world.effects.uploads, is_registered(world), world.stored_files()) == (0, False, files)


def test_the_same_upload_unchanged_is_registered(world: World) -> None:
    """The control of the test above."""
    message = seal_one_shot(world.victim().attest(), upload_ask(world.model_path.read_bytes()))
    assert message.open(world.network().deliver(message.sent()).body).head.status == 200
    assert is_registered(world)
    world.victim().delete(NAME)


def cuts_of(network: Network, victim: Victim, path: Path) -> list[int]:
    """Every frame's end but the last, and the middle of every frame."""
    victim.upload("measured", path)
    message = network.log[-1][0].body
    victim.delete("measured")
    ends = frame_ends(message, SESSION_HEADER_BYTES if message.startswith(b"BSS1") else REQUEST_HEADER_BYTES)
    assert len(ends) >= 5
    return [*ends[:-1], *((start + end) // 2 for start, end in itertools.pairwise(ends))]


@pytest.mark.parametrize(
    ("ended", "expected"),
    [(True, TruncatedMessageError), (False, ConnectionLostError)],
    ids=["ended early", "broken off"],
)
def test_an_upload_that_is_cut_registers_nothing_and_leaves_no_file(
    world: World,
    large_file: Path,
    ended: bool,  # noqa: FBT001  # a parameter
    expected: type[Exception],
) -> None:
    network = world.network()
    victim = world.victim(network, sessions=False)
    cuts, files = cuts_of(network, victim, large_file), world.stored_files()
    world.effects.counts.clear()
    for cut in cuts:
        network.on_request = nth_sealed(0, cut_at(cut, ended=ended))
        with pytest.raises(expected):
            victim.upload(NAME, large_file)
        assert (world.effects.uploads, world.stored_files()) == (0, files)


def cut_at(at: int, *, ended: bool) -> Callable[[Sent], Sent]:
    def cut(sent: Sent) -> Sent:
        return Sent(method=sent.method, path=sent.path, headers=sent.headers, body=sent.body[:at], ended=ended)

    return cut


def frames_swapped(body: bytes, ends: list[int]) -> bytes:
    return body[: ends[1]] + body[ends[2] : ends[3]] + body[ends[1] : ends[2]] + body[ends[3] :]


def frame_dropped(body: bytes, ends: list[int]) -> bytes:
    return body[: ends[1]] + body[ends[2] :]


def frame_doubled(body: bytes, ends: list[int]) -> bytes:
    return body[: ends[2]] + body[ends[1] :]


@pytest.mark.parametrize("change", [frames_swapped, frame_dropped, frame_doubled])
def test_an_upload_with_other_frames_registers_nothing(
    world: World, large_file: Path, change: Callable[[bytes, list[int]], bytes]
) -> None:
    message = seal_one_shot(world.victim().attest(), upload_ask(large_file.read_bytes()))
    files = world.stored_files()
    changed = change(message.body, frame_ends(message.body, REQUEST_HEADER_BYTES))
    answered = world.network().deliver(message.sent(changed))
    assert refusal_in(message, answered) == "sealed_message"
    assert (world.effects.uploads, world.stored_files()) == (0, files)


def refusal_in(message: Message, answered: Answered) -> str:
    if answered.status != 200:
        return str(answered.status)
    answer = message.open(answered.body)
    return parse_wire_error(answer.body).code if answer.head.status >= 400 else "SUCCESS"
