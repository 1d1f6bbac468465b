"""The sealed door: from bytes that the operator carries to a call that only the enclave reads (docs/spec/sealed.md).

    receive → header → keys → head → credential → (replay set or session window) → dispatch → receipt → sealed answer

Before the content key is known a failure is an empty answer with an outer status; after it, every answer is sealed.
Leaves out: HTTP itself (app.py) and what is done with a call (dispatch.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.channel.exchange import (
    MAGIC_BYTES,
    REQUEST_HEADER_BYTES,
    REQUEST_MAGIC,
    SESSION_HEADER_BYTES,
    SESSION_REQUEST_MAGIC,
    Exchange,
    SessionSecret,
    open_exchange,
    replay_digest,
    request_key_id,
    session_header_fields,
)
from blindai.channel.heads import RequestHead, ResponseHead, SessionGrant, Trailer
from blindai.channel.sealed import ERROR_STATUS, AnswerWriter, RequestReader
from blindai.channel.sessions import IDLE_S, LIFETIME_S, SessionTable
from blindai.errors import (
    BlindAIError,
    ReplayedMessageError,
    SealedMessageError,
    TruncatedMessageError,
    UnauthenticatedError,
)
from blindai.receipts import BodyCommitment, Receipt, sign_receipt
from blindai.server.calls import Call, Reply, wire_error
from blindai.server.dispatch import Service, dispatch
from blindai.server.log import LOG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from blindai.channel.keyring import Clock, HeldKey, KeyRing
    from blindai.server.access import Principal

CLIENT_HEADER = "blindai-client"
CREDENTIAL_HEADER = "authorization"
_SMALL_FRAME_BYTES = 64 * 1024


class OuterError(Exception):
    """A failure before the content key is known: an empty answer with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedDoor:
    """What the door needs: keys, sessions, clocks and the service behind it."""

    service: Service
    keys: KeyRing
    sessions: SessionTable[Principal]
    clock: Clock
    random: Callable[[int], bytes] = field(repr=False)

    async def answer(
        self,
        *,
        route: str,
        received: AsyncIterator[bytes],
        write: Callable[[bytes], Awaitable[None]],
        let_leave_cancel: Callable[[], None],
    ) -> bytes:
        """Answer one sealed request.

        Args:
            route: the outer hint, which the keys are bound to.
            received: the sealed bytes as they arrive.
            write: gets a long sealed answer piece by piece, all but the end, which is returned here.
            let_leave_cancel: see `Call`.

        Raises:
            OuterError: nothing may be answered but a status.
            ConnectionLostError: the client left.
        """
        message = _Incoming(received)
        magic = await message.take(MAGIC_BYTES)
        if magic == REQUEST_MAGIC:
            opened = await self._open_one_shot(
                magic + await message.take(REQUEST_HEADER_BYTES - MAGIC_BYTES), route, message
            )
        elif magic == SESSION_REQUEST_MAGIC:
            opened = await self._open_in_session(
                magic + await message.take(SESSION_HEADER_BYTES - MAGIC_BYTES), route, message
            )
        else:
            raise OuterError(400)
        return await _Answering(door=self, opened=opened, write=write, let_leave_cancel=let_leave_cancel).run()

    async def _open_one_shot(self, header: bytes, route: str, message: _Incoming) -> _Opened:
        """§3: a request sealed to one of our HPKE keys."""
        try:
            held = self.keys.find(request_key_id(header))
            if held is None or held.hpke is None:
                raise OuterError(421)
            exchange = open_exchange(header, keys=held.hpke, keyset_id=held.keyset_id, route=route)
        except SealedMessageError:
            raise OuterError(400) from None
        opened = _Opened(held=held, exchange=exchange, message=message, reader=RequestReader(exchange))
        try:
            head = await opened.read_head()
            _require_place(head, in_session=False)
            opened.principal = self.service.access.authenticate(
                head.header(CREDENTIAL_HEADER), head.header(CLIENT_HEADER) or ""
            )
            held.spend(replay_digest(header))
        except (SealedMessageError, ReplayedMessageError, TruncatedMessageError, UnauthenticatedError) as error:
            opened.refusal = error
        return opened

    async def _open_in_session(self, header: bytes, route: str, message: _Incoming) -> _Opened:
        """§5, in its order: session, window, head, time, principal, bit, dispatch."""
        session_id, number = session_header_fields(header)
        session = self.sessions.find(session_id, self.clock.boot())
        if session is None:
            raise OuterError(421)
        try:
            session.window.check(number)
            exchange = session.secret.exchange(header, route=route)
            opened = _Opened(held=session.key, exchange=exchange, message=message, reader=RequestReader(exchange))
            head = await opened.read_head()
            _require_place(head, in_session=True)
        except ReplayedMessageError:
            raise OuterError(409) from None
        except (SealedMessageError, TruncatedMessageError):
            raise OuterError(400) from None
        try:
            session.check_time(head.at_ms, self.clock.boot())
        except (ReplayedMessageError, SealedMessageError) as error:
            opened.refusal = error
            return opened
        try:
            self.service.access.require_valid(session.principal)
        except UnauthenticatedError as error:
            self.sessions.drop(session)
            opened.refusal = error
            return opened
        if self.sessions.find(session_id, self.clock.boot()) is not session:  # it ended while the head was on its way
            raise OuterError(421)
        try:
            session.window.spend(number)  # no await between this look and its mark
        except ReplayedMessageError:
            raise OuterError(409) from None
        self.sessions.touch(session, self.clock.boot())
        opened.principal = session.principal
        return opened


