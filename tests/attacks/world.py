"""A server, its clients and the attacker between them, in one process and with clocks that a test moves.

The server is the real application and the clients run the real flows; only sockets are missing (fakes/network.py).
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from fakes.network import Answered, Network, Sent

from blindai.attestation.policy import insecure_simulation_policy
from blindai.channel.exchange import Exchange, seal_exchange
from blindai.channel.heads import RequestHead
from blindai.channel.keyring import Clock
from blindai.channel.sealed import Answer, AnswerReader, RequestWriter
from blindai.client import flows
from blindai.client.attest_flow import attest
from blindai.client.connection import ClientClock, ClientSettings, Connection
from blindai.client.exchange_flow import SEALED_PATH
from blindai.oip.rest import HEADER_LENGTH, InferRequest, encode_infer_request
from blindai.oip.tensors import tensor_from
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from blindai.channel.attested import AttestedKeyset
    from blindai.channel.exchange import SessionSecret
    from blindai.client.results import UploadedModel
    from blindai.server.app import App

MEDIA_TYPE = "application/vnd.blindai.sealed"
MODEL = "adder"
ADDED = 1.5
INPUT = (2.0, 40.0)
OUTPUT = [3.5, 41.5]
SEALED_MAGICS = (b"BSQ1", b"BSS1")


@dataclass(slots=True)
class Time:
    """All clocks of server and clients."""

    wall_s: float = 1_800_000_000.0
    boot_s: float = 1_000.0

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.boot_s += seconds

    def server(self) -> Clock:
        return Clock(wall=lambda: self.wall_s, boot=lambda: self.boot_s)

    def client(self) -> ClientClock:
        return ClientClock(wall=lambda: self.wall_s, steady=lambda: self.boot_s)


@dataclass(slots=True)
class Effects:
    """What the server really did: counted where it is done, whatever it then answers."""

    counts: Counter[str] = field(default_factory=Counter)

    @property
    def runs(self) -> int:
        return self.counts["run"]

    @property
    def uploads(self) -> int:
        return self.counts["upload"]

    @property
    def deletions(self) -> int:
        return self.counts["delete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One server with one model, and the way to it."""

    app: App
    loop: asyncio.AbstractEventLoop
    time: Time
    effects: Effects
    model_path: Path
    store_directory: Path

    def network(self, **hooks: Any) -> Network:
        return Network(app=self.app, loop=self.loop, **hooks)

    def victim(self, network: Network | None = None, **settings: Any) -> Victim:
        chosen = ClientSettings(**{"policy": insecure_simulation_policy(), **settings})
        connection = Connection(chosen, clock=self.time.client(), random=os.urandom)
        return Victim(connection=connection, network=network or self.network(), model_path=self.model_path)

    def stored_files(self) -> list[str]:
        return sorted(path.name for path in self.store_directory.iterdir())


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A client whose every byte the attacker carries."""

    connection: Connection
    network: Network
    model_path: Path

    def attest(self) -> AttestedKeyset:
        return self.network.drive(attest(self.connection))

    def infer(self) -> list[float]:
        values = np.array(INPUT, dtype=np.float32)
        result = self.network.drive(flows.infer(self.connection, MODEL, values, version=None, outputs=()))
        return [float(value) for value in result["y"]]

    def upload(self, name: str, path: Path | None = None) -> UploadedModel:
        files = flows.ModelFiles(
            name=name, version=None, paths=(path or self.model_path,), default_shape=None, load=False
        )
        return self.network.drive(flows.upload_model(self.connection, files, None))

    def delete(self, name: str) -> int:
        return self.network.drive(flows.delete_model(self.connection, name, None))

    def model_names(self) -> list[str]:
        return [model.name for model in self.network.drive(flows.list_models(self.connection))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A sealed request made by hand, so that it can be changed, kept and sent again."""

    exchange: Exchange
    body: bytes
    digest: bytes
    route: str

    def sent(self, body: bytes | None = None, *, route: str | None = None, **how: Any) -> Sent:
        return sealed_post(self.body if body is None else body, route=self.route if route is None else route, **how)

    def open(self, answer: bytes) -> Answer:
        reader = AnswerReader(self.exchange, max_body_bytes=1 << 20)
        reader.feed(answer)
        return reader.finish(self.digest)


