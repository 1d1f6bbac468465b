"""Sessions: many requests after one encapsulation, each run at most once (docs/spec/sealed.md §5).

The client counts requests with `ClientSession`; the server keeps `ServerSession`s in a `SessionTable`.
Time is an argument, in seconds of a clock that only moves forward. Leaves out: key derivation (exchange.py).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from blindai.errors import ReplayedMessageError, SealedMessageError

if TYPE_CHECKING:
    from blindai.channel.exchange import SessionSecret
    from blindai.channel.heads import SessionGrant
    from blindai.channel.keyring import HeldKey

LIFETIME_S = 15 * 60
IDLE_S = 5 * 60
WINDOW = 1024
MAX_NUMBER = 1 << 32
MAX_CLOCK_DIFFERENCE_MS = 120_000
MAX_SESSIONS = 32_768
MAX_SESSIONS_PER_PRINCIPAL = 64
_RENEW_BEFORE_S = 20.0

P = TypeVar("P")


class ReplayWindow:
    """Which request numbers ran: a sliding window of 1024 (as in RFC 4303 §3.4.3, and ahead as well)."""

    __slots__ = ("_highest", "_seen")

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0  # bit i: number _highest - i has run

    def check(self, number: int) -> None:
        """Whether `number` may still run.

        Raises:
            ReplayedMessageError: it ran, or is outside the window.
        """
        behind = self._highest - number
        if number >= MAX_NUMBER or not -WINDOW <= behind < WINDOW:
            raise ReplayedMessageError("the request's number is outside the session's window")
        if behind >= 0 and self._seen >> behind & 1:
            raise ReplayedMessageError("the request's number was used before")

    def spend(self, number: int) -> None:
        """Check and mark in one step.

        Raises:
            ReplayedMessageError: as `check`.
        """
        self.check(number)
        ahead = number - self._highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & ((1 << WINDOW) - 1)
            self._highest = number
        else:
            self._seen |= 1 << -ahead


@dataclass(slots=True, kw_only=True)
class ServerSession(Generic[P]):
    """The server's half of one session.

    Attributes:
        principal: whose it is, as the server knows them; only its server looks into it.
        counted_as: the name under which the principal's sessions are counted.
        notes: what the server keeps as long as the session lives.
    """

    secret: SessionSecret = field(repr=False)
    key: HeldKey = field(repr=False)
    principal: P = field(repr=False)
    counted_as: str = field(repr=False)
    opened_s: float
    used_s: float
    ends_s: float
    window: ReplayWindow = field(default_factory=ReplayWindow, repr=False)
    notes: object = field(default=None, repr=False)

    def check_time(self, at_ms: int | None, now_s: float) -> None:
        """Both ends count from the opening, each by its own clock.

        Raises:
            ReplayedMessageError: they differ by more than 120 s, so the request was held back.
            SealedMessageError: the head does not say when.
        """
        if at_ms is None:
            raise SealedMessageError("a request in a session says when it was made (`at_ms`)")
        if abs((now_s - self.opened_s) * 1000 - at_ms) > MAX_CLOCK_DIFFERENCE_MS:
            raise ReplayedMessageError("the request was made too long ago, or too far ahead, in its session")


class SessionTable(Generic[P]):
    """The server's sessions, bounded in number; the idlest make room."""

    def __init__(
        self, *, max_sessions: int = MAX_SESSIONS, max_per_principal: int = MAX_SESSIONS_PER_PRINCIPAL
    ) -> None:
        self._max_sessions = max_sessions
        self._max_per_principal = max_per_principal
        self._sessions: OrderedDict[bytes, ServerSession[P]] = OrderedDict()  # idlest first
        self._by_principal: dict[str, OrderedDict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self,
        secret: SessionSecret,
        *,
        key: HeldKey,
        principal: P,
        counted_as: str,
        now_s: float,
        seconds_left: float = math.inf,
    ) -> ServerSession[P]:
        """Add a session, evicting the idlest beyond the bounds; it ends when `seconds_left` of its principal have."""
        of_principal = self._by_principal.setdefault(counted_as, OrderedDict())
        if len(of_principal) >= self._max_per_principal:
            self.drop(self._sessions[next(iter(of_principal))])
        while len(self._sessions) >= self._max_sessions:
            self.drop(next(iter(self._sessions.values())))
        session = ServerSession(
            secret=secret,
            key=key,
            principal=principal,
            counted_as=counted_as,
            opened_s=now_s,
            used_s=now_s,
            ends_s=min(now_s + min(LIFETIME_S, seconds_left), key.ends_s),
        )
        self._sessions[secret.session_id] = session
        self._by_principal.setdefault(counted_as, OrderedDict())[secret.session_id] = None
        return session

    def find(self, session_id: bytes, now_s: float) -> ServerSession[P] | None:
        """The living session of that id, or None; an ended one is dropped here."""
        session = self._sessions.get(session_id)
        if session and (now_s >= session.ends_s or now_s - session.used_s >= IDLE_S):
            self.drop(session)
            return None
        return session

    def touch(self, session: ServerSession[P], now_s: float) -> None:
        """Note that a request of the session authenticated."""
        session_id = session.secret.session_id
        session.used_s = now_s
        if session_id in self._sessions:
            self._sessions.move_to_end(session_id)
            self._by_principal[session.counted_as].move_to_end(session_id)

    def sweep(self, now_s: float) -> None:
        """Drop every ended session."""
        for session_id in list(self._sessions):
            self.find(session_id, now_s)

    def drop(self, session: ServerSession[P]) -> None:
        """End a session now, if it has not ended yet."""
        if self._sessions.pop(session.secret.session_id, None) is None:
            return
        of_principal = self._by_principal[session.counted_as]
        del of_principal[session.secret.session_id]
        if not of_principal:
            del self._by_principal[session.counted_as]


class ClientSession:
    """The client's half: hands out each number once, and knows when to renew. Thread-safe; dropped on fork."""

    def __init__(self, secret: SessionSecret, grant: SessionGrant, *, opened_s: float) -> None:
        self.secret = secret
        self._lifetime_s = min(grant.lifetime_s, LIFETIME_S)
        self._idle_s = min(grant.idle_s, IDLE_S)
        self._opened_s = opened_s
        self._used_s = opened_s
        self._next = 0
        self._unanswered: OrderedDict[int, None] = OrderedDict()  # numbers rise, so the first is the lowest
        self._lock = threading.Lock()

    def usable(self, now_s: float) -> bool:
        """Whether a request sent now cannot meet an expected end of the session."""
        early = min(_RENEW_BEFORE_S, self._lifetime_s / 4, self._idle_s / 4)
        return now_s - self._opened_s < self._lifetime_s - early and now_s - self._used_s < self._idle_s - early

    def take_number(self, now_s: float) -> int | None:
        """The next request's number; None when the window is full and the session has none to give."""
        with self._lock:
            lowest = next(iter(self._unanswered), self._next)
            if self._next >= MAX_NUMBER or self._next > lowest + WINDOW - 1:
                return None
            number = self._next
            self._next += 1
            self._unanswered[number] = None
            self._used_s = now_s
            return number

    def answered(self, number: int) -> None:
        """Note that the request is over, whatever came of it."""
        with self._lock:
            self._unanswered.pop(number, None)

    def at_ms(self, now_s: float) -> int:
        """Milliseconds since the opening."""
        return max(0, int((now_s - self._opened_s) * 1000))
