"""Requests that could be read in two ways are refused; the others are answered in order, framed as HTTP/1.1 wants."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from server.running_http import SOON_S, App, Running, answer_of, exchange, running

from blindai.errors import ConnectionLostError
from blindai.server.http_limits import HttpLimits
from blindai.server.http_protocol import HttpConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from blindai.server.http_request import HttpRequest

pytestmark = pytest.mark.network

HOST = b"host: x\r\n"
CLOSE = b"connection: close\r\n"


async def echo(request: HttpRequest) -> None:
    """Method, path and body come back; `/stream` without a length, `/half` breaks off."""
    body = b"".join([piece async for piece in request.body()])
    said = b" ".join((request.method.encode(), request.path.encode(), body))
    if request.path == "/half":
        await request.begin(200, ())
        raise ValueError("secret words")
    if request.path == "/stream":
        await request.begin(200, ())
        await request.write(said)
        await request.end()
    elif request.path == "/nothing":
        await request.answer(204)
    elif request.path == "/early":
        raise ValueError("secret words")
    else:
        await request.answer(200, said)


@asynccontextmanager
async def echoing(**limits: float) -> AsyncIterator[Running]:
    async with running(echo, HttpLimits(**limits)) as server:  # type: ignore[arg-type]  # numbers of both kinds
        yield server


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1", target: bytes = b"/") -> bytes:
    return b"\r\n".join((b"POST " + target + b" HTTP/" + version, *lines, b"", body))


TWO_WAYS = {
    "two lengths": post(b"host: x", b"content-length: 1", b"content-length: 1", body=b"a"),
    "two different lengths": post(b"host: x", b"content-length: 1", b"content-length: 2", body=b"ab"),
    "a list of lengths": post(b"host: x", b"content-length: 1, 1", body=b"a"),
    "a length with a sign": post(b"host: x", b"content-length: +1", body=b"a"),
    "length and chunks": post(b"host: x", b"content-length: 1", b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "chunks and length": post(b"host: x", b"transfer-encoding: chunked", b"content-length: 1", body=b"0\r\n\r\n"),
    "chunked twice": post(b"host: x", *[b"transfer-encoding: chunked"] * 2, body=b"0\r\n\r\n"),
    "another coding": post(b"host: x", b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunks in HTTP/1.0": post(b"host: x", b"transfer-encoding: chunked", body=b"0\r\n\r\n", version=b"1.0"),
    "no host": post(b"content-length: 0"),
    "two hosts": post(b"host: x", b"host: y", b"content-length: 0"),
    "a folded header": post(b"host: x", b"y: a", b" b", b"content-length: 0"),
    "a space before the colon": post(b"host: x", b"content-length : 0"),
    "a NUL": post(b"host: x", b"y: a\0b"),
    "bare line feeds": b"GET / HTTP/1.1\nhost: x\n\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
    "an unknown method": b"FOO / HTTP/1.1\r\nhost: x\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an upgrade with a body": post(b"host: x", b"connection: upgrade", b"upgrade: x", b"content-length: 1", body=b"a"),
    "a chunk without a size": post(b"host: x", b"transfer-encoding: chunked", body=b"zz\r\na\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("request_bytes", TWO_WAYS.values(), ids=TWO_WAYS.keys())
async def test_what_can_be_read_in_two_ways_is_refused_and_ends_the_connection(request_bytes: bytes) -> None:
    async with echoing() as server:
        answer = await exchange(server, request_bytes)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nconnection: close\r\n" in answer
        assert b'"error":"' in answer
        assert await server.is_empty()


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
async def test_another_version_is_refused(version: bytes) -> None:
    async with echoing() as server:
        answer = await exchange(server, b"GET / HTTP/" + version + b"\r\nhost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 505 ")


async def test_pipelined_requests_are_answered_in_order_whatever_pieces_they_come_in() -> None:
    sent = b"".join(post(b"host: x", b"content-length: 3", body=b"%03d" % number) for number in range(200))
    sent += post(b"host: x", b"connection: close", b"content-length: 3", body=b"end")
    for piece_bytes in (1, 7, 1000, len(sent)):
        async with echoing() as server:
            reader, writer = await server.connect()
            for at in range(0, len(sent), piece_bytes):
                writer.write(sent[at : at + piece_bytes])
                if piece_bytes < len(sent) and at % 512 == 0:
                    await writer.drain()
            answer = await answer_of(reader)
            writer.close()
        bodies = [part[:10] for part in answer.split(b"POST / ")[1:]]
        assert [body[:3] for body in bodies] == [b"%03d" % number for number in range(200)] + [b"end"]


async def test_a_request_behind_one_that_streams_its_body_waits_for_it() -> None:
    async with echoing() as server:
        reader, writer = await server.connect()
        writer.write(post(b"host: x", b"transfer-encoding: chunked", body=b"2\r\nab\r\n"))
        await writer.drain()
        writer.write(b"1\r\nc\r\n0\r\nx-trailer: 1\r\n\r\nGET /second HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        answer = await answer_of(reader)
        writer.close()
    assert answer.index(b"POST / abc") < answer.index(b"GET /second ")


async def test_a_head_request_gets_the_length_and_no_body() -> None:
    async with echoing() as server:
        answer = await exchange(server, b"HEAD /abc HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        assert b"content-length: 10\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")
        answer = await exchange(server, b"HEAD /stream HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        assert answer.endswith(b"transfer-encoding: chunked\r\n\r\n")


async def test_an_answer_of_unknown_length_is_chunked_and_in_http_10_ends_with_the_connection() -> None:
    async with echoing() as server:
        answer = await exchange(server, b"GET /stream HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        assert answer.endswith(b"\r\n\r\nc\r\nGET /stream \r\n0\r\n\r\n")
        answer = await exchange(server, b"GET /stream HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"connection: close\r\n\r\nGET /stream ")
        assert b"transfer-encoding" not in answer


async def test_an_answer_without_content_has_no_length() -> None:
    async with echoing() as server:
        answer = await exchange(server, b"GET /nothing HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"content-length" not in answer


async def test_the_absolute_form_is_read_as_the_path_in_it() -> None:
    async with echoing() as server:
        answer = await exchange(server, b"GET http://x:1/a%2Fb?c=d HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        assert answer.endswith(b"\r\n\r\nGET /a%2Fb ")


async def test_a_client_that_waits_to_be_told_sends_its_body_then() -> None:
    async with echoing() as server:
        reader, writer = await server.connect()
        writer.write(post(b"host: x", b"expect: 100-continue", b"connection: close", b"content-length: 3"))
        async with asyncio.timeout(SOON_S):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        answer = await answer_of(reader)
        writer.close()
        assert answer.endswith(b"\r\n\r\nPOST / abc")


async def test_an_upgrade_is_not_taken_and_the_request_itself_is_answered() -> None:
    lines = b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    async with echoing() as server:
        answer = await exchange(server, b"GET / HTTP/1.1\r\n" + HOST + lines + b"PRI * HTTP/2.0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"connection: close" in answer
        assert answer.endswith(b"GET / ")


async def test_what_comes_behind_the_last_request_is_not_read() -> None:
    async with echoing() as server:
        answer = await exchange(server, post(b"host: x", b"connection: close", b"content-length: 1", body=b"a") * 2)
        assert answer.count(b"HTTP/1.1 200") == 1


async def test_a_million_tiny_chunks_are_refused_long_before_their_end() -> None:
    head = post(b"host: x", b"transfer-encoding: chunked")
    async with echoing() as server:
        reader, writer = await server.connect()
        writer.write(head + b"6\r\nabcdef\r\n" * 100_000)
        answer = await answer_of(reader)
        writer.close()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")  # a reset may overtake it
        chunks = b"".join(b"%x\r\n%b\r\n" % (4096, bytes(4096)) for _ in range(100)) + b"0\r\n\r\n"
        answer = await exchange(
            server, post(b"host: x", b"connection: close", b"transfer-encoding: chunked", body=chunks)
        )
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_handler_that_fails_ends_its_connection_and_says_nothing_of_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with echoing() as server:
        for target in (b"/half", b"/early"):
            answer = await exchange(server, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            assert b"0\r\n\r\n" not in answer
            assert b"secret" not in answer
        assert (await exchange(server, b"GET / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")).startswith(b"HTTP/1.1 200 ")
    assert caplog.messages.count("a handler failed: ValueError") == 2
    assert "secret" not in caplog.text


async def test_a_body_that_is_not_taken_is_not_read_either() -> None:
    taken, begun = asyncio.Event(), asyncio.Event()

    async def slow(request: HttpRequest) -> None:
        begun.set()
        await taken.wait()
        size = 0
        async for piece in request.body():
            size += len(piece)
        await request.answer(200, str(size).encode())

    async with running(slow, HttpLimits()) as server:
        reader, writer = await server.connect()
        writer.write(post(b"host: x", b"connection: close", b"content-length: 100000000") + bytes(100_000_000))
        async with asyncio.timeout(SOON_S):
            await begun.wait()
            before = -1
            while before != server.state.received_bytes:
                before = server.state.received_bytes
                await asyncio.sleep(0.2)
        assert before < 2_000_000
        taken.set()
        assert (await answer_of(reader)).endswith(b"\r\n\r\n100000000")
        writer.close()


async def test_a_client_that_leaves_cancels_a_handler_that_allows_it_and_no_other() -> None:
    ends: list[str] = []
    running_now = asyncio.Event()

    async def wait(request: HttpRequest) -> None:
        try:
            if request.path == "/may":
                request.let_leave_cancel()
            running_now.set()
            await asyncio.sleep(0.5 if request.path == "/must" else 60)
            ends.append("ran to its end")
            await request.answer(200)
        except (asyncio.CancelledError, ConnectionLostError) as error:
            ends.append(f"{request.path} {type(error).__name__}")
            raise

    async with running(wait, HttpLimits()) as server:
        for target in (b"/may", b"/must"):
            running_now.clear()
            _, writer = await server.connect()
            writer.write(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            async with asyncio.timeout(SOON_S):
                await running_now.wait()
            writer.transport.abort()
            async with asyncio.timeout(SOON_S):
                while len(ends) < (1 if target == b"/may" else 3):  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(0.01)
    assert ends == ["/may CancelledError", "ran to its end", "/must ConnectionLostError"]


async def test_a_connection_that_ended_is_not_kept_until_the_collector_looks() -> None:
    gc.collect()
    gc.disable()
    try:
        async with echoing() as server:
            for sent in (post(b"host: x", b"content-length: 1", body=b"a"), post(b"host: x", b"content-length: 9")):
                _, writer = await server.connect()
                writer.write(sent)
                async with asyncio.timeout(SOON_S):
                    while server.state.received_bytes < len(sent):  # noqa: ASYNC110  # nothing tells
                        await asyncio.sleep(0.01)
                writer.transport.abort()
                assert await server.is_empty()
        await asyncio.sleep(0)
        assert [held for held in gc.get_objects() if isinstance(held, HttpConnection)] == []
    finally:
        gc.enable()


async def test_draining_lets_requests_end_cuts_idle_connections_and_accepts_nothing_more() -> None:
    app = App(answer_after_s=0.3)
    async with running(app, HttpLimits()) as server:
        idle, _ = await server.connect()
        reader, writer = await server.connect()
        writer.write(post(b"host: x", b"content-length: 1", body=b"a"))
        await writer.drain()
        async with asyncio.timeout(SOON_S):
            while all(connection.is_idle for connection in server.state.connections):  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)
            draining = asyncio.create_task(server.state.drain(SOON_S))
            assert await answer_of(idle) == b""
            answer = await answer_of(reader)
            await draining
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in answer
        with pytest.raises(ConnectionRefusedError):
            await server.connect()
        writer.close()
        _.close()


async def test_draining_cuts_what_takes_too_long() -> None:
    async with running(App(answer_after_s=60), HttpLimits()) as server:
        reader, writer = await server.connect()
        writer.write(post(b"host: x", b"content-length: 1", body=b"a"))
        async with asyncio.timeout(SOON_S):
            while not server.state._tasks():  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.01)
            await server.state.drain(0.1)
        assert await answer_of(reader) == b""
        assert not server.state._tasks()
        writer.close()
