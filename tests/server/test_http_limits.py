"""Connections that send too much, too slowly or nothing: each ends, and costs little until then."""

from __future__ import annotations

import asyncio

import pytest
from server.running_http import SOON_S, App, answer_of, exchange, running

from blindai.server.http_limits import HttpLimits

pytestmark = pytest.mark.network

QUICK = HttpLimits(head_timeout_s=0.3, idle_timeout_s=0.3, min_progress_bytes=100)
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
LARGE = 8 * 1024 * 1024


async def send_until_closed(writer: asyncio.StreamWriter, piece: bytes, *, times: int, every_s: float = 0.0) -> int:
    """How many pieces could be written before the other side ended the connection."""
    for count in range(times):
        try:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every_s)
        except ConnectionError:
            return count
    return times


async def test_a_head_that_never_ends_is_refused_long_before_it_costs_memory() -> None:
    app = App()
    async with running(app, QUICK) as server:
        reader, writer = await server.connect()
        writer.write(HEAD + b"x-endless: ")
        sent = await send_until_closed(writer, b"a" * 65536, times=1000)
        assert sent < 100
        writer.close()
        answer = await exchange(server, HEAD + b"x-long: " + b"a" * 65536)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert not app.ends
        del reader


async def test_many_short_headers_count_together() -> None:
    app = App()
    async with running(app, QUICK) as server:
        answer = await exchange(server, HEAD + b"".join(b"x-%d: a\r\n" % number for number in range(8000)))
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert not app.ends


async def test_a_head_within_the_bound_and_a_body_beyond_it_pass() -> None:
    async with running(App(), QUICK) as server:
        head = HEAD + b"x: " + b"a" * 60_000 + b"\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n"
        answer = await exchange(server, head + bytes(1_000_000))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\n1000000")


async def test_a_chunked_body_passes_and_its_endless_trailer_does_not() -> None:
    chunked = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(b"3e8\r\n" + bytes(1000) + b"\r\n" for _ in range(200))
    app = App()
    async with running(app, QUICK) as server:
        assert (await exchange(server, chunked + chunks + b"0\r\n\r\n")).endswith(b"\r\n\r\n200000")
        for endless in (b"0\r\nx-endless: ", b"3;extension="):
            reader, writer = await server.connect()
            writer.write(chunked + b"1\r\na\r\n" + endless)
            assert await send_until_closed(writer, b"a" * 65536, times=1000) < 100
            writer.close()
            del reader
    assert app.ends == ["answered", "left", "left"]


async def test_a_second_head_behind_an_answered_request_has_the_same_bound() -> None:
    async with running(App(), QUICK) as server:
        reader, writer = await server.connect()
        writer.write(HEAD + b"content-length: 1\r\n\r\na")
        await reader.readuntil(b"\r\n\r\n1")
        writer.write(HEAD + b"x: " + b"a" * 65536)
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_an_endless_head_behind_a_running_request_is_refused_after_it() -> None:
    app = App(answer_after_s=0.2)
    async with running(app, QUICK) as server:
        answer = await exchange(server, HEAD + b"content-length: 1\r\n\r\na" + HEAD + b"x: " + b"a" * 200_000)
        assert answer.count(b"HTTP/1.1 200 OK") == 1  # the refusal behind it may be lost with the rest of the head
        assert await server.is_empty()


@pytest.mark.parametrize("sent", [b"", b"P", HEAD, HEAD + b"content-length: 1\r\n\r\na" + HEAD], ids=repr)
async def test_a_connection_without_a_whole_head_ends(sent: bytes) -> None:
    async with running(App(), QUICK) as server:
        await exchange(server, sent)
        assert await server.is_empty()


async def test_a_head_that_comes_a_byte_at_a_time_ends_too() -> None:
    async with running(App(), QUICK) as server:
        _, writer = await server.connect()
        assert await send_until_closed(writer, b"P", times=100, every_s=0.05) < 100
        writer.close()


@pytest.mark.parametrize("drip_s", [0.0, 0.05])
async def test_a_body_that_stops_or_drips_ends_and_the_app_learns_of_it(drip_s: float) -> None:
    app = App()
    async with running(app, QUICK) as server:
        reader, writer = await server.connect()
        writer.write(HEAD + b"content-length: 1000000\r\n\r\n" + bytes(5000))
        if drip_s:
            assert await send_until_closed(writer, b"a", times=200, every_s=drip_s) < 200
        assert await answer_of(reader) == b""
        writer.close()
    assert app.ends == ["left"]


async def test_a_body_that_goes_on_may_take_longer_than_the_deadline() -> None:
    async with running(App(), QUICK) as server:
        reader, writer = await server.connect()
        writer.write(HEAD + b"connection: close\r\ncontent-length: 20000\r\n\r\n")
        assert await send_until_closed(writer, bytes(1000), times=20, every_s=0.05) == 20
        assert (await answer_of(reader)).endswith(b"\r\n\r\n20000")
        writer.close()


async def test_a_client_that_does_not_read_its_answer_is_cut() -> None:
    app = App(answer_bytes=16 * LARGE)  # more than the sockets' buffers
    async with running(app, QUICK) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads
        writer.write(HEAD + b"content-length: 1\r\n\r\na")
        async with asyncio.timeout(SOON_S):
            while app.ends != ["left"] or server.state.connections:  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.02)
        writer.transport.abort()
        del reader


async def test_an_answer_that_takes_long_is_waited_for_and_read_whole() -> None:
    app = App(answer_bytes=LARGE, answer_after_s=1.0)
    async with running(app, QUICK) as server:
        request = HEAD + b"connection: close\r\ncontent-length: 1\r\n\r\na"
        assert len(await exchange(server, request)) > LARGE


async def test_an_idle_connection_is_kept_and_serves_again() -> None:
    async with running(App(), QUICK) as server:
        reader, writer = await server.connect()
        for _ in range(2):
            writer.write(HEAD + b"content-length: 2\r\n\r\nab")
            answer = await reader.readuntil(b"\r\n\r\n2")
            assert answer.startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(0.5)
        writer.close()


async def test_connections_above_the_limit_are_told_and_many_more_are_cut() -> None:
    request = HEAD + b"content-length: 1\r\n\r\na"
    limits = HttpLimits(max_connections=2)
    async with running(App(), limits) as server:
        held = [await server.connect() for _ in range(2)]
        for reader, writer in held:
            writer.write(request)
            assert (await reader.readuntil(b"\r\n\r\n1")).startswith(b"HTTP/1.1 200 ")
        assert (await exchange(server, request)).startswith(b"HTTP/1.1 503 ")
        silent = [await server.connect() for _ in range(3)]
        assert await answer_of(silent[-1][0]) == b""
        for _, writer in (*held, *silent):
            writer.close()
