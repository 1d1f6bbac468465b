"""Sessions: each number runs at most once inside its window, and sessions end in time, by idling and by bounds."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from channel.sealed_parts import BOOT_S, FakeTime, key_ring
from hypothesis import given
from hypothesis import strategies as st

from blindai.channel.exchange import SessionSecret
from blindai.channel.heads import SessionGrant
from blindai.channel.sessions import (
    IDLE_S,
    LIFETIME_S,
    MAX_NUMBER,
    WINDOW,
    ClientSession,
    ReplayWindow,
    ServerSession,
    SessionTable,
)
from blindai.errors import ReplayedMessageError, SealedMessageError

KEY = key_ring(FakeTime(), epoch_s=6 * 3600).epoch()
GRANT = SessionGrant(lifetime_s=LIFETIME_S, idle_s=IDLE_S)


def secret(number: int = 0) -> SessionSecret:
    return SessionSecret(prk=bytes(32), session_id=number.to_bytes(16, "big"))


def runs(window: ReplayWindow, number: int) -> bool:
    try:
        window.spend(number)
    except ReplayedMessageError:
        return False
    return True


# The window


class NaiveWindow:
    """CHANNEL §5 word for word: `hi - 1024 < q <= hi + 1024`, q < 2^32, each q once."""

    def __init__(self) -> None:
        self.highest = -1
        self.ran: set[int] = set()

    def spend(self, number: int) -> bool:
        allowed = number < 2**32 and self.highest - 1024 < number <= self.highest + 1024 and number not in self.ran
        if allowed:
            self.ran.add(number)
            self.highest = max(self.highest, number)
        return allowed


@given(st.lists(st.integers(-1100, 1100), max_size=120))
def test_the_window_agrees_with_the_rule_as_written(steps: list[int]) -> None:
    window, naive = ReplayWindow(), NaiveWindow()
    for step in steps:
        number = max(0, naive.highest + step)
        assert runs(window, number) is naive.spend(number)


def test_the_first_number_may_be_up_to_1023() -> None:
    assert not runs(ReplayWindow(), WINDOW)
    assert runs(ReplayWindow(), WINDOW - 1)
    assert runs(ReplayWindow(), 0)


def test_edges_of_the_window() -> None:
    window = ReplayWindow()
    for number in range(1023, 10_000, 1024):
        assert runs(window, number)
    highest = number
    assert not runs(window, highest - WINDOW)
    assert runs(window, highest - WINDOW + 1)
    assert not runs(window, highest + WINDOW + 1)
    assert runs(window, highest + WINDOW)
    assert not runs(window, highest)  # now exactly 1024 behind
    assert runs(window, highest + 1)


def test_a_refused_number_burns_nothing() -> None:
    window = ReplayWindow()
    assert not runs(window, 5000)
    assert not runs(window, MAX_NUMBER)
    assert all(runs(window, number) for number in range(WINDOW))


def test_a_check_alone_burns_nothing() -> None:
    window = ReplayWindow()
    for _ in range(2):
        window.check(9)
    assert runs(window, 9)
    with pytest.raises(ReplayedMessageError, match="before"):
        window.check(9)


def test_numbers_from_two_to_the_32_are_refused() -> None:
    window = ReplayWindow()
    window._highest = MAX_NUMBER - 2  # as after four thousand million requests
    assert not runs(window, MAX_NUMBER)
    assert not runs(window, MAX_NUMBER + 5)
    assert not runs(window, 2**64 - 1)
    assert runs(window, MAX_NUMBER - 1)
    assert not runs(window, MAX_NUMBER)


@pytest.mark.parametrize("seed", range(5))
def test_600_shuffled_numbers_each_run_once(seed: int) -> None:
    order = list(range(600)) * 2
    random.Random(seed).shuffle(order)  # noqa: S311  # an order, not a secret
    window = ReplayWindow()
    ran = [number for number in order if runs(window, number)]
    assert sorted(ran) == list(range(600))
    assert not any(runs(window, number) for number in range(600))


# The server's table


def open_one(table: SessionTable[str], number: int, now_s: float, *, principal: str = "p") -> ServerSession[str]:
    return table.open(secret(number), key=KEY, principal=principal, counted_as=principal, now_s=now_s)


def living(table: SessionTable[str], now_s: float, count: int = 20) -> list[int]:
    return [number for number in range(count) if table.find(secret(number).session_id, now_s)]


def test_an_unknown_session_is_not_found() -> None:
    table = SessionTable[str]()
    open_one(table, 1, BOOT_S)
    assert table.find(secret(2).session_id, BOOT_S) is None
    assert table.find(b"", BOOT_S) is None


def test_an_idle_session_ends_after_five_minutes() -> None:
    for idle_s, found in ((IDLE_S - 0.001, True), (IDLE_S, False)):
        table = SessionTable[str]()
        open_one(table, 0, BOOT_S)
        assert (table.find(secret().session_id, BOOT_S + idle_s) is not None) is found
        assert len(table) == found


def test_a_used_session_ends_after_fifteen_minutes() -> None:
    table = SessionTable[str]()
    session = open_one(table, 0, BOOT_S)
    for now_s in range(0, LIFETIME_S, 200):
        assert table.find(secret().session_id, BOOT_S + now_s) is session
        table.touch(session, BOOT_S + now_s)
    assert table.find(secret().session_id, BOOT_S + LIFETIME_S - 0.001) is session
    assert table.find(secret().session_id, BOOT_S + LIFETIME_S) is None


def test_a_session_ends_with_its_keyset() -> None:
    table = SessionTable[str]()
    key = replace(KEY, ends_s=BOOT_S + 60)
    session = table.open(secret(), key=key, principal="p", counted_as="p", now_s=BOOT_S)
    assert session.ends_s == BOOT_S + 60
    assert table.find(secret().session_id, BOOT_S + 59) is session
    assert table.find(secret().session_id, BOOT_S + 60) is None


def test_an_ended_session_does_not_come_back() -> None:
    table = SessionTable[str]()
    session = open_one(table, 0, BOOT_S)
    assert table.find(secret().session_id, BOOT_S + IDLE_S) is None
    table.touch(session, BOOT_S + IDLE_S)
    assert table.find(secret().session_id, BOOT_S) is None
    assert len(table) == 0


def test_the_idlest_session_of_a_principal_makes_room() -> None:
    table = SessionTable[str](max_sessions=100, max_per_principal=3)
    sessions = [open_one(table, number, BOOT_S + number) for number in range(3)]
    table.touch(sessions[0], BOOT_S + 10)
    open_one(table, 3, BOOT_S + 11)
    assert living(table, BOOT_S + 11) == [0, 2, 3]


def test_a_principal_at_its_bound_evicts_none_of_others() -> None:
    table = SessionTable[str](max_sessions=100, max_per_principal=2)
    open_one(table, 0, BOOT_S, principal="quiet")
    for number in range(1, 10):
        open_one(table, number, BOOT_S + number, principal="busy")
    assert living(table, BOOT_S + 10) == [0, 8, 9]


def test_the_idlest_session_of_all_makes_room() -> None:
    table = SessionTable[str](max_sessions=3, max_per_principal=2)
    first = open_one(table, 0, BOOT_S, principal="0")
    for number in (1, 2):
        open_one(table, number, BOOT_S + number, principal=str(number))
    table.touch(first, BOOT_S + 3)
    open_one(table, 3, BOOT_S + 4, principal="3")
    assert living(table, BOOT_S + 4) == [0, 2, 3]
    assert len(table) == 3


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["open", "touch", "wait"])), max_size=60))
def test_bounds_hold_whatever_happens(steps: list[tuple[int, str]]) -> None:
    table, now_s, sessions = SessionTable[str](max_sessions=5, max_per_principal=2), BOOT_S, list[ServerSession[str]]()
    for principal, step in steps:
        now_s += 100 if step == "wait" else 1
        if step == "open":
            sessions.append(open_one(table, len(sessions), now_s, principal=str(principal)))
            assert table.find(sessions[-1].secret.session_id, now_s) is sessions[-1]
        elif step == "touch" and sessions:
            table.touch(sessions[-1 - principal % len(sessions)], now_s)
        alive = [one for one in sessions if table._sessions.get(one.secret.session_id)]
        assert len(table) == len(alive) <= 5
        assert all(sum(one.principal == str(name) for one in alive) <= 2 for name in range(4))
        assert sum(map(len, table._by_principal.values())) == len(table)
    table.sweep(now_s + LIFETIME_S)
    assert len(table) == 0
    assert not table._by_principal


def test_a_sweep_drops_exactly_the_ended() -> None:
    table = SessionTable[str]()
    open_one(table, 0, BOOT_S)
    open_one(table, 1, BOOT_S + 100)
    table.sweep(BOOT_S + IDLE_S)
    assert len(table) == 1
    assert living(table, BOOT_S + IDLE_S) == [1]


# When a request was made


@pytest.mark.parametrize("elapsed_s", [0, 10, 600])
@pytest.mark.parametrize(("late_ms", "accepted"), [(0, True), (120_000, True), (120_001, False)])
def test_client_and_server_may_differ_by_120_seconds(elapsed_s: int, late_ms: int, *, accepted: bool) -> None:
    session = open_one(SessionTable[str](), 0, BOOT_S)
    for at_ms in (elapsed_s * 1000 - late_ms, elapsed_s * 1000 + late_ms):
        if accepted:
            session.check_time(at_ms, BOOT_S + elapsed_s)
        else:
            with pytest.raises(ReplayedMessageError):
                session.check_time(at_ms, BOOT_S + elapsed_s)


def test_a_request_held_back_by_the_path_is_refused() -> None:
    session = open_one(SessionTable[str](), 0, BOOT_S)
    client = ClientSession(secret(), GRANT, opened_s=9.0)
    at_ms = client.at_ms(19.0)
    assert at_ms == 10_000
    session.check_time(at_ms, BOOT_S + 10.2)
    with pytest.raises(ReplayedMessageError):
        session.check_time(at_ms, BOOT_S + 10 + 121)


def test_a_request_in_a_session_must_say_when() -> None:
    with pytest.raises(SealedMessageError):
        open_one(SessionTable[str](), 0, BOOT_S).check_time(None, BOOT_S)


def test_the_clients_time_never_runs_before_the_opening() -> None:
    assert ClientSession(secret(), GRANT, opened_s=9.0).at_ms(8.5) == 0


# The client's half


def client(lifetime_s: int = LIFETIME_S, idle_s: int = IDLE_S) -> ClientSession:
    return ClientSession(secret(), SessionGrant(lifetime_s=lifetime_s, idle_s=idle_s), opened_s=0.0)


def test_the_client_renews_before_idling_out() -> None:
    assert client().usable(IDLE_S - 21)
    assert not client().usable(IDLE_S - 19)
    session = client()
    session.take_number(200.0)
    assert session.usable(200 + IDLE_S - 21)
    assert not session.usable(200 + IDLE_S - 19)


def test_the_client_renews_before_the_lifetime_ends() -> None:
    session = client()
    for now_s in range(0, LIFETIME_S, 100):
        session.take_number(float(now_s))
    assert session.usable(LIFETIME_S - 21)
    assert not session.usable(LIFETIME_S - 19)


def test_the_client_renews_short_sessions_in_their_last_quarter() -> None:
    assert client(lifetime_s=40, idle_s=1000).usable(29)
    assert not client(lifetime_s=40, idle_s=1000).usable(31)
    assert client(lifetime_s=900, idle_s=8).usable(5.9)
    assert not client(lifetime_s=900, idle_s=8).usable(6.1)
    assert not client(lifetime_s=0, idle_s=0).usable(0.0)


def test_the_client_grants_no_session_more_than_the_specified_life() -> None:
    session = client(lifetime_s=10**9, idle_s=10**9)
    assert not session.usable(IDLE_S)
    for now_s in range(0, LIFETIME_S, 100):
        session.take_number(float(now_s))
    assert not session.usable(LIFETIME_S)


@given(st.integers(0, 3000), st.integers(0, 3000), st.lists(st.integers(0, 400), max_size=12))
def test_a_usable_session_still_lives_at_the_server(lifetime_s: int, idle_s: int, waits: list[int]) -> None:
    granted = SessionGrant(lifetime_s=min(lifetime_s, LIFETIME_S), idle_s=IDLE_S)
    table = SessionTable[str]()
    key = replace(KEY, ends_s=BOOT_S + granted.lifetime_s)
    session = table.open(secret(), key=key, principal="p", counted_as="p", now_s=BOOT_S)
    shorter = SessionGrant(lifetime_s=granted.lifetime_s, idle_s=min(idle_s, IDLE_S))
    mine = ClientSession(secret(), shorter, opened_s=0.0)
    now_s = 0.0
    for wait_s in waits:
        now_s += wait_s
        if mine.usable(now_s):
            assert mine.take_number(now_s) is not None
            assert table.find(secret().session_id, BOOT_S + now_s) is session
            table.touch(session, BOOT_S + now_s)


def test_numbers_count_from_zero_and_are_never_given_twice() -> None:
    session = client()
    taken = []
    for _ in range(3000):
        number = session.take_number(1.0)
        assert number is not None
        taken.append(number)
        session.answered(number)
        session.answered(number)
    assert taken == list(range(3000))


def test_no_number_passes_the_lowest_unanswered_by_1024() -> None:
    session = client()
    taken = [session.take_number(1.0) for _ in range(WINDOW + 3)]
    assert taken == [*range(WINDOW), None, None, None]
    session.answered(1)
    session.answered(900)
    assert session.take_number(1.0) is None
    session.answered(0)
    assert [session.take_number(1.0) for _ in range(3)] == [1024, 1025, None]  # 2 is the lowest unanswered


@given(st.lists(st.integers(0, 2000), max_size=60), st.integers(0, 2**32))
def test_whatever_order_the_server_sees_no_number_taken_leaves_its_window(steps: list[int], seed: int) -> None:
    session, window, waiting, order = client(), ReplayWindow(), list[int](), random.Random(seed)  # noqa: S311  # an order
    for step in steps:
        taken = (session.take_number(1.0) for _ in range(step))
        waiting += [number for number in taken if number is not None]
        order.shuffle(waiting)
        arrived, waiting = waiting[: step // 2 + 1], waiting[step // 2 + 1 :]
        for number in arrived:
            assert runs(window, number)
            session.answered(number)


def test_no_number_reaches_two_to_the_32() -> None:
    session = client()
    session._next = MAX_NUMBER - 1
    assert session.take_number(1.0) == MAX_NUMBER - 1
    session.answered(MAX_NUMBER - 1)
    assert session.take_number(1.0) is None


def test_threads_never_get_the_same_number() -> None:
    session, taken = client(), list[int | None]()

    def take() -> None:
        for _ in range(100):
            taken.append(session.take_number(1.0))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number in taken if number is not None) == list(range(800))


def test_sessions_do_not_show_their_secrets_or_principal_when_printed() -> None:
    session = SessionTable[str]().open(
        SessionSecret(prk=b"\xaa" * 32, session_id=bytes(16)), key=KEY, principal="alice", counted_as="alice", now_s=0
    )
    assert "alice" not in repr(session)
    assert "\\xaa" not in repr(session) + repr(session.secret)


def test_sessions_and_messages_need_no_attestation_code() -> None:
    code = (
        "import sys, blindai.channel.sessions, blindai.channel.sealed, blindai.channel.keyring\n"
        "sys.exit(any(name.startswith('blindai.attestation') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
