"""Both transports when something goes wrong: nothing is guessed, sent twice or wrapped that belongs to the caller."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from client.transport_clients import MIB, AsyncClient, Client, SyncClient, post

from blindai.client.transport import parse_server_url
from blindai.errors import ChannelError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.scripted_server import Peer, Server

pytestmark = pytest.mark.network


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"",
    ],
)
def test_an_answer_that_ends_early_is_a_lost_connection(client: Client, server: Server, cut: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(cut)

    server.script = script
    with pytest.raises(ConnectionLostError):
        client.send(post())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n600000\r\n" + bytes(0x600000) + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
    ],
    ids=["encoded", "large", "large chunks", "two lengths", "odd length", "upgrade", "not HTTP"],
)
def test_refuses_answers_outside_the_rules(client: Client, server: Server, answer: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(answer)
        peer.reader.read(1)

    server.script = script
    with pytest.raises(ChannelError) as failure:
        client.send(post())
    assert not isinstance(failure.value, ConnectionLostError)


@pytest.mark.parametrize("body", [b"data", [bytes(MIB)] * 64, bytes(64 * MIB)], ids=["answer", "stream", "bytes"])
def test_a_server_that_stands_still_is_a_lost_connection(client: Client, server: Server, body: Any) -> None:
    released = threading.Event()

    def script(_: Peer) -> None:
        released.wait(10)

    server.script = script
    with pytest.raises(ConnectionLostError, match="stands still"):
        client.send(post(body, timeout_s=0.3))
    released.set()


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1])
@pytest.mark.parametrize("on_data", [None, list[bytes]().append], ids=["whole", "as it arrives"])
def test_keeps_little_of_an_answer_that_refuses(client: Client, server: Server, size: int, on_data: Any) -> None:
    """Whoever stands on the path can write one, of any size."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.answer(bytes(size), status=502)
        peer.reader.read(1)

    server.script = script
    request = post(on_data=on_data, max_body_bytes=1 << 31)
    if size <= 64 * 1024:
        assert client.send(request).body == bytes(size)
    else:
        with pytest.raises(ChannelError, match=r"status 502\) passes 65536 bytes"):
            client.send(request)


@pytest.mark.parametrize(
    "beginning", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"], ids=["in its head", "in its body"]
)
def test_an_answer_that_drips_ends_at_the_deadline(client: Client, server: Server, beginning: bytes) -> None:
    """Each byte comes well within the patience for one step."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(beginning or b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(200):  # or until the client hangs up
            peer.sock.sendall(b"x")
            time.sleep(0.02)

    server.script = script
    began = time.monotonic()
    with pytest.raises(ConnectionLostError, match="stands still"):
        client.send(post(deadline_s=0.5))
    assert 0.4 < time.monotonic() - began < 3


def test_a_deadline_ends_no_exchange_before_it(client: Client, server: Server) -> None:
    def script(peer: Peer) -> None:
        for _ in range(2):
            body = peer.read().body
            time.sleep(0.2)
            peer.answer(body)

    server.script = script
    assert client.send(post([bytes(MIB)] * 4, deadline_s=20)).body == bytes(4 * MIB)
    assert client.send(post(timeout_s=5)).body == b"data"  # on the same connection, and with its own patience
    assert len(server.peers) == 1


@pytest.mark.parametrize("length", [None, 64 * MIB])
def test_returns_an_answer_that_came_before_the_body_was_sent(
    client: Client, server: Server, length: int | None
) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.answer(b"too large", status=413, headers="Connection: close\r\n")
        if isinstance(client, AsyncClient):  # asyncio reads no more once a write has failed, so give it the time
            time.sleep(0.05)

    server.script = script
    for _ in range(5):
        answer = client.send(post([bytes(MIB)] * 64, content_length=length))
        assert (answer.status, answer.body) == (413, b"too large")


class OwnError(OSError):
    """An error of the caller that looks like one of the socket."""


def broken_body(error: Exception) -> Iterator[bytes]:
    yield b"begin"
    yield bytes(MIB)
    raise error


def test_the_callers_errors_come_back_unchanged(client: Client, server: Server) -> None:
    error = OwnError("mine")

    def refuse(_: bytes) -> None:
        raise error

    for request in (post(broken_body(error)), post(on_data=refuse)):
        with pytest.raises(OwnError) as caught:
            client.send(request)
        assert caught.value is error
        assert caught.value.__cause__ is None
    assert client.send(post(b"after")).body == b"after"
    assert not any(b"begin" in request.body for request in server.requests)
    assert len(server.peers) >= 2


@pytest.mark.parametrize("length", [3, 5])
def test_a_body_of_another_length_than_announced_is_refused(client: Client, server: Server, length: int) -> None:
    with pytest.raises(ChannelError, match="announced"):
        client.send(post([b"da", b"ta"], content_length=length))
    assert server.requests == []
    assert client.send(post()).body == b"data"


@pytest.mark.parametrize("kind", [SyncClient, AsyncClient])
def test_nobody_listening_says_how_to_start_a_server(kind: type[Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    client = kind(parse_server_url(f"localhost:{port}"))
    with pytest.raises(ConnectionLostError, match="cannot connect") as failure:
        client.send(post())
    assert "blindai serve --simulation" in failure.value.hint
    client.close()
    with pytest.raises(ChannelError, match="closed"):
        client.transport.send(post()) if isinstance(client, SyncClient) else asyncio.run(client.transport.send(post()))
