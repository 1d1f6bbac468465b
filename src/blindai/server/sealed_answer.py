"""From an opened request to its sealed answer: dispatch, receipt, session, frames (docs/spec/sealed.md §4, §5).

Leaves out: how the request was opened and whether it may run (sealed_door.py), and what a call does (dispatch.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.channel.exchange import SessionSecret
from blindai.channel.heads import ResponseHead, SessionGrant, Trailer
from blindai.channel.sealed import ERROR_STATUS, AnswerWriter
from blindai.channel.sessions import IDLE_S, LIFETIME_S
from blindai.errors import BlindAIError, ReplayedMessageError, SealedMessageError, TruncatedMessageError
from blindai.receipts import Receipt, sign_receipt
from blindai.server.calls import Call, Reply, wire_error
from blindai.server.dispatch import dispatch
from blindai.server.log import LOG

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blindai.channel.heads import RequestHead
    from blindai.server.access import Principal
    from blindai.server.sealed_door import SealedDoor
    from blindai.server.sealed_request import Incoming, Opened

CREDENTIAL_HEADER = "authorization"
_SMALL_FRAME_BYTES = 64 * 1024


class Answering:
    """One opened request on its way to its answer.

    Args:
        write: gets a long sealed answer piece by piece, all but the end.
        let_leave_cancel: see `Call`.
    """

    __slots__ = ("_door", "_let_leave_cancel", "_opened", "_write")

    def __init__(
        self,
        door: SealedDoor,
        opened: Opened,
        *,
        write: Callable[[bytes], Awaitable[None]],
        let_leave_cancel: Callable[[], None],
    ) -> None:
        self._door = door
        self._opened = opened
        self._write = write
        self._let_leave_cancel = let_leave_cancel

    async def run(self) -> bytes:
        """The sealed answer, or its end if it is long."""
        opened = self._opened
        head, principal = opened.head, opened.principal
        if opened.refusal or head is None or principal is None:
            return self._refuse(opened.refusal or SealedMessageError("the request has no head"))
        start_ms = opened.held.wall_ms(opened.let_run_s)
        call = Call(
            principal=principal,
            method=head.method,
            path=head.path,
            headers=_headers(head),
            body=opened.message.take_whole() or opened.message,
            memory=opened.memory,
            let_leave_cancel=self._let_leave_cancel,
        )
        try:
            reply = await dispatch(self._door.service, call)
            if reply.status < ERROR_STATUS:
                await _require_end(opened.message)
        except (SealedMessageError, TruncatedMessageError) as error:
            return self._refuse(error)
        return await self._send(head, principal, reply, start_ms=start_ms)

    async def _send(self, head: RequestHead, principal: Principal, reply: Reply, *, start_ms: int) -> bytes:
        receipt = self._receipt(head, reply, start_ms) if reply.status < ERROR_STATUS else ""
        writer = AnswerWriter(self._opened.exchange, self._door.random)
        session = self._open_session(head, writer, reply, principal)
        out = [writer.start(ResponseHead(status=reply.status, headers=reply.headers, session=session))]
        for frame in writer.body(reply.body, padded=head.padded):
            out.append(frame)
            if len(frame) > _SMALL_FRAME_BYTES:
                await self._write(b"".join(out))
                out.clear()
        out.append(writer.end(Trailer(request_digest=self._opened.message.digest, receipt=receipt)))
        return b"".join(out)

    def _receipt(self, head: RequestHead, reply: Reply, start_ms: int) -> str:
        """What the enclave signs about a success; empty if the client wishes none."""
        held = self._opened.held
        if self._opened.message.commitments is None:
            return ""
        request, response = self._opened.message.commitments
        for piece in reply.body:
            response.update(piece)
        receipt = Receipt(
            keyset_id=held.keyset_id,
            request_id=head.request_id,
            door="sealed",
            method=head.method,
            path=head.path,
            status=reply.status,
            complete=True,
            model=reply.model,
            runtime_policy=held.runtime_digest,
            padded=head.padded,
            start_ms=start_ms,
            end_ms=held.wall_ms(self._door.clock.boot()),
            request=request.digest(),
            response=response.digest(),
        )
        return sign_receipt(receipt, held.receipt_key, public_key=held.keyset.receipt_public_key)

    def _open_session(
        self, head: RequestHead, writer: AnswerWriter, reply: Reply, principal: Principal
    ) -> SessionGrant | None:
        """§5: a one-shot request may open a session, which counts from the writing of this head."""
        exchange, door = self._opened.exchange, self._door
        if not head.opens_session or exchange.in_session or reply.status >= ERROR_STATUS:
            return None
        held, now_s = self._opened.held, door.clock.boot()
        seconds_left = door.service.access.seconds_left(principal)
        if min(held.ends_s - now_s, seconds_left) < 1:  # the request outlived them, as a long upload may
            return None
        secret = SessionSecret.after(exchange, keyset_id=held.keyset_id, answer_header=writer.header)
        session = door.sessions.open(
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
        self._door.service.metrics.failed(wire.code)
        if isinstance(error, ReplayedMessageError):
            status = 409
        writer = AnswerWriter(self._opened.exchange, self._door.random)
        answer = [writer.start(ResponseHead(status=status)), *writer.body((wire.encode(),), padded=True)]
        return b"".join((*answer, writer.end(Trailer(request_digest=None, error=wire))))


def _headers(head: RequestHead) -> dict[str, str]:
    """What a handler gets to see: whatever it may do with headers, no key can leave with them."""
    headers = dict(reversed((*head.headers, ("content-type", head.content_type))))
    headers.pop(CREDENTIAL_HEADER, None)
    return headers


async def _require_end(body: Incoming) -> None:
    """§4: a success is told only after the request's last frame has authenticated, with nothing left over."""
    async for _ in body:
        raise SealedMessageError("the request has more body than its handler reads")
