"""The sealed door: from bytes that the operator carries to a call that only the enclave reads (docs/spec/sealed.md).

    receive → header → keys → head → credential → (replay set or session window) → dispatch → receipt → sealed answer

Before the content key is known a failure is an empty answer with an outer status; after it, every answer is sealed.
Decides whether a request may run. Leaves out: how it is read (sealed_request.py) and answered (sealed_answer.py), and
HTTP itself (app.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.channel.exchange import (
    SESSION_REQUEST_MAGIC,
    open_exchange,
    replay_digest,
    request_key_id,
    session_header_fields,
)
from blindai.errors import ReplayedMessageError, SealedMessageError, TruncatedMessageError, UnauthenticatedError
from blindai.oip.rest import HeaderMemory
from blindai.server.sealed_answer import CREDENTIAL_HEADER, Answering
from blindai.server.sealed_request import Incoming, Opened, OuterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from blindai.channel.heads import RequestHead
    from blindai.channel.keyring import Clock, KeyRing
    from blindai.channel.sessions import ServerSession, SessionTable
    from blindai.server.access import Principal
    from blindai.server.dispatch import Service

CLIENT_HEADER = "blindai-client"


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
        received: AsyncIterator[bytes] | None,
        ahead: bytes = b"",
        write: Callable[[bytes], Awaitable[None]],
        let_leave_cancel: Callable[[], None],
    ) -> bytes:
        """Answer one sealed request.

        Args:
            route: the outer hint, which the keys are bound to.
            received: the sealed bytes as they arrive; `None` if all are there.
            ahead: those that have arrived.
            write: gets a long sealed answer piece by piece, all but the end, which is returned here.
            let_leave_cancel: see `Call`.

        Raises:
            OuterError: nothing may be answered but a status.
            ConnectionLostError: the client left.
        """
        message = Incoming(received, ahead)
        header = await message.read_header()
        open_it = self._open_in_session if header.startswith(SESSION_REQUEST_MAGIC) else self._open_one_shot
        opened = await open_it(header, route, message)
        return await Answering(self, opened, write=write, let_leave_cancel=let_leave_cancel).run()

    async def _open_one_shot(self, header: bytes, route: str, message: Incoming) -> Opened:
        """§3: a request sealed to one of our HPKE keys."""
        try:
            held = self.keys.find(request_key_id(header))
            if held is None or held.hpke is None:
                raise OuterError(421)
            exchange = open_exchange(header, keys=held.hpke, keyset_id=held.keyset_id, route=route)
        except SealedMessageError:
            raise OuterError(400) from None
        opened = Opened(held=held, exchange=exchange, message=message)
        try:
            opened.head = head = await message.read_head(exchange)
            _require_place(head, in_session=False)
            opened.principal = self.service.access.authenticate(
                head.header(CREDENTIAL_HEADER), head.header(CLIENT_HEADER) or ""
            )
            opened.let_run_s = self.clock.boot()
            if opened.let_run_s >= held.ends_s:  # while the head was on its way
                raise OuterError(421)
            held.spend(replay_digest(header))
        except (SealedMessageError, ReplayedMessageError, TruncatedMessageError, UnauthenticatedError) as error:
            opened.refusal = error
        return opened

    async def _open_in_session(self, header: bytes, route: str, message: Incoming) -> Opened:
        """§5, in its order: session, window, head, time, principal, bit, dispatch."""
        session_id, number = session_header_fields(header)
        session = self.sessions.find(session_id, self.clock.boot())
        if session is None:
            raise OuterError(421)
        try:
            session.window.check(number)
            exchange = session.secret.exchange(header, route=route)
            head = await message.read_head(exchange)
            _require_place(head, in_session=True)
        except ReplayedMessageError:
            raise OuterError(409) from None
        except (SealedMessageError, TruncatedMessageError):
            raise OuterError(400) from None
        opened = Opened(held=session.key, exchange=exchange, message=message, head=head, memory=_memory(session))
        now_s = self.clock.boot()  # no await between this look at the clock and the window's mark
        try:
            session.check_time(head.at_ms, now_s)
            self.service.access.require_valid(session.principal)
        except (ReplayedMessageError, SealedMessageError) as error:
            opened.refusal = error
            return opened
        except UnauthenticatedError as error:
            self.sessions.drop(session)
            opened.refusal = error
            return opened
        if self.sessions.find(session_id, now_s) is not session:  # it ended while the head was on its way
            raise OuterError(421)
        try:
            session.window.spend(number)
        except ReplayedMessageError:
            raise OuterError(409) from None
        self.sessions.touch(session, now_s)
        opened.principal, opened.let_run_s = session.principal, now_s
        return opened


def _memory(session: ServerSession[Principal]) -> HeaderMemory:
    """Of what the session's client asked before."""
    if not isinstance(session.notes, HeaderMemory):
        session.notes = HeaderMemory()
    return session.notes


def _require_place(head: RequestHead, *, in_session: bool) -> None:
    """§5: a session *is* its principal and opens no other; only its requests say when they were made."""
    misplaced = (
        (head.opens_session or head.header(CREDENTIAL_HEADER) is not None) if in_session else head.at_ms is not None
    )
    if misplaced:
        raise SealedMessageError("the request's head has a member that does not belong there")
