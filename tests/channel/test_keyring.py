"""The key ring: keys end in time, by the clock that only moves forward, and each sealed request runs at most once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from channel.sealed_parts import BOOT_S, ROUTE, WALL_S, FakeTime, Repeatable, key_ring, private_half

from blindai.channel import keyring
from blindai.channel.exchange import (
    Exchange,
    SessionSecret,
    open_exchange,
    replay_digest,
    request_key_id,
    seal_exchange,
)
from blindai.channel.keyset import parse_keyset
from blindai.channel.sessions import SessionTable
from blindai.errors import ReplayedMessageError

if TYPE_CHECKING:
    from blindai.channel.keyring import HeldKey, KeyRing

EPOCH_S = 6 * 3600
ROOT = b"r" * 32


def seal_to(held: HeldKey, *, seed: str = "request") -> bytes:
    return seal_exchange(
        public_key=held.keyset.hpke_public_key, keyset_id=held.keyset_id, route=ROUTE, random=Repeatable(seed)
    ).header


def open_with(ring: KeyRing, header: bytes) -> Exchange | None:
    """What the sealed door does: find, open, spend."""
    held = ring.find(request_key_id(header))
    if held is None:
        return None
    exchange = open_exchange(header, keys=private_half(held), keyset_id=held.keyset_id, route=ROUTE)
    held.spend(replay_digest(header))
    return exchange


def test_a_held_key_agrees_with_what_it_publishes() -> None:
    ring = key_ring(FakeTime())
    for held, kind, challenge in ((ring.epoch(), "epoch", b""), (ring.fresh(ROOT), "fresh", ROOT)):
        keyset = parse_keyset(held.encoded)
        assert keyset == held.keyset
        assert (keyset.kind, keyset.challenge, keyset.not_before) == (kind, challenge, WALL_S)
        assert keyset.hpke_public_key == private_half(held).public_key
        assert keyset.receipt_public_key == held.receipt_key.public_key().public_bytes_raw()
        assert ring.find(held.key_id) is held


def test_every_keyset_has_keys_of_its_own() -> None:
    ring = key_ring(FakeTime())
    made = [ring.epoch(), ring.fresh(ROOT), ring.fresh(ROOT), ring.fresh(bytes(32))]
    for keys in (
        {held.key_id for held in made},
        {held.keyset_id for held in made},
        {held.keyset.hpke_public_key for held in made},
        {held.keyset.receipt_public_key for held in made},
    ):
        assert len(keys) == len(made)


def test_an_unknown_key_id_is_not_found() -> None:
    ring = key_ring(FakeTime())
    ring.epoch()
    assert ring.find(bytes(8)) is None
    other = key_ring(FakeTime(), seed="another replica")
    assert open_with(ring, seal_to(other.epoch())) is None


# Fresh keys


def test_a_fresh_hpke_key_opens_for_120_seconds_and_is_then_erased() -> None:
    time = FakeTime()
    ring = key_ring(time)
    held = ring.fresh(ROOT)
    header = seal_to(held)
    time.pass_s(119.999)
    assert ring.find(held.key_id) is held
    time.pass_s(0.001)
    assert open_with(ring, header) is None
    assert held.hpke is None


def test_a_sweep_erases_a_fresh_hpke_key_that_nobody_asks_for() -> None:
    time = FakeTime()
    ring = key_ring(time)
    held = ring.fresh(ROOT)
    time.pass_s(119)
    ring.sweep()
    assert held.hpke is not None
    time.pass_s(1)
    ring.sweep()
    assert held.hpke is None


def test_the_receipt_key_and_sessions_outlive_the_fresh_hpke_key() -> None:
    time, table = FakeTime(), SessionTable[str]()
    ring = key_ring(time)
    held = ring.fresh(ROOT)
    session = table.open(
        SessionSecret(prk=bytes(32), session_id=bytes(16)), key=held, principal="p", counted_as="p", now_s=time.boot_s
    )
    time.pass_s(200)
    ring.sweep()
    found = table.find(bytes(16), time.boot_s)
    assert found is session
    assert found.key.hpke is None
    found.key.receipt_key.public_key().verify(found.key.receipt_key.sign(b"receipt"), b"receipt")


def test_a_fresh_keyset_and_its_sessions_end_after_15_minutes() -> None:
    time, table = FakeTime(), SessionTable[str]()
    ring = key_ring(time)
    held = ring.fresh(ROOT)
    assert held.keyset.not_after == WALL_S + 900
    time.pass_s(100)
    session = table.open(
        SessionSecret(prk=bytes(32), session_id=bytes(16)), key=held, principal="p", counted_as="p", now_s=time.boot_s
    )
    assert session.ends_s == BOOT_S + 900  # and not 15 minutes after its opening
    time.pass_s(800)
    ring.sweep()
    assert held.key_id not in ring._by_id


def test_no_receipt_starts_after_its_keyset() -> None:
    time = FakeTime(wall_s=WALL_S + 0.75)
    ring = key_ring(time)
    for held in (ring.epoch(), ring.fresh(ROOT)):
        last_s = held.ends_s - 0.01
        assert held.wall_ms(last_s) < held.keyset.not_after * 1000
        assert held.hpke_ends_s <= held.ends_s


def test_keys_end_by_the_clock_that_the_host_cannot_set() -> None:
    time = FakeTime()
    ring = key_ring(time)
    held = ring.fresh(ROOT)
    time.wall_s -= 10_000
    time.boot_s += 120
    assert ring.find(held.key_id) is None
    other = ring.fresh(ROOT)
    time.wall_s += 10_000_000
    assert ring.find(other.key_id) is other


# Epoch keys


def test_the_next_epoch_is_published_at_half_life() -> None:
    time = FakeTime()
    ring = key_ring(time)
    first = ring.epoch()
    time.pass_s(EPOCH_S / 2 - 1)
    assert ring.epoch() is first
    time.pass_s(1)
    second = ring.epoch()
    assert second is not first
    assert ring.epoch() is second
    assert second.keyset.not_before == WALL_S + EPOCH_S // 2


def test_the_old_epoch_opens_until_its_end() -> None:
    time = FakeTime()
    ring = key_ring(time)
    first = ring.epoch()
    time.pass_s(EPOCH_S / 2)
    second = ring.epoch()
    assert open_with(ring, seal_to(first))
    assert open_with(ring, seal_to(second))
    time.pass_s(EPOCH_S / 2 - 1)
    assert open_with(ring, seal_to(first, seed="last moment"))
    time.pass_s(1)
    assert open_with(ring, seal_to(first, seed="too late")) is None
    assert first.hpke is None
    assert open_with(ring, seal_to(second, seed="still good"))


def test_a_sweep_forgets_ended_epochs_only() -> None:
    time = FakeTime()
    ring = key_ring(time)
    first = ring.epoch()
    time.pass_s(EPOCH_S / 2)
    second = ring.epoch()
    time.pass_s(EPOCH_S / 2)
    ring.sweep()
    assert list(ring._by_id) == [second.key_id]
    assert first.hpke is None


@pytest.mark.parametrize("epoch_s", [60, 24 * 3600])
def test_an_epoch_lives_as_long_as_it_says(epoch_s: int) -> None:
    held = key_ring(FakeTime(), epoch_s=epoch_s).epoch()
    assert held.keyset.not_after - held.keyset.not_before == epoch_s == held.ends_s - BOOT_S


# Replays


def test_a_replayed_request_is_refused_as_long_as_its_key_lives() -> None:
    time = FakeTime()
    ring = key_ring(time)
    header = seal_to(ring.epoch())
    assert open_with(ring, header)
    for _ in range(3):
        with pytest.raises(ReplayedMessageError):
            open_with(ring, header)
    assert open_with(ring, seal_to(ring.epoch(), seed="another"))
    time.pass_s(EPOCH_S / 2)
    ring.epoch()
    ring.sweep()
    with pytest.raises(ReplayedMessageError):  # after rotation
        open_with(ring, header)
    time.pass_s(EPOCH_S / 2)
    ring.sweep()
    assert open_with(ring, header) is None  # the key is gone, and so is the set


def test_a_replay_after_a_restart_finds_no_key() -> None:
    before = key_ring(FakeTime(), seed="first boot")
    header = seal_to(before.epoch())
    assert open_with(before, header)
    after = key_ring(FakeTime(), seed="second boot")
    after.epoch()
    assert open_with(after, header) is None


def test_replay_sets_of_two_keys_are_apart() -> None:
    ring = key_ring(FakeTime())
    one, other = ring.epoch(), ring.fresh(ROOT)
    one.spend(bytes(16))
    other.spend(bytes(16))
    for held in (one, other):
        with pytest.raises(ReplayedMessageError):
            held.spend(bytes(16))


def test_a_full_replay_set_rotates_the_epoch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keyring.MAX_REPLAY_ENTRIES == 1_000_000
    monkeypatch.setattr(keyring, "MAX_REPLAY_ENTRIES", 3)
    ring = key_ring(FakeTime())
    first = ring.epoch()
    headers = [seal_to(first, seed=str(number)) for number in range(4)]
    for header in headers[:3]:
        assert ring.epoch() is first
        assert open_with(ring, header)
    assert first.full
    assert open_with(ring, headers[3]) is None  # no room to remember it, so it does not run
    assert open_with(ring, headers[0]) is None  # nor does a replay
    second = ring.epoch()
    assert second is not first
    assert open_with(ring, seal_to(second))


def test_held_keys_do_not_show_private_halves_when_printed() -> None:
    held = key_ring(FakeTime()).epoch()
    assert "hpke=" not in repr(held)
    assert "receipt_key=" not in repr(held)
    assert "_seen" not in repr(held)
