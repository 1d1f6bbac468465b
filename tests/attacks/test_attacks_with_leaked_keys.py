"""The attack itself: a man in the middle who holds the server's leaked epoch key (CHANNEL, "Why not TLS").

Against a client that settles for `cached` he reads everything; against the default, `fresh`, he can only carry bytes:
the key was made after the client's nonce, so it was not there to leak.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from attacks.forger import alone, attested_document, nonce_of, root_of
from attacks.world import INPUT, OUTPUT, Victim, World, is_in_session, is_sealed
from fakes.network import Answered, Sent

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import encode_document
from blindai.channel.exchange import (
    REQUEST_HEADER_BYTES,
    SESSION_HEADER_BYTES,
    Exchange,
    SessionSecret,
    open_exchange,
    request_key_id,
)
from blindai.channel.heads import ResponseHead, Trailer
from blindai.channel.sealed import AnswerReader, AnswerWriter, RequestReader
from blindai.client.attest_flow import ATTESTATION_PATH
from blindai.errors import InvalidReceiptError, SealedMessageError, StaleEvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blindai.channel.hpke import HpkeKeyPair
    from blindai.channel.keyring import HeldKey

SECRET_INPUT = np.array(INPUT, dtype="<f4").tobytes()
SECRET_OUTPUT = np.array(OUTPUT, dtype="<f4").tobytes()


@dataclass(slots=True)
class ManInTheMiddle:
    """Sits between client and server with keys that leaked before; keeps whatever he can open."""

    leaked: HeldKey
    requests: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    _session: SessionSecret | None = None
    _opening: tuple[Exchange, bytes] | None = None

    def on_request(self, sent: Sent) -> Sent:
        if is_sealed(sent):
            exchange = self._exchange(sent)
            reader = RequestReader(exchange)
            start = SESSION_HEADER_BYTES if is_in_session(sent) else REQUEST_HEADER_BYTES
            self.requests.append(b"".join(reader.feed(sent.body[start:])))
            self._opening = exchange, reader.end()
        return sent

    def on_answer(self, sent: Sent, answered: Answered) -> Answered:
        if is_sealed(sent):
            assert self._opening
            exchange, digest = self._opening
            reader = AnswerReader(exchange, max_body_bytes=1 << 20)
            reader.feed(answered.body)
            answer = reader.finish(digest)
            self.answers.append(answer.body)
            if answer.head.session:
                self._session = SessionSecret.after(
                    exchange, keyset_id=self.leaked.keyset_id, answer_header=answer.header
                )
        return answered

    def _exchange(self, sent: Sent) -> Exchange:
        route = dict(sent.headers)["Blindai-Route"]
        if is_in_session(sent):
            assert self._session
            return self._session.exchange(sent.body[:SESSION_HEADER_BYTES], route=route)
        return open_exchange(
            sent.body[:REQUEST_HEADER_BYTES],
            keys=private_half(self.leaked),
            keyset_id=self.leaked.keyset_id,
            route=route,
        )


def private_half(held: HeldKey) -> HpkeKeyPair:
    assert held.hpke
    return held.hpke


def leaked_key(world: World) -> HeldKey:
    """The private epoch key, as after a leak of the server's memory."""
    return world.app.sealed.keys.epoch()


def between(world: World, mode: Mode, on_request: Callable[[Sent], Sent | Answered]) -> Victim:
    return world.victim(world.network(on_request=on_request), mode=mode)


@pytest.mark.parametrize("sessions", [False, True], ids=["one-shot", "in session"])
def test_with_the_leaked_epoch_key_cached_traffic_is_read(world: World, sessions: bool) -> None:  # noqa: FBT001
    """What `cached` does not protect from, and the reason why it is not the default."""
    attacker = ManInTheMiddle(leaked_key(world))
    network = world.network(on_request=attacker.on_request, on_answer=attacker.on_answer)
    victim = world.victim(network, mode=Mode.CACHED, sessions=sessions)
    assert victim.infer() == OUTPUT  # the victim notices nothing
    assert any(SECRET_INPUT in request for request in attacker.requests)
    assert any(SECRET_OUTPUT in answer for answer in attacker.answers)


