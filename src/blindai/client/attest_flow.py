"""The client's first step, without I/O: ask a server for evidence, and decide on it before anything else is sent.

Flows are generators: they yield `HttpRequest`s and are sent `HttpResponse`s, so that the sync and the async client
drive the same code; what a user gave may block: a credential's source, and one of endorsements.
Leaves out: the decision itself (channel/attested.py), sealed messages (exchange_flow.py), sockets.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from blindai.attestation.binding import Mode
from blindai.attestation.evidence import parse_document
from blindai.channel.attested import MAX_ANSWER_S, MAX_CLOCK_DIFFERENCE_S, AttestedKeyset, accept_attestation
from blindai.client.activation_flow import activate
from blindai.client.own_endorsements import with_own
from blindai.client.transport import HttpRequest, HttpResponse
from blindai.errors import ConnectionLostError, OverloadedError
from blindai.wire import base64url_encode, compact_json

if TYPE_CHECKING:
    from blindai.client.connection import Connection

T = TypeVar("T")
Flow = Generator[HttpRequest, HttpResponse, T]

ATTESTATION_PATH = "/.well-known/blindai/attestation"
MAX_ATTESTATION_BYTES = 1 << 20
_LOG = logging.getLogger("blindai.client")


class AttestedMeanwhileError(Exception):
    """A driver throws it instead of sending an attestation request: another flow of the connection has just attested.

    Otherwise a burst of requests after a pause would ask for as many attestations, more than the server makes for one.
    """


def attest(connection: Connection) -> Flow[AttestedKeyset]:
    """Ask for evidence, and its TPM about its keys, and decide; nothing else is ever sent to a server before that.

    Raises:
        RejectedEvidenceError: the server is not proven to be what the policy accepts.
        EndorsementsUnavailableError: the client insists on its own endorsements, and cannot have them.
        ChannelError: no answer, another service or operator, or keys that have ended.
        InferenceError: the server cannot attest now, or its TPM is too slow.
    """
    before = connection.attested
    try:
        return (yield from _attest(connection))
    except AttestedMeanwhileError:
        keyset = connection.living_keyset()
        if keyset is not None and keyset is not before:
            return keyset
    return (yield from _attest(connection))  # the other flow failed; so may this one, with its own error


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server showed, before anybody has judged it.

    Attributes:
        nonce: what was sent, if fresh evidence was asked for.
        elapsed_s: seconds between asking and the end of the answer.
        answered_s: when that end was, by the connection's steady clock.
    """

    body: bytes = field(repr=False)
    nonce: bytes | None = field(repr=False)
    elapsed_s: float
    answered_s: float


def ask(connection: Connection) -> Flow[Answer]:
    """Ask for evidence, and believe nothing of it.

    Raises:
        ChannelError: no answer.
        OverloadedError: not now.
    """
    settings, clock = connection.settings, connection.clock
    nonce = connection.random(32) if settings.mode is Mode.FRESH else None
    asked_s = clock.steady()
    response = yield _attestation_request(nonce, settings.timeout_s)
    answered_s = clock.steady()
    if response.status == OverloadedError.status:
        raise OverloadedError("the server makes too many attestations at the moment", hint="try again in a second")
    if response.status != 200:  # noqa: PLR2004  # HTTP's OK
        raise ConnectionLostError(
            f"the attestation endpoint answered with status {response.status}", hint="is this a BlindAI server?"
        )
    return Answer(body=response.body, nonce=nonce, elapsed_s=answered_s - asked_s, answered_s=answered_s)


def _attest(connection: Connection) -> Flow[AttestedKeyset]:
    settings = connection.settings
    answer = yield from ask(connection)
    document = parse_document(answer.body)
    if settings.endorsements is not None:  # may take its time, which counts against the age of the keys
        document = with_own(document, settings.endorsements, now=connection.clock.wall())
    policy = yield from activate(connection, document)  # and so does this
    now = connection.clock.wall()
    keyset = accept_attestation(
        document,
        policy,
        service=settings.service,
        mode=settings.mode,
        nonce=answer.nonce,
        now=now,
        elapsed_s=answer.elapsed_s,
        pins_tls=settings.pins_tls,
    )
    if settings.mode is Mode.FRESH and abs(now - keyset.keyset.not_before) > MAX_CLOCK_DIFFERENCE_S:
        _LOG.warning("the server's clock and this machine's differ by more than %d s", MAX_CLOCK_DIFFERENCE_S)
    connection.remember(keyset, answered_s=answer.answered_s)
    return keyset


def _attestation_request(nonce: bytes | None, timeout_s: float) -> HttpRequest:
    return HttpRequest(
        method="GET" if nonce is None else "POST",
        path=ATTESTATION_PATH,
        headers=(("Accept", "application/json"), ("Cache-Control", "no-store"), ("Content-Type", "application/json")),
        body=None if nonce is None else compact_json({"nonce": base64url_encode(nonce)}),
        max_body_bytes=MAX_ATTESTATION_BYTES,
        timeout_s=timeout_s,
        deadline_s=MAX_ANSWER_S,  # what takes longer is refused anyway
    )
