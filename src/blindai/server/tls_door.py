"""The pinned-TLS door: plain Open Inference Protocol over HTTPS, for clients that pin the key of TLS (CHANNEL §8).

What arrives here is as secret as the TLS key, which an epoch keyset names and which lives as long as the process: so
clients never report it above `pinned-tls`, and nothing here signs a receipt. `require_sealed` closes it.
Leaves out: HTTP itself (http_request.py), who pins what (client/pinned_flow.py), and what is done with a call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai.errors import ChannelError, ConnectionLostError, ForbiddenError, InferenceError, InvalidInputError
from blindai.server.calls import Call, error_reply
from blindai.server.dispatch import Service, dispatch
from blindai.server.http_request import NO_STORE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from blindai.server.access import Principal
    from blindai.server.calls import Reply
    from blindai.server.http_request import HttpRequest

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
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
        if reply.status == _UNAUTHENTICATED:
            headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110 §15.5.2
        await request.answer(reply.status, *reply.body, headers=(NO_STORE, *headers))

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
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers)
        found = _single(headers)
        return Call(
            principal=self.authenticate(found.get("authorization", ""), found.get(CLIENT_HEADER, "")),
            door="tls",
            method=request.method,
            path=request.path,
            headers=tuple((name, value) for name, value in headers if name != "authorization"),  # no handler needs it
            body=_views(request.body()),
            let_leave_cancel=request.let_leave_cancel,
        )


def _single(headers: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """The headers that decide something; one that came twice could be read in two ways.

    Raises:
        InvalidInputError: one did.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        if name in _ONCE:
            if name in found:
                raise InvalidInputError(f"the header {name} stands there twice")
            found[name] = value
    return found


async def _views(pieces: AsyncIterator[bytes]) -> AsyncIterator[memoryview]:
    async for piece in pieces:
        yield memoryview(piece)