def test_without_the_leaked_key_the_same_bytes_are_nowhere_on_the_path(world: World) -> None:
    """The control: the attacker has read them by the key, and not because they were there to see."""
    victim = world.victim(mode=Mode.CACHED)
    victim.infer()
    passed = b"".join(sent.body + answered.body for sent, answered in victim.network.log)
    assert SECRET_INPUT not in passed
    assert SECRET_OUTPUT not in passed


def test_with_the_leaked_sealing_key_alone_no_answer_can_be_signed(world: World) -> None:
    """He can open and seal, but a receipt takes the other key."""
    leaked = leaked_key(world)

    def answer_himself(sent: Sent) -> Sent | Answered:
        if not is_sealed(sent):
            return sent
        exchange = open_exchange(
            sent.body[:REQUEST_HEADER_BYTES],
            keys=private_half(leaked),
            keyset_id=leaked.keyset_id,
            route=dict(sent.headers)["Blindai-Route"],
        )
        reader = RequestReader(exchange)
        reader.feed(sent.body[REQUEST_HEADER_BYTES:])
        writer = AnswerWriter(exchange, bytes)
        head = writer.start(ResponseHead(status=200))
        body = b"".join(writer.body((b'{"models":[]}',), padded=True))
        return Answered(status=200, body=head + body + writer.end(Trailer(request_digest=reader.end())))

    with pytest.raises(InvalidReceiptError):
        between(world, Mode.CACHED, answer_himself).model_names()


def test_with_every_key_that_leaked_before_the_nonce_fresh_traffic_stays_sealed(world: World) -> None:
    leaked = [leaked_key(world), *world.app.sealed.keys._by_id.values()]
    tried: list[bytes] = []

    def read(sent: Sent) -> Sent:
        if is_sealed(sent) and not is_in_session(sent):
            header = sent.body[:REQUEST_HEADER_BYTES]
            tried.append(request_key_id(header))
            for held in leaked:
                assert not opens(header, held, route=dict(sent.headers)["Blindai-Route"])
        return sent

    victim = between(world, Mode.FRESH, read)
    assert victim.infer() == OUTPUT  # he can relay, and that is all
    assert len(tried) == 1
    assert tried[0] not in {held.key_id for held in leaked}


def opens(header: bytes, held: HeldKey, *, route: str) -> bool:
    """Whether a held key opens a request, under its own name or under that of the key."""
    renamed = header[:4] + held.key_id + header[12:]
    for tried in (header, renamed):
        try:
            open_exchange(tried, keys=private_half(held), keyset_id=held.keyset_id, route=route)
        except SealedMessageError:
            continue
        return True
    return False


def test_a_fresh_client_does_not_take_the_cached_document_of_the_leaked_key(world: World) -> None:
    cached = attested_document(world, mode=Mode.CACHED).document

    def substitute(sent: Sent) -> Sent | Answered:
        is_attestation = sent.path == ATTESTATION_PATH
        return Answered(status=200, body=encode_document(cached)) if is_attestation else sent

    victim = between(world, Mode.FRESH, substitute)
    with pytest.raises(StaleEvidenceError, match=r"binding\.kind"):
        victim.infer()
    assert not any(is_sealed(sent) for sent, _ in victim.network.log)


def test_a_fresh_client_does_not_take_a_document_into_which_the_leaked_key_was_written(world: World) -> None:
    """He relays the nonce to the real server, and puts his own key into the live quote's keyset."""
    leaked = leaked_key(world).keyset

    def rewrite(sent: Sent, answered: Answered) -> Answered:
        if sent.path != ATTESTATION_PATH:
            return answered
        live = attested_document(world)
        keyset = dataclasses.replace(
            live.keyset, hpke_public_key=leaked.hpke_public_key, challenge=root_of(nonce_of(sent))
        )
        document = dataclasses.replace(live.document, keyset=keyset.encode(), batch=alone())
        return dataclasses.replace(answered, body=encode_document(document))

    victim = world.victim(world.network(on_answer=rewrite))
    with pytest.raises(StaleEvidenceError, match=r"binding\.report_data"):
        victim.infer()