class _Incoming:
    """The request's bytes as they arrive, with what was read too far kept."""

    __slots__ = ("_kept", "_received")

    def __init__(self, received: AsyncIterator[bytes]) -> None:
        self._received = received
        self._kept = bytearray()

    async def take(self, size: int) -> bytes:
        while len(self._kept) < size:
            piece = await anext(self._received, None)
            if piece is None:
                raise OuterError(400)
            self._kept += piece
        taken = bytes(self._kept[:size])
        del self._kept[:size]
        return taken

    async def next(self) -> bytes | None:
        if self._kept:
            kept, self._kept = bytes(self._kept), bytearray()
            return kept
        return await anext(self._received, None)


@dataclass(slots=True, kw_only=True)
class _Opened:
    """A request whose keys are known. It may run for `principal`; with a `refusal` it must not, and is answered so."""

    held: HeldKey
    exchange: Exchange
    message: _Incoming
    reader: RequestReader
    principal: Principal | None = None
    refusal: BlindAIError | None = None
    _early: list[memoryview] = field(default_factory=list)

    async def read_head(self) -> RequestHead:
        while self.reader.head is None:
            received = await self.message.next()
            if received is None:
                raise TruncatedMessageError("the request ended before its head")
            self._early += self.reader.feed(received)
        return self.reader.head

    async def body(self, commitment: BodyCommitment) -> AsyncIterator[memoryview]:
        """The body's data, each piece authenticated and committed to; ends when the last frame has authenticated."""
        pieces, self._early = self._early, []
        while True:
            for piece in pieces:
                commitment.update(piece)
                yield piece
            received = await self.message.next()
            if received is None:
                break
            pieces = self.reader.feed(received)
        self.reader.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answering:
    """From an opened request to its sealed answer."""

    door: SealedDoor
    opened: _Opened
    write: Callable[[bytes], Awaitable[None]] = field(repr=False)
    let_leave_cancel: Callable[[], None] = field(repr=False)

    async def run(self) -> bytes:
        head, principal = self.opened.reader.head, self.opened.principal
        if self.opened.refusal or head is None or principal is None:
            return self._refuse(self.opened.refusal or SealedMessageError("the request has no head"))
        start_ms = self.opened.held.wall_ms(self.door.clock.boot())
        request = BodyCommitment.to_request(head.salt)
        body = self.opened.body(request)
        call = Call(
            principal=principal,
            method=head.method,
            path=head.path,
            headers=_headers(head),
            body=body,
            let_leave_cancel=self.let_leave_cancel,
        )
        try:
            reply = await dispatch(self.door.service, call)
            if reply.status < ERROR_STATUS:
                await _require_end(body)
                self.opened.reader.end()  # whatever became of `body`: what the receipt calls complete is complete
        except (SealedMessageError, TruncatedMessageError) as error:
            return self._refuse(error)
        return await self._send(head, reply, request, start_ms=start_ms, principal=principal)

    async def _send(
        self, head: RequestHead, reply: Reply, request: BodyCommitment, *, start_ms: int, principal: Principal
    ) -> bytes:
        digest = self.opened.reader.end() if self.opened.reader.finished else None
        token = ""
        if head.wants_receipt and reply.status < ERROR_STATUS:
            token = self._receipt(head, reply, request, start_ms)
        writer = AnswerWriter(self.opened.exchange, self.door.random)
        session = self._open_session(head, writer, reply, principal)
        out = [writer.start(ResponseHead(status=reply.status, headers=reply.headers, session=session))]
        for frame in writer.body(reply.body, padded=head.padded):
            out.append(frame)
            if len(frame) > _SMALL_FRAME_BYTES:
                await self.write(b"".join(out))
                out.clear()
        return b"".join((*out, writer.end(Trailer(request_digest=digest, receipt=token))))

    def _receipt(self, head: RequestHead, reply: Reply, request: BodyCommitment, start_ms: int) -> str:
        response = BodyCommitment.to_response(head.salt)
        for piece in reply.body:
            response.update(piece)
        held = self.opened.held
        receipt = Receipt(
            keyset_id=held.keyset_id,
            request_id=head.request_id,
            door="sealed",
            method=head.method,
            path=head.path,
            status=reply.status,
            complete=True,
            model=reply.model,
            runtime_policy=held.keyset.runtime.digest,
            padded=head.padded,
            start_ms=start_ms,
            end_ms=held.wall_ms(self.door.clock.boot()),
            request=request.digest(),
            response=response.digest(),
        )
        return sign_receipt(receipt, held.receipt_key)

    def _open_session(
        self, head: RequestHead, writer: AnswerWriter, reply: Reply, principal: Principal
    ) -> SessionGrant | None:
        """§5: a one-shot request may open a session, which counts from the writing of this head."""
        if not head.opens_session or self.opened.exchange.in_session or reply.status >= ERROR_STATUS:
            return None
        held, now_s = self.opened.held, self.door.clock.boot()
        seconds_left = self.door.service.access.seconds_left(principal)
        if min(held.ends_s - now_s, seconds_left) < 1:  # the request outlived them, as a long upload may
            return None
        secret = SessionSecret.after(self.opened.exchange, keyset_id=held.keyset_id, answer_header=writer.header)
        session = self.door.sessions.open(
            secret,
            key=held,
            principal=principal,
            counted_as=principal.counted_as,
            now_s=now_s,
            seconds_left=seconds_left,
        )
        return SessionGrant(lifetime_s=int(min(LIFETIME_S, session.ends_s - now_s)), idle_s=IDLE_S)

    def _refuse(self, error: BlindAIError) -> bytes:
        """A sealed answer to a request that was not run, or not to its end."""
        LOG.info("sealed request refused: %s", error.code)
        status, wire = wire_error(error)
        self.door.service.metrics.failed(wire.code)
        if isinstance(error, ReplayedMessageError):
            status = 409
        writer = AnswerWriter(self.opened.exchange, self.door.random)
        answer = [writer.start(ResponseHead(status=status)), *writer.body((wire.encode(),), padded=True)]
        return b"".join((*answer, writer.end(Trailer(request_digest=None, error=wire))))


def _require_place(head: RequestHead, *, in_session: bool) -> None:
    """§5: a session *is* its principal and opens no other; only its requests say when they were made."""
    misplaced = (
        (head.opens_session or head.header(CREDENTIAL_HEADER) is not None) if in_session else head.at_ms is not None
    )
    if misplaced:
        raise SealedMessageError("the request's head has a member that does not belong there")


def _headers(head: RequestHead) -> dict[str, str]:
    """What a handler gets to see: whatever it may do with headers, no key can leave with them."""
    headers = dict(reversed((*head.headers, ("content-type", head.content_type))))
    headers.pop(CREDENTIAL_HEADER, None)
    return headers


async def _require_end(body: AsyncIterator[memoryview]) -> None:
    """§4: a success is told only after the request's last frame has authenticated, with nothing left over."""
    async for _ in body:
        raise SealedMessageError("the request has more body than its handler reads")
