"""Parts of which the channel's tests are made: time that stands still, random bytes that repeat, keysets, messages.

Leaves out: whatever the code under test does itself; only bytes that a hostile peer may send are made by hand.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from blindai.channel.exchange import REQUEST_HEADER_BYTES, Exchange, SessionSecret, open_exchange, seal_exchange
from blindai.channel.heads import RequestHead
from blindai.channel.keyring import Clock, HeldKey, Identity, KeyRing
from blindai.channel.keyset import Software
from blindai.channel.runtime_policy import RuntimeLimits, RuntimePolicy
from blindai.channel.sealed import RequestReader, RequestWriter
from blindai.wire import label, length_prefixed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blindai.channel.hpke import HpkeKeyPair

WALL_S = 1_800_000_000
BOOT_S = 5_000.0
INSTANCE = bytes(range(32))
ROUTE = "cm91dGU"
MASKS = (0x01, 0x80)


class Repeatable:
    """Random bytes that are the same in every run, and differ from call to call."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._calls = 0

    def __call__(self, size: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(f"{self._seed} {self._calls}".encode()).digest(size)


@dataclass(slots=True)
class FakeTime:
    """Both clocks of a server; a test moves them on."""

    wall_s: float = float(WALL_S)
    boot_s: float = BOOT_S

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.wall_s, boot=lambda: self.boot_s)

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.boot_s += seconds


def runtime_policy() -> RuntimePolicy:
    return RuntimePolicy(
        log_level="info",
        telemetry=False,
        isolation="model",
        batching=False,
        execution_providers=("cpu",),
        authentication="none",
        sealing="ephemeral",
        upload_allowed=True,
        require_sealed=True,
        models=("sha256:" + "ab" * 32,),
        limits=RuntimeLimits(max_body_bytes=1 << 30, max_model_bytes=1 << 34, max_models=16, run_timeout_s=60),
        configuration=bytes(32),
    )


def identity(**changes: Any) -> Identity:
    members: dict[str, Any] = {
        "service": "blindai-srv",
        "instance": INSTANCE,
        "runtime": runtime_policy(),
        "software": Software(name="blindai", version="1.0.0a1", engines=(("onnxruntime", "1.22.0"),)),
        "simulated": True,
    }
    return Identity(**{**members, **changes})


def key_ring(time: FakeTime, *, seed: str = "key ring", epoch_s: int = 6 * 3600, **changes: Any) -> KeyRing:
    return KeyRing(identity(**changes), clock=time.clock(), random=Repeatable(seed), epoch_s=epoch_s)


def private_half(held: HeldKey) -> HpkeKeyPair:
    assert held.hpke is not None
    return held.hpke


def request_head(**changes: Any) -> RequestHead:
    members: dict[str, Any] = {
        "request_id": bytes(16),
        "method": "POST",
        "path": "/v2/models/m/infer",
        "headers": (("authorization", "Bearer t"),),
        "content_type": "application/octet-stream",
        "salt": bytes(32),
    }
    return RequestHead(**{**members, **changes})


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as sent: its exchange at the client, header and frames apart, and `F`."""

    exchange: Exchange
    frames: bytes
    digest: bytes

    @property
    def message(self) -> bytes:
        return self.exchange.header + self.frames


@dataclass(frozen=True, slots=True)
class Read:
    """What the server made of a request."""

    exchange: Exchange
    head: RequestHead
    body: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Server:
    """One held key, and what its owner reads."""

    held: HeldKey = field(default_factory=lambda: key_ring(FakeTime()).fresh(bytes(32)))

    def seal(self, body: Iterable[bytes] = (b"body",), *, seed: str = "request", **head: Any) -> Sent:
        return write(
            seal_exchange(
                public_key=self.held.keyset.hpke_public_key,
                keyset_id=self.held.keyset_id,
                route=ROUTE,
                random=Repeatable(seed),
            ),
            body,
            **head,
        )

    def read(self, message: bytes, *, route: str = ROUTE) -> Read:
        exchange = open_exchange(
            message[:REQUEST_HEADER_BYTES],
            keys=private_half(self.held),
            keyset_id=self.held.keyset_id,
            route=route,
        )
        return read_frames(exchange, message[REQUEST_HEADER_BYTES:])


def write(exchange: Exchange, body: Iterable[bytes], **head: Any) -> Sent:
    writer = RequestWriter(exchange)
    message = b"".join(writer.write(request_head(**head), body))
    return Sent(exchange, message[len(exchange.header) :], writer.digest)


def read_frames(exchange: Exchange, frames: bytes) -> Read:
    reader = RequestReader(exchange)
    body = b"".join(reader.feed(frames))
    digest = reader.end()
    assert reader.head is not None
    return Read(exchange, reader.head, body, digest)


def opened_session(server: Server) -> SessionSecret:
    """What both ends hold after an opening; the answer's nonce is fixed."""
    opening = server.seal(opens_session=True).exchange
    header = opening.answer_prefix + bytes(range(32))
    return SessionSecret.after(opening, keyset_id=server.held.keyset_id, answer_header=header)


def split_frames(stream: bytes) -> list[bytes]:
    frames = []
    while stream:
        size = 4 + int.from_bytes(stream[:4], "big")
        frames.append(stream[:size])
        stream = stream[size:]
    return frames


def hostile_frame(keys: bytes, index: int, kind: int, plaintext: bytes) -> bytes:
    """A frame that authenticates, whatever it holds: what a peer with the keys may send."""
    nonce = (int.from_bytes(keys[32:], "big") ^ index).to_bytes(12, "big")
    ciphertext = AESGCM(keys[:32]).encrypt(nonce, plaintext, label("frame") + bytes([kind]))
    return length_prefixed(bytes([kind]) + ciphertext)


def plaintext(data: bytes, zeros: int = 0) -> bytes:
    return length_prefixed(data) + bytes(zeros)


def head_plaintext(data: bytes) -> bytes:
    return plaintext(data, -(4 + len(data)) % 1024)


def flips(data: bytes) -> Iterator[bytes]:
    """The same bytes with one of them changed: every byte, once in its lowest and once in its highest bit."""
    for position in range(len(data)):
        for mask in MASKS:
            changed = bytearray(data)
            changed[position] ^= mask
            yield bytes(changed)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The data cut at any places, empty pieces among them."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        yield data[start:end]
