"""What a session saves: server CPU per tiny sealed request, in a session against one encapsulation each.

Method: the server's own code on both sides of the message, no sockets and no model: header to keys, frames opened,
head parsed, an answer sealed and (where asked) a receipt signed. One process, one core, median of rounds; the ratio is
what counts, since machines differ. Run with `make bench`.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from blindai.channel.exchange import (
    REQUEST_HEADER_BYTES,
    SESSION_HEADER_BYTES,
    Exchange,
    SessionSecret,
    open_exchange,
    replay_digest,
    seal_exchange,
)
from blindai.channel.heads import RequestHead, ResponseHead, Trailer
from blindai.channel.hpke import HpkeKeyPair
from blindai.channel.sealed import AnswerWriter, RequestReader, RequestWriter
from blindai.receipts import BodyCommitment, ModelIdentity, Receipt, sign_receipt

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 15
REQUESTS = 100
BODY = os.urandom(256)
KEYSET_ID = bytes(32)
HEAD = RequestHead(request_id=bytes(16), method="POST", path="/v2/models/m/infer", salt=bytes(32))


def request_bytes(exchange: Exchange) -> bytes:
    """One whole request, as the client sends it."""
    return b"".join(RequestWriter(exchange).write(HEAD, [BODY]))


def answer(exchange: Exchange, frames: bytes) -> bytes:
    """The server's work after the keys are known: read the request, seal an answer."""
    reader = RequestReader(exchange)
    body = reader.feed(frames)
    writer = AnswerWriter(exchange, os.urandom)
    start = writer.start(ResponseHead(status=200))
    return b"".join((start, *writer.body(body, padded=True), writer.end(Trailer(request_digest=reader.end()))))


def cost_us(serve: Callable[[bytes], object], requests: list[bytes]) -> float:
    """CPU microseconds per request."""
    started = time.process_time()
    for request in requests:
        serve(request)
    return (time.process_time() - started) / len(requests) * 1e6


def sign(key: Ed25519PrivateKey, public_key: bytes) -> None:
    """A receipt, as for every answer."""
    commitment = BodyCommitment.to_response(HEAD.salt)
    commitment.update(BODY)
    model = ModelIdentity(name="m", version="1", digest="sha256:" + 64 * "0", engine="onnxruntime", precision="fp32")
    receipt = Receipt(
        keyset_id=KEYSET_ID,
        request_id=HEAD.request_id,
        door="sealed",
        method="POST",
        path=HEAD.path,
        status=200,
        complete=True,
        model=model,
        runtime_policy=bytes(32),
        padded=True,
        start_ms=1,
        end_ms=2,
        request=bytes(32),
        response=commitment.digest(),
    )
    sign_receipt(receipt, key, public_key=public_key)


def main() -> None:
    """Measure both in turn, so that both meet the same noise."""
    keys = HpkeKeyPair(os.urandom)
    opening = seal_exchange(public_key=keys.public_key, keyset_id=KEYSET_ID, route="", random=os.urandom)
    first = AnswerWriter(opening, os.urandom)
    session = SessionSecret.after(opening, keyset_id=KEYSET_ID, answer_header=first.header)

    def one_shot(request: bytes) -> None:
        header = request[:REQUEST_HEADER_BYTES]
        replay_digest(header)
        answer(open_exchange(header, keys=keys, keyset_id=KEYSET_ID, route=""), request[REQUEST_HEADER_BYTES:])

    def in_session(request: bytes) -> None:
        answer(session.exchange(request[:SESSION_HEADER_BYTES], route=""), request[SESSION_HEADER_BYTES:])

    receipt_key = Ed25519PrivateKey.generate()
    public_key = receipt_key.public_key().public_bytes_raw()
    rounds: dict[str, list[float]] = {"one encapsulation each": [], "in a session": [], "receipt": []}
    for _ in range(ROUNDS):
        sealed = [
            request_bytes(seal_exchange(public_key=keys.public_key, keyset_id=KEYSET_ID, route="", random=os.urandom))
            for _ in range(REQUESTS)
        ]
        numbered = [request_bytes(session.exchange(session.header(q, os.urandom), route="")) for q in range(REQUESTS)]
        rounds["one encapsulation each"].append(cost_us(one_shot, sealed))
        rounds["in a session"].append(cost_us(in_session, numbered))
        rounds["receipt"].append(cost_us(lambda _: sign(receipt_key, public_key), numbered))
    table = Table("server work per request", "median µs", "min", "max", title="a 256-byte sealed request")
    for name, found in rounds.items():
        table.add_row(name, f"{statistics.median(found):.0f}", f"{min(found):.0f}", f"{max(found):.0f}")
    Console().print(table)
    pairs = zip(rounds["one encapsulation each"], rounds["in a session"], strict=True)
    ratio = statistics.median(one / session for one, session in pairs)
    Console().print(f"without a session, the channel costs {ratio:.2f} × as much (receipt aside)")


if __name__ == "__main__":
    main()
