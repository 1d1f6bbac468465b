"""Plain OIP over HTTP on this machine, on aiohttp's server.

A web page in a browser of this machine could reach the port too: requests that name another host (DNS rebinding) or
come from another site are refused. Leaves out: what is done with a request (`forward`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from blindai.errors import BlindAIError, ForbiddenError, InvalidInputError
from blindai.proxy.forward import LocalRequest, refusal
from blindai.proxy.page import status_page
from blindai.wire import Json, compact_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blindai.proxy.forward import Forwarder, LocalAnswer

MAX_BODY_BYTES = 1 << 30
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})


def make_application(forwarder: Forwarder, *, host: str) -> web.Application:
    """The whole surface of the proxy; `host` is the name or address that it listens on."""
    names = _LOOPBACK | {host}

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            _require_local(request, names)
        except ForbiddenError as error:
            return _response(refusal(error.status, error))
        return await handler(request)

    application = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    application.router.add_get("/", lambda _: _page(forwarder))
    application.router.add_get("/v2/health/live", lambda _: _live())
    application.router.add_get("/v2/health/ready", lambda _: _ready(forwarder))
    application.router.add_route("*", "/{path:.*}", lambda request: _forward(forwarder, request))
    return application


def _require_local(request: web.Request, names: frozenset[str]) -> None:
    """Only programs of this machine: a browser names the site that it believes to talk to, and the one that asks.

    Raises:
        ForbiddenError: another host is named, or another site asks.
    """
    host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    origin = request.headers.get("Origin")
    if host not in names or (origin is not None and urlsplit(origin).hostname not in names):
        raise ForbiddenError("this proxy answers programs of this machine only", hint=f"ask for {sorted(_LOOPBACK)[1]}")


async def _forward(forwarder: Forwarder, request: web.Request) -> web.Response:
    if request.method not in _METHODS:
        return web.Response(status=405, headers={"Allow": ", ".join(sorted(_METHODS))})
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        error = InvalidInputError(f"a request body has at most {MAX_BODY_BYTES} bytes here")
        return _response(refusal(413, error))
    answer = await forwarder.forward(
        LocalRequest(
            method="GET" if request.method == "HEAD" else request.method,
            path=request.raw_path,
            headers=tuple((name.lower(), value) for name, value in request.headers.items()),
            body=body,
            authorization=request.headers.get("Authorization"),
        )
    )
    return _response(answer)


async def _page(forwarder: Forwarder) -> web.Response:
    """What was verified, for people."""
    try:
        page, status = status_page(forwarder.server, await forwarder.verify()), 200
    except BlindAIError as error:
        page, status = status_page(forwarder.server, error), 503
    return web.Response(status=status, text=page, content_type="text/html", headers={"Cache-Control": "no-store"})


async def _live() -> web.Response:
    """Of the proxy itself."""
    return web.Response(body=b'{"live":true}', content_type="application/json")


async def _ready(forwarder: Forwarder) -> web.Response:
    """Whether the server is verified, and ready itself."""
    try:
        await forwarder.verify()
    except BlindAIError as error:
        members: dict[str, Json] = {"ready": False, "error": f"the server is not verified: {error}"}
        return web.Response(status=503, body=compact_json(members), content_type="application/json")
    request = LocalRequest(method="GET", path="/v2/health/ready", headers=(), body=b"")
    return _response(await forwarder.forward(request))


def _response(answer: LocalAnswer) -> web.Response:
    return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)
