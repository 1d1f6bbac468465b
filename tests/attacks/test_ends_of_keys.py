"""Requests that outlive their keys, a host that sets the clock back, and keys that another thread replaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attacks.world import OUTPUT, infer_ask, is_in_session, seal_one_shot

from blindai.client.exchange_flow import SealedRequest, exchange

if TYPE_CHECKING:
    from attacks.world import World

    from blindai.channel.attested import AttestedKeyset
    from blindai.channel.keyring import HeldKey


def test_a_request_that_outlives_its_keys_opens_no_session(world: World) -> None:
    victim = world.victim()
    keyset = victim.attest()
    message = seal_one_shot(keyset, infer_ask(), opens_session=True)
    held_for(world, keyset).ends_s = world.time.boot_s + 0.5  # as when a long body ends after its keys
    answer = message.open(victim.network.deliver(message.sent()).body)
    assert (answer.head.status, answer.head.session) == (200, None)


def test_a_request_whose_head_ends_after_its_keys_does_not_run(world: World) -> None:
    """Else its receipt would start after its keyset's end, and the client refuse the answer."""
    victim = world.victim()
    keyset = victim.attest()
    message = seal_one_shot(keyset, infer_ask())
    held, runs = held_for(world, keyset), world.effects.runs
    held.ends_s = world.time.boot_s
    assert victim.network.deliver(message.sent()).status == 421
    assert world.effects.runs == runs
    held.ends_s += 60
    assert victim.network.deliver(message.sent()).status == 200  # the attempt has not been taken for a run
    assert world.effects.runs == runs + 1


def held_for(world: World, keyset: AttestedKeyset) -> HeldKey:
    return next(held for held in world.app.sealed.keys._by_id.values() if held.keyset_id == keyset.keyset_id)


def test_an_upload_does_not_open_the_session_that_others_wait_for(world: World) -> None:
    victim = world.victim()
    victim.attest()
    upload = exchange(
        victim.connection, SealedRequest(method="POST", path="/v2/repository/models/m/upload", repeatable=False)
    )
    next(upload)  # it is on its way, perhaps for hours
    assert victim.infer() == OUTPUT
    assert victim.infer() == OUTPUT
    assert is_in_session(victim.network.log[-1][0])
    upload.close()


def test_a_clock_set_back_during_a_request_does_not_spoil_its_receipt(world: World) -> None:
    victim = world.victim()
    victim.infer()
    before_s = world.time.wall_s
    world.time.wall_s -= 60  # what NTP, or the host, may do
    try:
        assert victim.infer() == OUTPUT
    finally:
        world.time.wall_s = before_s


def test_a_session_is_used_only_with_the_keys_that_it_was_opened_with(world: World) -> None:
    victim = world.victim()
    assert victim.infer() == OUTPUT
    old = victim.connection.attested
    assert old is not None
    assert victim.connection.take_session(old) is not None
    new = victim.attest()  # another thread found the keys ended, and attested
    assert victim.infer() == OUTPUT  # and opened a session under the new keys
    assert victim.connection.take_session(new) is not None
    assert victim.connection.take_session(old) is None


def test_erased_keys_are_not_kept(world: World) -> None:
    for _ in range(20):
        world.victim().attest()
    assert len(world.app.sealed.keys._by_id) >= 20
    world.time.pass_s(121)
    world.app.sealed.keys.sweep()
    assert not [held for held in world.app.sealed.keys._by_id.values() if held.keyset.kind == "fresh"]
