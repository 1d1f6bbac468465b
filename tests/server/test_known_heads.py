"""A request whose head came before skips the parser; what comes, however it is cut, is read as the parser reads it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from unittest import mock

from fakes.network import FakeTransport
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blindai.server.http_limits import HttpLimits
from blindai.server.http_protocol import HttpConnection
from blindai.server.http_server import HttpServer

if TYPE_CHECKING:
    from blindai.server.http_request import HttpRequest

LIMITS = HttpLimits(max_head_bytes=160, max_headers=5, max_buffered_bytes=64)


def post(body: bytes, *lines: bytes, version: bytes = b"1.1") -> bytes:
    return b"\r\n".join(
        (b"POST /a?b HTTP/" + version, b"host: x", *lines, b"content-length: %d" % len(body), b"", body)
    )


KNOWN = post(b"ab\r\n\r\ncd")
WHOLE = (
    KNOWN,
    KNOWN.replace(b"ab", b"ef"),
    KNOWN.replace(b"/a?b", b"/c?d"),
    post(b"ab\r\n\r\ncd", b"expect: 100-continue"),
    post(b"ab\r\n\r\ncd", b"connection: close"),
    post(b"ab\r\n\r\ncd", b"connection: keep-alive", version=b"1.0"),
    post(b"ab\r\n\r\ncd", b"connection: upgrade", b"upgrade: y"),
    post(b"ab", b"content-length: 2"),
    post(b"ab", b"transfer-encoding: chunked"),
    post(b"ab", b" folded"),
    post(b"", b"x: " + b"y" * 60),
    post(b"", b"x: " + b"y" * 100),
    post(b"a" * 200),
    KNOWN.replace(b"POST", b"HEAD"),
    KNOWN.replace(b"\r\n", b"\n"),
    b"\r\n" + KNOWN,
    b"\r\n\r\n" + KNOWN,
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: y\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nab\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nt: u\r\n\r\n",
    b"\r\n",
    b"\r",
    b"\0",
)
PIECES = st.lists(
    st.one_of(
        st.sampled_from((KNOWN, *WHOLE)),
        st.sampled_from(("wait", "drain")),
        st.builds(lambda one, at: one[:at] or one, st.sampled_from(WHOLE), st.integers(1, 200)),
        st.builds(lambda one, at: one[at:] or one, st.sampled_from(WHOLE), st.integers(1, 200)),
        st.builds(lambda one, two: one + two, st.sampled_from(WHOLE), st.sampled_from(WHOLE)),
    ),
    min_size=2,
    max_size=9,
)


async def read(
    pieces: list[bytes | str], *, known: bool, above_limit: bool = False
) -> tuple[list[object], bytes, bool]:
    """What the handler got, what was written, and whether the connection ended."""
    seen: list[object] = []

    async def handler(request: HttpRequest) -> None:
        said = [request.method, request.path, request.headers, request.keep_alive, request.is_http_10]
        body = b"".join([piece async for piece in request.body()])
        await asyncio.sleep(0)
        seen.append((*said, body))
        await request.answer(200, body)

    server = HttpServer(handler, LIMITS)
    server.date_line = lambda: b""  # type: ignore[method-assign]  # the one thing that is not the same twice
    transport = FakeTransport()
    connection = HttpConnection(server)
    connection.connection_made(transport)
    connection._is_above_limit = above_limit
    for piece in pieces:
        if not transport.is_closing():
            await feed(connection, piece, known=known)
    for _ in range(8):
        if connection._received is None:
            await feed(connection, "wait", known=known)
    ended = transport.is_closing()
    connection.connection_lost(None)
    await feed(connection, "wait", known=known)
    return seen, bytes(transport.written), ended


async def feed(connection: HttpConnection, piece: bytes | str, *, known: bool) -> None:
    """Bytes, an end of the server, or time for what runs; unless heads may be `known`, none is."""
    if isinstance(piece, bytes):
        connection.data_received(piece)
        if not known:
            connection._known = None
    elif piece == "drain":
        connection.server.is_draining = True
    elif connection.task is not None:
        await asyncio.wait([connection.task], timeout=None if connection._received is None else 0)


def both(pieces: list[bytes | str], **how: bool) -> tuple[list[object], bytes, bool]:
    expected = asyncio.run(read(pieces, known=False, **how))
    assert asyncio.run(read(pieces, known=True, **how)) == expected
    return expected


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PIECES, st.booleans())
def test_a_stream_is_read_as_the_parser_reads_it(pieces: list[bytes | str], above_limit: bool) -> None:  # noqa: FBT001  # drawn
    both([KNOWN, "wait", KNOWN, "wait", *pieces], above_limit=above_limit)


def test_known_heads_are_not_parsed() -> None:
    with mock.patch.object(HttpConnection, "_feed", autospec=True, side_effect=HttpConnection._feed) as fed:
        seen, _, _ = asyncio.run(read([KNOWN, "wait"] * 5, known=True))
    assert (len(seen), fed.call_count) == (5, 2)


def test_what_a_client_sends_between_requests_is_counted_from_the_last_one() -> None:
    """Some send an empty line behind a body; it is not a head that grows for ever."""
    seen, _, ended = both([KNOWN, "wait", *(KNOWN, "wait", b"\r\n") * 100])
    assert (len(seen), ended) == (101, False)
