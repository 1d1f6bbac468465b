"""What a client knows about one server: its settings, the attested keys and the open session (no I/O).

Thread-safe; after a fork the child forgets keys and session, because two processes must never share a session's
numbers. Leaves out: what is done with them (exchange_flow.py).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakSet

from blindai.attestation.binding import Mode
from blindai.channel.keyset import DEFAULT_SERVICE
from blindai.errors import KeysetExpiredError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.attestation.policy import Policy
    from blindai.attestation.tpm2.vouchers import Activation
    from blindai.channel.attested import AttestedKeyset
    from blindai.channel.exchange import SessionSecret
    from blindai.channel.heads import SessionGrant
    from blindai.endorsements.documents import Source
    from blindai.oip.rest import ModelMetadata

from blindai.channel.sessions import ClientSession

FRESH_SEALING_S = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """What a client asks of every server it talks to.

    Attributes:
        policy: what it accepts as proof.
        service: the service name it expects.
        mode: the kind of evidence it asks for; `fresh` unless told otherwise.
        pins_tls: whether it talks in clear inside TLS to a key that the evidence names, instead of sealing.
        sessions: whether to open a session.
        padded: whether to pad bodies; the receipt says so.
        receipts: whether the enclave shall sign each answer.
        timeout_s: patience with each step on the network.
        max_answer_bytes: a larger answer is refused.
        credential: gives the API key or token that goes into sealed heads; None sends none.
        endorsements: the client's own, in place of those that servers staple; None judges by the stapled ones.
    """

    policy: Policy
    service: str = DEFAULT_SERVICE
    mode: Mode = Mode.FRESH
    pins_tls: bool = False
    sessions: bool = True
    padded: bool = True
    receipts: bool = True
    timeout_s: float = 120.0
    max_answer_bytes: int = 1 << 30
    credential: Callable[[], str] | None = field(default=None, repr=False)
    endorsements: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientClock:
    """Two clocks, in seconds: `wall` (Unix time, for certificates and keysets) and `steady` (only moves forward)."""

    wall: Callable[[], float]
    steady: Callable[[], float]


def _steady() -> float:
    """Counts through a laptop's sleep where the system has such a clock (Linux), as the server's does."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


SYSTEM_CLOCK = ClientClock(wall=time.time, steady=_steady)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attested:
    keyset: AttestedKeyset
    answered_s: float


class Connection:
    """One server as this client knows it."""

    def __init__(self, settings: ClientSettings, *, clock: ClientClock, random: Callable[[int], bytes]) -> None:
        self.settings = settings
        self.clock = clock
        self.random = random
        self.start_anew()
        _CONNECTIONS.add(self)

    def start_anew(self) -> None:
        """Forget everything: at first, in a forked child (its parent goes on with the numbers), and when closed."""
        self._lock = threading.Lock()
        self._attested: _Attested | None = None
        self._session: tuple[AttestedKeyset, ClientSession] | None = None
        self._opening = False
        self.models: dict[str, ModelMetadata] = {}
        self.activations: set[Activation] = set()
        self.token = self.random(16)

    @property
    def attested(self) -> AttestedKeyset | None:
        """The keys that were accepted last, or None."""
        attested = self._attested
        return attested.keyset if attested else None

    def remember(self, keyset: AttestedKeyset, *, answered_s: float) -> None:
        """Keep keys that were just accepted, and when the server showed them; an older session ends."""
        with self._lock:
            self._attested = _Attested(keyset=keyset, answered_s=answered_s)
            self._session = None

    def forget(self, keyset: AttestedKeyset) -> None:
        """Drop these keys and their session, unless another thread has already replaced them."""
        with self._lock:
            if self._attested and self._attested.keyset is keyset:
                self._attested = None
                self._session = None

    def living_keyset(self) -> AttestedKeyset | None:
        """The keys if they have not ended: asked before every request.

        None means that the server must be attested (again).
        """
        attested = self.attested
        if attested is None:
            return None
        try:
            attested.check_time(self.clock.wall())
        except KeysetExpiredError:
            self.forget(attested)
            return None
        return attested

    def can_seal(self, keyset: AttestedKeyset) -> bool:
        """Whether a one-shot request may still be sealed to these keys; the enclave erases fresh ones after 120 s."""
        attested = self._attested
        if attested is None or attested.keyset is not keyset:
            return False
        age_s = self.clock.steady() - attested.answered_s
        return self.settings.mode is Mode.CACHED or age_s < FRESH_SEALING_S

    def take_session(self, keyset: AttestedKeyset) -> tuple[ClientSession, int] | None:
        """A usable session under these very keys, and the next number in it."""
        opened, now_s = self._session, self.clock.steady()
        if opened is None or opened[0] is not keyset or not opened[1].usable(now_s):
            return None
        number = opened[1].take_number(now_s)
        return None if number is None else (opened[1], number)

    def claim_opening(self) -> bool:
        """Whether the caller shall open the session: one at a time does, the others seal each request meanwhile."""
        with self._lock:
            if self._opening or not self.settings.sessions:
                return False
            self._opening = True
            return True

    def end_opening(self) -> None:
        """The claim is over, whatever came of it."""
        self._opening = False

    def open_session(self, keyset: AttestedKeyset, secret: SessionSecret, grant: SessionGrant) -> None:
        """Use a session from now on, if its keys are still the ones in use."""
        session = ClientSession(secret, grant, opened_s=self.clock.steady())
        with self._lock:
            if self._attested and self._attested.keyset is keyset:
                self._session = keyset, session

    def drop_session(self, session: ClientSession) -> None:
        """Stop using a session."""
        with self._lock:
            if self._session and self._session[1] is session:
                self._session = None


_CONNECTIONS: WeakSet[Connection] = WeakSet()


def _after_fork() -> None:
    """Two processes must never share a session's numbers, nor a lock that a thread of the parent held."""
    for connection in list(_CONNECTIONS):
        connection.start_anew()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
