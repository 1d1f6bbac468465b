"""A network that an attacker owns: it carries a client's flows to an application without sockets, may change all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from blindai.client.transport import HttpRequest, HttpResponse
from blindai.errors import ConnectionLostError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from blindai.client.attest_flow import Flow
    from blindai.server.app import App

T = TypeVar("T")
PIECE_BYTES = 1000  # so that a message is never there at once: its head is opened before its last frame arrives


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request as the path saw it; not `ended` means that the connection breaks after `body`."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    ended: bool = True


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
    """One request through the ASGI application; a status of 0 means that it did not answer."""
    answered = Answered(status=0)
    pieces = [bytearray()]
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": sent.body[at : at + PIECE_BYTES], "more_body": True}
        for at in range(0, len(sent.body), PIECE_BYTES)
    ]
    if sent.ended:
        incoming.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.status = message["status"]
            answered.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            pieces[0] += message.get("body", b"")

    scope = {
        "type": "http",
        "method": sent.method,
        "path": sent.path,
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.headers],
        "client": ("192.0.2.1", 1),
    }
    await app(scope, receive, send)
    answered.body = bytes(pieces[0])
    return answered
