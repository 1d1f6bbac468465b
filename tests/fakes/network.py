"""A network that an attacker owns: it carries a client's flows to an application without sockets, may change all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httptools

from blindai.client.transport import HttpRequest, HttpResponse
from blindai.errors import ConnectionLostError
from blindai.server.http_protocol import HttpConnection
from blindai.server.http_server import HttpServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blindai.client.attest_flow import Flow
    from blindai.server.app import App
    from blindai.server.http_request import HttpRequest as Received

T = TypeVar("T")
PIECE_BYTES = 1000  # so that a message is never there at once: its head is opened before its last frame arrives


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request as the path saw it, cut in pieces; not `ended` means that the connection breaks after `body`.

    With `piece_bytes` of 0, head and body come in one piece.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    ended: bool = True
    piece_bytes: int = PIECE_BYTES


@dataclass(slots=True, kw_only=True)
class Answered:
    """One answer as the path saw it."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def _unchanged_request(sent: Sent) -> Sent | Answered:
    return sent


def _unchanged_answer(_sent: Sent, answered: Answered) -> Answered:
    return answered


@dataclass(slots=True, kw_only=True)
class Network:
    """Carries requests to `app`; the two hooks are the attacker.

    Attributes:
        on_request: changes a request, or answers it without the server.
        on_answer: changes an answer.
        log: everything that passed, as the server saw it and as it answered.
    """

    app: App
    loop: asyncio.AbstractEventLoop
    on_request: Callable[[Sent], Sent | Answered] = _unchanged_request
    on_answer: Callable[[Sent, Answered], Answered] = _unchanged_answer
    log: list[tuple[Sent, Answered]] = field(default_factory=list)

    def drive(self, flow: Flow[T]) -> T:
        """Run a client's flow to its end."""
        try:
            request = next(flow)
            while True:
                try:
                    response = self.send(request)
                except Exception as error:  # noqa: BLE001  # whatever it is, it is the flow's to handle
                    request = flow.throw(error)
                else:
                    request = flow.send(response)
        except StopIteration as done:
            result: T = done.value
            return result

    def send(self, request: HttpRequest) -> HttpResponse:
        """What a transport does, through the attacker's hands."""
        body = request.body if isinstance(request.body, bytes) else b"".join(request.body or ())
        sent = Sent(method=request.method, path=request.path, headers=request.headers, body=body)
        passed = self.on_request(sent)
        answered = passed if isinstance(passed, Answered) else self.on_answer(passed, self.deliver(passed))
        if not answered.status:
            raise ConnectionLostError("the connection broke")
        if answered.status == 200 and request.on_data:
            request.on_data(answered.body)
            return HttpResponse(status=200, headers=answered.headers, body=b"")
        return HttpResponse(status=answered.status, headers=answered.headers, body=answered.body)

    def deliver(self, sent: Sent) -> Answered:
        """Hand a request to the application and return its answer, unchanged."""
        answered = self.loop.run_until_complete(call_app(self.app, sent))
        self.log.append((sent, answered))
        return answered


async def call_app(app: App, sent: Sent) -> Answered:
    """One request to the application."""
    return await call_handler(app.handle, sent)


async def call_handler(handler: Callable[[Received], Awaitable[None]], sent: Sent) -> Answered:
    """One request over a connection of the real HTTP server; a status of 0 means that it did not answer."""
    transport = FakeTransport()
    connection = HttpConnection(HttpServer(handler))
    connection.connection_made(transport)
    missing = 0 if sent.ended else 1
    lines = [f"{sent.method} {sent.path} HTTP/1.1", "host: server", f"content-length: {len(sent.body) + missing}"]
    lines += [f"{name}: {value}" for name, value in sent.headers]
    head = "\r\n".join((*lines, "", "")).encode("latin-1")
    connection.data_received(head if sent.piece_bytes else head + sent.body)
    for at in range(0, len(sent.body), sent.piece_bytes) if sent.piece_bytes else ():
        connection.data_received(sent.body[at : at + sent.piece_bytes])
        await asyncio.sleep(0)
    if not sent.ended:
        connection.connection_lost(None)
    while connection.task is not None:
        await asyncio.wait([connection.task])
    if sent.ended:
        connection.connection_lost(None)
    return parse_answer(bytes(transport.written))


class FakeTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.written = bytearray()
        self._is_closing = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """What is delivered is delivered."""

    def resume_reading(self) -> None:
        """Likewise."""


def parse_answer(written: bytes) -> Answered:
    """One answer as a client reads it."""
    answered = Answered(status=0)

    class Parts:
        def on_header(self, name: bytes, value: bytes) -> None:
            if name != b"date":  # the one header that is never twice the same
                answered.headers[name.decode()] = value.decode()

        def on_body(self, body: bytes) -> None:
            answered.body += body

    parser = httptools.HttpResponseParser(Parts())
    parser.feed_data(written)
    if written:
        answered.status = parser.get_status_code()
    return answered
