"""The pinned-TLS door: plain Open Inference Protocol over HTTPS, for clients that pin the key of TLS (CHANNEL §8).

What arrives here is as secret as the TLS key, which an epoch keyset names and which lives as long as the process: so
clients never report it above `pinned-tls`, and nothing here signs a receipt. `require_sealed` closes it.
Leaves out: HTTP itself (http_request.py), who pins what (client/pinned_flow.py), and what is done with a call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.errors import ChannelError, ConnectionLostError, ForbiddenError, InferenceError, InvalidInputError
from blindai.oip.rest import HeaderMemory
from blindai.server.calls import Call, error_reply
from blindai.server.dispatch import Service, dispatch
from blindai.server.http_request import NO_STORE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from blindai.server.access import Principal
    from blindai.server.calls import Reply
    from blindai.server.http_request import Headers, HttpRequest

CLIENT_HEADER = "blindai-client"
ALLOWED_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_ONCE = frozenset({"authorization", "blindai-client", "content-type", "if-match", "inference-header-content-length"})
_UNAUTHENTICATED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsDoor:
    """What the door needs.

    Attributes:
        service: what calls are run on.
        authenticate: from the `Authorization` header and the client's own token to who asks.
    """

    service: Service
    authenticate: Callable[[str, str], Principal] = field(repr=False)

    async def answer(self, request: HttpRequest) -> None:
        """Answer one request that came in clear inside TLS.

        Raises:
            ConnectionLostError: the client left.
        """
        if request.method not in ALLOWED_METHODS:  # TRACE would echo credentials
            await request.refuse(
                405, "bad_request", "not a method of this server", (b"allow", b"GET, HEAD, POST, DELETE")
            )
            return
        reply = await self._reply(request)
        headers = [NO_STORE]
        for name, value in reply.headers:
            headers.append((name.encode("latin-1"), value.encode("latin-1")))
        if reply.status == _UNAUTHENTICATED:
            headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110 §15.5.2
        await request.answer(reply.status, *reply.body, headers=headers)

    async def _reply(self, request: HttpRequest) -> Reply:
        try:
            return await dispatch(self.service, self._call(request))
        except ConnectionLostError:
            raise
        except (ChannelError, InferenceError) as error:
            self.service.metrics.failed(error.code)
            return error_reply(error)

    def _call(self, request: HttpRequest) -> Call:
        if self.service.settings.require_sealed:
            raise ForbiddenError(
                "this server takes sealed requests only", hint="its runtime policy says `require_sealed = true`"
            )
        notes, whole = _notes(request), request.take_whole()
        return Call(
            principal=self.authenticate(notes.authorization, notes.headers.get(CLIENT_HEADER, "")),
            door="tls",
            method=request.method,
            path=request.path,
            headers=notes.headers,
            body=_views(request.body()) if whole is None else memoryview(whole),
            memory=notes.memory,
            let_leave_cancel=request.let_leave_cancel,
        )


class _Notes:
    """What was read of a connection's last head, and of the last request's JSON."""

    __slots__ = ("authorization", "headers", "memory", "raw")

    def __init__(self) -> None:
        self.raw: Headers | None = None
        self.headers: dict[str, str] = {}
        self.authorization = ""
        self.memory = HeaderMemory()

    def read(self, raw: Headers) -> None:
        """Another head.

        Raises:
            InvalidInputError: a header that decides something came twice.
        """
        self.raw = None
        self.headers = _single(raw)
        self.authorization = self.headers.pop("authorization", "")  # no handler needs it
        self.raw = raw


def _notes(request: HttpRequest) -> _Notes:
    notes = request.notes
    if not isinstance(notes, _Notes):
        request.notes = notes = _Notes()
    if notes.raw is not request.headers:
        notes.read(request.headers)
    return notes


def _single(pairs: Headers) -> dict[str, str]:
    """The first value of each header; of those that decide something there is only one.

    Raises:
        InvalidInputError: one came twice, and could be read in two ways.
    """
    found: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name = raw_name.decode("latin-1")
        if name not in found:
            found[name] = raw_value.decode("latin-1")
        elif name in _ONCE:
            raise InvalidInputError(f"the header {name} stands there twice")
    return found


async def _views(pieces: AsyncIterator[bytes]) -> AsyncIterator[memoryview]:
    async for piece in pieces:
        yield memoryview(piece)