def sealed_post(body: bytes, *, route: str = "", **how: Any) -> Sent:
    return Sent(
        method="POST",
        path=SEALED_PATH,
        headers=(("Content-Type", MEDIA_TYPE), ("Blindai-Route", route)),
        body=body,
        **how,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a request made by hand asks for."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def infer_ask() -> Ask:
    tensor = tensor_from(np.array(INPUT, dtype=np.float32), name="x")
    buffers, length = encode_infer_request(InferRequest(id="", inputs=(tensor,), outputs=()))
    return Ask(
        method="POST",
        path=f"/v2/models/{MODEL}/infer",
        body=b"".join(buffers),
        headers=((HEADER_LENGTH, str(length)),),
    )


def seal_one_shot(keyset: AttestedKeyset, ask: Ask, *, opens_session: bool = False) -> Message:
    route = base64url_encode(keyset.keyset.instance)
    exchange = seal_exchange(
        public_key=keyset.keyset.hpke_public_key, keyset_id=keyset.keyset_id, route=route, random=os.urandom
    )
    return _message(exchange, _head(ask, opens_session=opens_session), ask, route)


def seal_in_session(secret: SessionSecret, keyset: AttestedKeyset, ask: Ask, *, number: int, at_ms: int = 0) -> Message:
    route = base64url_encode(keyset.keyset.instance)
    exchange = secret.exchange(secret.header(number, os.urandom), route=route)
    return _message(exchange, _head(ask, at_ms=at_ms), ask, route)


def _head(ask: Ask, *, opens_session: bool = False, at_ms: int | None = None) -> RequestHead:
    return RequestHead(
        request_id=os.urandom(16),
        method=ask.method,
        path=ask.path,
        headers=ask.headers,
        salt=os.urandom(32),
        opens_session=opens_session,
        at_ms=at_ms,
    )


def _message(exchange: Exchange, head: RequestHead, ask: Ask, route: str) -> Message:
    writer = RequestWriter(exchange)
    body = b"".join(writer.write(head, (ask.body,)))
    return Message(exchange=exchange, body=body, digest=writer.digest, route=route)


def is_sealed(sent: Sent) -> bool:
    return sent.path == SEALED_PATH


def is_in_session(sent: Sent) -> bool:
    return sent.body.startswith(b"BSS1")


def flip(data: bytes, position: int, mask: int = 1) -> bytes:
    changed = bytearray(data)
    changed[position] ^= mask
    return bytes(changed)


def nth_sealed(number: int, attack: Callable[[Sent], Sent | Answered]) -> Callable[[Sent], Sent | Answered]:
    """Attack only the sealed request of that number, counted from 0, and let all else pass."""
    seen = 0

    def hook(sent: Sent) -> Sent | Answered:
        nonlocal seen
        if not is_sealed(sent):
            return sent
        seen += 1
        return attack(sent) if seen == number + 1 else sent

    return hook


def nth_answer(number: int, attack: Callable[[Answered], Answered]) -> Callable[[Sent, Answered], Answered]:
    """Likewise for the answers to sealed requests: by then the server has run them."""
    seen = 0

    def hook(sent: Sent, answered: Answered) -> Answered:
        nonlocal seen
        if not is_sealed(sent):
            return answered
        seen += 1
        return attack(answered) if seen == number + 1 else answered

    return hook


def frame_ends(message: bytes, header_bytes: int) -> list[int]:
    """Where the header and each frame end."""
    ends = [header_bytes]
    while ends[-1] < len(message):
        at = ends[-1]
        ends.append(at + 4 + int.from_bytes(message[at : at + 4], "big"))
    return ends
