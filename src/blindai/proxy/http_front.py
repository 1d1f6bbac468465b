"""Plain OIP over HTTP on this machine, on aiohttp's server.

A web page in a browser of this machine could reach the port too: requests that name another host (DNS rebinding) or
come from another site are refused. Leaves out: what is done with a request (`forward`).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from blindai.errors import BlindAIError, ForbiddenError, InferenceError, InternalError, TooLargeError
from blindai.proxy.messages import LocalRequest, refusal
from blindai.proxy.page import status_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from blindai.proxy.forward import Forwarder
    from blindai.proxy.messages import LocalAnswer

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 1 << 30
LIVE_PATH = "/v2/health/live"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_UNAUTHENTICATED = 401
_LOG = logging.getLogger("blindai.proxy")


def make_application(forwarder: Forwarder, *, host: str) -> web.Application:
    """The whole surface of the proxy; `host` is the name or address that it listens on."""
    names = _LOOPBACK | {host}

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _require_local(request, names)
            return await handler(request)
        except InferenceError as error:
            return _response(refusal(error, status=error.status))
        except Exception as error:  # noqa: BLE001  # a traceback can hold values
            _LOG.error("a request failed: %s", type(error).__name__)
            failed = InternalError("the proxy failed on this request")
            return _response(refusal(failed, status=failed.status))

    application = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    application.on_response_prepare.append(_without_banner)
    application.router.add_get("/", partial(_page, forwarder))
    application.router.add_get(LIVE_PATH, _live)
    application.router.add_route("*", "/{path:.*}", partial(_forward, forwarder))
    return application


async def _without_banner(_request: web.Request, response: web.StreamResponse) -> None:
    """The server behind shows none either."""
    response.headers.popall("Server", None)


def _require_local(request: web.Request, names: frozenset[str]) -> None:
    """Only programs of this machine: a browser names the site that it believes to talk to, and the one that asks.

    Raises:
        ForbiddenError: another host is named, or another site asks.
    """
    hosts, origins = request.headers.getall("Host", []), request.headers.getall("Origin", [])
    is_local = all(_host_of(f"//{host}") in names for host in hosts)  # HTTP/1.0 has none, and browsers have one
    is_own = all(_host_of(origin) in names for origin in origins)
    if not is_local or not is_own or request.headers.get("Sec-Fetch-Site") == "cross-site":
        raise ForbiddenError("this proxy answers programs of this machine only", hint="ask for 127.0.0.1 or localhost")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def _forward(forwarder: Forwarder, request: web.Request) -> web.Response:
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLargeError(f"a request body has at most {MAX_BODY_BYTES} bytes here") from None
    answer = await forwarder.forward(
        LocalRequest(
            method=request.method,
            path=_path_of(request.raw_path),
            headers=tuple((name.lower(), value) for name, value in request.headers.items()),
            body=body,
        )
    )
    return _response(answer)


def _path_of(target: str) -> str:
    """As the server's doors take it: percent-encoded as it came, the query left out; clients add none that mean any."""
    if not target.startswith("/"):  # RFC 9112 §3.2.2, the form that is meant for proxies
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


async def _page(forwarder: Forwarder, _request: web.Request) -> web.Response:
    """What was verified, for people."""
    try:
        page, status = status_page(forwarder.server, await forwarder.verify()), 200
    except BlindAIError as error:
        page, status = status_page(forwarder.server, error), 503
    return web.Response(status=status, text=page, content_type="text/html", headers={"Cache-Control": "no-store"})


async def _live(_request: web.Request) -> web.Response:
    """Of the proxy itself."""
    return web.Response(body=b'{"live":true}', content_type="application/json")


def _response(answer: LocalAnswer) -> web.Response:
    headers = {"cache-control": "no-store", **dict(answer.headers)}
    if answer.status == _UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"  # RFC 9110 §15.5.2
    return web.Response(status=answer.status, headers=headers, body=answer.body)
