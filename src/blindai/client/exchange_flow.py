"""The client's second step, without I/O: exchange one sealed message for another, and check the receipt.

Attests first where no living keys are held (attest_flow.py). Leaves out: what is asked (flows.py) and sockets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.channel.exchange import MEDIA_TYPE, Exchange, SessionSecret, seal_exchange
from blindai.channel.heads import REQUEST_ID_BYTES, SALT_BYTES, RequestHead, parse_wire_error
from blindai.channel.sealed import ERROR_STATUS, Answer, AnswerReader, RequestWriter
from blindai.client.attest_flow import attest
from blindai.client.transport import HttpRequest
from blindai.errors import (
    ChannelError,
    ConnectionLostError,
    InferenceError,
    InvalidReceiptError,
    ModelStoreError,
    PeerKeyMismatchError,
    ReplayedMessageError,
    SealedMessageError,
    TruncatedMessageError,
    UnauthenticatedError,
    server_error,
)
from blindai.receipts import BodyCommitment, Receipt, verify_receipt
from blindai.wire import base64url_encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blindai.channel.attested import AttestedKeyset
    from blindai.channel.frames import Buffer
    from blindai.channel.sessions import ClientSession
    from blindai.client.attest_flow import Flow
    from blindai.client.connection import Connection
    from blindai.errors import ServerError

SEALED_PATH = "/v1/sealed"
_CHANNEL_ERRORS: dict[str, type[ChannelError]] = {
    error.code: error for error in (ReplayedMessageError, SealedMessageError, TruncatedMessageError)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRequest:
    """What is asked inside a sealed message.

    Attributes:
        body: makes the body anew each time it is called, for the one repetition that a 421 allows.
        repeatable: inference may be repeated after a 421; management never is, silently.
        on_refusal: sees the enclave's own, authenticated answer that becomes an error, before that is raised.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    content_type: str = ""
    body: Callable[[], Iterable[Buffer]] = field(default=tuple, repr=False)
    repeatable: bool = True
    on_refusal: Callable[[ServerError, Answer, AttestedKeyset], None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedResult:
    """A verified answer, with all that a proof of it needs.

    Attributes:
        receipt: None where the client wishes none; otherwise every member was checked.
        token: the receipt as it was signed; empty without one.
    """

    answer: Answer
    receipt: Receipt | None
    token: str = field(repr=False)
    salt: bytes = field(repr=False)
    keyset: AttestedKeyset = field(repr=False)

    @property
    def body(self) -> bytes:
        """The answer's body."""
        return self.answer.body

    def header(self, name: str) -> str | None:
        """The value of a header of the answer (lower-case name), or None."""
        return self.answer.head.header(name)

    def require_no_model(self) -> None:
        """Hold the receipt, if one was wished, to a request that runs no model.

        Raises:
            InvalidReceiptError: it names one.
        """
        if self.receipt is not None and self.receipt.model is not None:
            raise InvalidReceiptError("the receipt names a model, and none was to run")


class _PeerForgotError(Exception):
    """An outer 421, which anybody on the path can forge: the server says that it does not hold our key or session.

    Attributes:
        keyset: the keys that the request was made with; they may be newer than those it began with.
    """

    def __init__(self, keyset: AttestedKeyset) -> None:
        super().__init__()
        self.keyset = keyset


class _SessionAgedError(Exception):
    """The enclave's own word that a session's request came too late, so that it did not run: a new session helps."""


class _SessionRefusedError(Exception):
    """The enclave's own word that a session's principal has ended, so that nothing ran: a fresh credential may help."""


def exchange(connection: Connection, request: SealedRequest) -> Flow[SealedResult]:
    """Send one sealed request and verify its answer and receipt; attests first when no living keys are held.

    Raises:
        BlindAIError: see `attest`; and what the server answered (`InferenceError`, `ModelStoreError`).
        PeerKeyMismatchError: the server does not hold the attested keys, even after attesting again.
    """
    for last in (False, True):
        keyset = connection.living_keyset() or (yield from attest(connection))
        try:
            return (yield from _exchange_once(connection, keyset, request))
        except _SessionAgedError:
            if last:
                raise ReplayedMessageError("the server's clock and this client's run apart") from None
        except _SessionRefusedError as refused:
            if last and refused.__cause__:
                raise refused.__cause__ from None
        except _PeerForgotError as forgot:
            connection.forget(forgot.keyset)
            if not request.repeatable:
                raise PeerKeyMismatchError(
                    "the server says it no longer holds our keys, and this request is never repeated silently",
                    hint="look whether it took effect (list the models), then send it again",
                ) from None
            if last:
                raise PeerKeyMismatchError(
                    "the server does not hold the keys that it attested",
                    hint="something between answers for another server, or the server restarts over and over",
                ) from None
    raise AssertionError("unreachable")


def _exchange_once(connection: Connection, keyset: AttestedKeyset, request: SealedRequest) -> Flow[SealedResult]:
    taken = connection.take_session(keyset)
    if taken is None:
        return (yield from _one_shot(connection, keyset, request))
    session, number = taken
    try:
        return (yield from _in_session(connection, keyset, request, session=session, number=number))
    finally:
        session.answered(number)


def _one_shot(connection: Connection, keyset: AttestedKeyset, request: SealedRequest) -> Flow[SealedResult]:
    """A request with an encapsulation of its own, which opens the session if nobody else is about to."""
    if not connection.can_seal(keyset):
        keyset = yield from attest(connection)
    opens = request.repeatable and connection.claim_opening()  # an upload may outlive the keys it was sealed to
    try:
        sealed = seal_exchange(
            public_key=keyset.keyset.hpke_public_key,
            keyset_id=keyset.keyset_id,
            route=_route(keyset),
            random=connection.random,
        )
        head = _head(connection, request, opens_session=opens)
        answer, result = yield from _send(connection, keyset, request, sealed=sealed, head=head)
        if opens and answer.head.session:
            secret = SessionSecret.after(sealed, keyset_id=keyset.keyset_id, answer_header=answer.header)
            connection.open_session(keyset, secret, answer.head.session)
        return result
    finally:
        if opens:
            connection.end_opening()


def _in_session(
    connection: Connection, keyset: AttestedKeyset, request: SealedRequest, *, session: ClientSession, number: int
) -> Flow[SealedResult]:
    sealed = session.secret.exchange(session.secret.header(number, connection.random), route=_route(keyset))
    head = _head(connection, request, at_ms=session.at_ms(connection.clock.steady()))
    try:
        _, result = yield from _send(connection, keyset, request, sealed=sealed, head=head)
    except UnauthenticatedError as error:
        connection.drop_session(session)
        raise _SessionRefusedError from error
    except (_PeerForgotError, _SessionAgedError, ChannelError):
        connection.drop_session(session)
        raise
    return result


def _route(keyset: AttestedKeyset) -> str:
    return base64url_encode(keyset.keyset.instance)


def _head(
    connection: Connection, request: SealedRequest, *, opens_session: bool = False, at_ms: int | None = None
) -> RequestHead:
    return RequestHead(
        request_id=connection.random(REQUEST_ID_BYTES),
        method=request.method,
        path=request.path,
        headers=(*request.headers, *_who(connection, in_session=at_ms is not None)),
        content_type=request.content_type,
        padded=connection.settings.padded,
        wants_receipt=connection.settings.receipts,
        salt=connection.random(SALT_BYTES),
        opens_session=opens_session,
        at_ms=at_ms,
    )


def _who(connection: Connection, *, in_session: bool) -> Iterator[tuple[str, str]]:
    """A session is its principal: only what is sealed by itself, and so what opens a session, says who asks."""
    yield "blindai-client", base64url_encode(connection.token)
    if connection.settings.credential and not in_session:
        yield "authorization", f"Bearer {connection.settings.credential()}"


def _send(
    connection: Connection, keyset: AttestedKeyset, request: SealedRequest, *, sealed: Exchange, head: RequestHead
) -> Flow[tuple[Answer, SealedResult]]:
    writer = RequestWriter(sealed)
    reader = AnswerReader(sealed, max_body_bytes=connection.settings.max_answer_bytes)
    commitments = BodyCommitment.to_both(head.salt) if head.wants_receipt else None
    body = request.body()
    response = yield HttpRequest(
        method="POST",
        path=SEALED_PATH,
        headers=(("Content-Type", MEDIA_TYPE), ("Blindai-Route", _route(keyset))),
        body=writer.write(head, _committing(body, commitments[0]) if commitments else body),
        on_data=reader.feed,
        max_body_bytes=2 * connection.settings.max_answer_bytes,
        timeout_s=connection.settings.timeout_s,
    )
    _check_outer(response.status, keyset)
    answer = reader.finish(writer.digest)
    try:
        _raise_sealed_error(answer, in_session=sealed.in_session)
    except (InferenceError, ModelStoreError) as error:
        if request.on_refusal:
            request.on_refusal(error, answer, keyset)
        raise
    receipt = _check_receipt(answer, head, keyset, commitments) if commitments else None
    token = answer.trailer.receipt if receipt else ""
    return answer, SealedResult(answer=answer, receipt=receipt, token=token, salt=head.salt, keyset=keyset)


def _committing(body: Iterable[Buffer], commitment: BodyCommitment) -> Iterable[Buffer]:
    """The body, committed to as it is read; one that is in memory is read here."""
    if not isinstance(body, tuple):
        return _committing_later(body, commitment)
    for piece in body:
        commitment.update(piece)
    return body


def _committing_later(body: Iterable[Buffer], commitment: BodyCommitment) -> Iterator[Buffer]:
    for piece in body:
        commitment.update(piece)
        yield piece


def _check_outer(status: int, keyset: AttestedKeyset) -> None:
    """An outer status proves nothing: whoever stands on the path can write it."""
    if status == 200:  # noqa: PLR2004  # HTTP's OK: a sealed answer
        return
    if status == 421:  # noqa: PLR2004  # RFC 9110 §15.5.20, Misdirected Request
        raise _PeerForgotError(keyset)
    if status == 409:  # noqa: PLR2004  # RFC 9110 §15.5.10, Conflict
        raise ReplayedMessageError("the server has seen this request's number before; it was not run again")
    if status == 400:  # noqa: PLR2004  # RFC 9110 §15.5.1, Bad Request
        raise SealedMessageError(
            "the server could not open the sealed request", hint="something on the path changes messages"
        )
    raise ConnectionLostError(
        f"the answer came from outside the enclave, with status {status}",
        hint="a proxy, a load balancer or a redirect stands between; it can refuse, but not answer",
    )


def _raise_sealed_error(answer: Answer, *, in_session: bool) -> None:
    """Turn the server's own, authenticated word for a failure into its error."""
    if answer.head.status >= ERROR_STATUS:
        error = parse_wire_error(answer.body)
    elif answer.trailer.error:
        error = answer.trailer.error
    else:
        return
    if in_session and error.code == ReplayedMessageError.code:
        raise _SessionAgedError
    if error.code in _CHANNEL_ERRORS:
        raise _CHANNEL_ERRORS[error.code](error.message, hint=error.hint)
    retry_after = answer.head.header("retry-after")
    raise server_error(error.code, error.message, hint=error.hint, retry_after=retry_after)


def _check_receipt(
    answer: Answer, head: RequestHead, keyset: AttestedKeyset, commitments: tuple[BodyCommitment, BodyCommitment]
) -> Receipt:
    """Every member of the receipt must be what this client sent, received or was attested."""
    public_key = keyset.keyset.receipt_public_key
    receipt = verify_receipt(answer.trailer.receipt, public_key=public_key, keyset_id=keyset.keyset_id)
    request, response = commitments
    response.update(answer.body)
    for name, found, expected in (
        ("request_id", receipt.request_id, head.request_id),
        ("door", receipt.door, "sealed"),
        ("method", receipt.method, head.method),
        ("path", receipt.path, head.path),
        ("status", receipt.status, answer.head.status),
        ("complete", receipt.complete, answer.trailer.complete),
        ("runtime_policy", receipt.runtime_policy, keyset.keyset.runtime.digest),
        ("padding", receipt.padded, head.padded),
        ("request", receipt.request, request.digest()),
        ("response", receipt.response, response.digest()),
    ):
        if found != expected:
            raise InvalidReceiptError(f"the receipt's {name} is not this exchange's")
    if not keyset.keyset.not_before * 1000 <= receipt.start_ms < keyset.keyset.not_after * 1000:
        raise InvalidReceiptError("the receipt's start lies outside its keyset's lifetime")
    return receipt
