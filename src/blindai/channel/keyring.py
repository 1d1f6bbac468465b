"""The server's private keys: who may still open what, and when each key ends (docs/spec/sealed.md §1, §2).

One process owns a `KeyRing`; keys never touch the disk and end by a clock that the host cannot set.
"Erased" means that the last reference is dropped; Python cannot overwrite memory (SECURITY.md).
Leaves out: evidence about the keys (server/attestation_door.py) and the messages themselves (sealed.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blindai.channel.exchange import key_id
from blindai.channel.hpke import HpkeKeyPair
from blindai.channel.keyset import MAX_FRESH_S, Keyset, Kind, Software, keyset_id
from blindai.errors import ReplayedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.channel.admission import Admission
    from blindai.channel.runtime_policy import RuntimePolicy

DEFAULT_EPOCH_S = 6 * 3600
FRESH_HPKE_S = 120
MAX_REPLAY_ENTRIES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Two clocks, in seconds: `wall` (Unix time, set by the host) and `boot` (only moves forward)."""

    wall: Callable[[], float]
    boot: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What every keyset of this server says alike."""

    service: str
    instance: bytes
    runtime: RuntimePolicy
    software: Software
    simulated: bool
    operator: Admission | None = None
    tls: tuple[bytes, ...] = ()

    def keyset(
        self, kind: Kind, challenge: bytes, *, not_before: int, lifetime_s: int, hpke: bytes, receipt: bytes
    ) -> Keyset:
        """The keyset of two public keys."""
        return Keyset(
            service=self.service,
            operator=self.operator,
            instance=self.instance,
            kind=kind,
            challenge=challenge,
            not_before=not_before,
            not_after=not_before + lifetime_s,
            hpke_public_key=hpke,
            tls=self.tls if kind == "epoch" else (),
            receipt_public_key=receipt,
            runtime=self.runtime,
            software=self.software,
            simulated=self.simulated,
        )


@dataclass(slots=True, kw_only=True)
class HeldKey:
    """One keyset with its private halves.

    Attributes:
        encoded: `K` as transmitted.
        hpke: None once erased; sessions opened with it live on.
        runtime_digest: what receipts repeat of the keyset's runtime policy.
        made_s: boot time at which it was made.
        made_wall_s: Unix time at that moment, as the host then had it.
        hpke_ends_s: boot time at which the HPKE key is erased.
        ends_s: boot time at which the keyset ends, receipts and sessions included.
    """

    keyset: Keyset
    encoded: bytes = field(repr=False)
    keyset_id: bytes
    key_id: bytes
    hpke: HpkeKeyPair | None = field(repr=False)
    receipt_key: Ed25519PrivateKey = field(repr=False)
    runtime_digest: bytes
    made_s: float
    made_wall_s: float
    renew_s: float
    hpke_ends_s: float
    ends_s: float
    _seen: set[bytes] = field(default_factory=set, repr=False)

    @property
    def full(self) -> bool:
        """Whether the replay set has no room; the epoch then ends early."""
        return len(self._seen) >= MAX_REPLAY_ENTRIES

    def wall_ms(self, now_s: float) -> int:
        """Unix milliseconds at boot time `now_s`, counted from when the keys were made.

        So a host that sets the clock back cannot make a receipt end before it starts.
        """
        return int((self.made_wall_s + now_s - self.made_s) * 1000)

    def spend(self, digest: bytes) -> None:
        """Note that a one-shot request runs; no `await` lies between the look and the note.

        Raises:
            ReplayedMessageError: it ran before.
        """
        if digest in self._seen:
            raise ReplayedMessageError("this sealed request was received before")
        self._seen.add(digest)


class KeyRing:
    """Makes keysets, finds keys by id, and forgets them in time."""

    def __init__(
        self, identity: Identity, *, clock: Clock, random: Callable[[int], bytes], epoch_s: int = DEFAULT_EPOCH_S
    ) -> None:
        self.identity = identity
        self._clock = clock
        self._random = random
        self._epoch_s = epoch_s
        self._by_id: dict[bytes, HeldKey] = {}
        self._epoch: HeldKey | None = None

    def epoch(self) -> HeldKey:
        """The epoch key to publish: made on first need, followed by the next one at half life or when full."""
        current = self._epoch
        if current is None or self._clock.boot() >= current.renew_s or current.full:
            current = self._epoch = self._make("epoch", b"", lifetime_s=self._epoch_s, hpke_s=self._epoch_s)
        return current

    def epoch_age_s(self) -> float:
        """Seconds since the epoch key that is published now was made; 0 if none was needed yet."""
        return 0.0 if self._epoch is None else self._clock.boot() - self._epoch.made_s

    def fresh(self, challenge: bytes) -> HeldKey:
        """A key that did not exist before `challenge`, the root of a batch of nonces, was known."""
        return self._make("fresh", challenge, lifetime_s=MAX_FRESH_S, hpke_s=FRESH_HPKE_S)

    def find(self, kid: bytes) -> HeldKey | None:
        """The key of that id if it can still open requests; one that cannot is erased here."""
        held = self._by_id.get(kid)
        if held is not None and self._is_over(held):
            self._erase(held)
            return None
        return held

    def sweep(self) -> None:
        """Erase what has ended."""
        for held in list(self._by_id.values()):
            if self._is_over(held):
                self._erase(held)

    def _is_over(self, held: HeldKey) -> bool:
        return held.full or self._clock.boot() >= held.hpke_ends_s

    def _erase(self, held: HeldKey) -> None:
        """Sessions, and requests that are being read, keep the rest of it; its replay set lives as long as they do."""
        held.hpke = None
        del self._by_id[held.key_id]
        if held is self._epoch:
            self._epoch = None

    def _make(self, kind: Kind, challenge: bytes, *, lifetime_s: int, hpke_s: int) -> HeldKey:
        hpke = HpkeKeyPair(self._random)
        receipt_key = Ed25519PrivateKey.from_private_bytes(self._random(32))
        wall_s, now_s = self._clock.wall(), self._clock.boot()
        keyset = self.identity.keyset(
            kind,
            challenge,
            not_before=int(wall_s),
            lifetime_s=lifetime_s,
            hpke=hpke.public_key,
            receipt=receipt_key.public_key().public_bytes_raw(),
        )
        encoded, left_s = keyset.encode(), keyset.not_after - wall_s  # `not_before` is rounded down to a second
        held = HeldKey(
            keyset=keyset,
            encoded=encoded,
            keyset_id=keyset_id(encoded),
            key_id=key_id(hpke.public_key),
            hpke=hpke,
            receipt_key=receipt_key,
            runtime_digest=keyset.runtime.digest,
            made_s=now_s,
            made_wall_s=wall_s,
            renew_s=now_s + lifetime_s / 2,
            hpke_ends_s=now_s + min(hpke_s, left_s),
            ends_s=now_s + left_s,
        )
        self._by_id[held.key_id] = held
        return held
