"""Both transports against a small scripted HTTPS server: what they send, what they refuse, what they never do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import Peer, Received, Server, server_context

from blindai import __version__
from blindai.client.http_async import AsyncTransport
from blindai.client.http_sync import SyncTransport
from blindai.client.transport import HttpRequest, HttpResponse, ServerUrl, make_tls_context, parse_server_url
from blindai.errors import ChannelError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.network
MIB = 1 << 20


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return server_context(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def server(context: ssl.SSLContext) -> Iterator[Server]:
    server = Server(context)
    yield server
    server.stop()


class SyncClient:
    def __init__(self, url: ServerUrl) -> None:
        self.transport = SyncTransport(url)

    def send(self, request: HttpRequest) -> HttpResponse:
        return self.transport.send(request)

    def close(self) -> None:
        self.transport.close()


class AsyncClient:
    """Its event loop stands still between two requests, as behind a caller's long computation."""

    def __init__(self, url: ServerUrl) -> None:
        self.runner = asyncio.Runner()
        self.transport = AsyncTransport(url)

    def send(self, request: HttpRequest) -> HttpResponse:
        return self.runner.run(self.transport.send(request))

    def close(self) -> None:
        self.runner.run(self.transport.close())
        self.runner.run(asyncio.sleep(0.02))  # where aiohttp closed TLS itself, asyncio waits for the server's goodbye
        self.runner.close()


Client = SyncClient | AsyncClient


@pytest.fixture(params=[SyncClient, AsyncClient], ids=["sync", "async"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    client = request.param(server.url)
    yield client
    client.close()


def post(body: Any = b"data", **changes: Any) -> HttpRequest:
    values: dict[str, Any] = {"method": "POST", "path": "/v1/sealed?a=%2F", "max_body_bytes": 4 * MIB, "timeout_s": 10}
    return HttpRequest(body=body, **{**values, **changes})


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        (b"data", {"Content-Length": "4"}),
        (bytes(3 * MIB), {"Content-Length": str(3 * MIB)}),
        (b"", {"Content-Length": "0"}),
        (None, {"Content-Length": "0"}),
        ([b"da", b"", b"ta"], {"Transfer-Encoding": "chunked"}),
        ([], {"Transfer-Encoding": "chunked"}),
        ([b"da", bytes(MIB)], {"Content-Length": str(MIB + 2)}),
    ],
)
def test_sends_the_body_and_no_header_that_was_not_asked_for(
    client: Client, server: Server, body: Any, framing: dict[str, str]
) -> None:
    length = int(framing["Content-Length"]) if isinstance(body, list) and "Content-Length" in framing else None
    answer = client.send(post(body, content_length=length, headers=(("Blindai-Route", "r"),)))
    common = {"User-Agent": f"blindai/{__version__}", "Accept-Encoding": "identity", "Blindai-Route": "r"}
    whole = b"".join(body) if isinstance(body, list) else body or b""
    expected = Received("POST /v1/sealed?a=%2F HTTP/1.1", {"Host": server.url.authority, **common, **framing}, whole)
    assert server.requests == [expected]
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, whole, str(len(whole)))


def test_uses_a_connection_again_and_speaks_tls_1_3(client: Client, server: Server) -> None:
    for body in (b"1", [b"2"], bytes(MIB)):
        client.send(post(body))
    assert len(server.peers) == 1
    assert isinstance(server.peers[0].sock, ssl.SSLSocket)
    assert server.peers[0].sock.version() == "TLSv1.3"


def test_accepts_tls_1_2_and_nothing_older() -> None:
    assert make_tls_context().minimum_version == ssl.TLSVersion.TLSv1_2


def test_environment_changes_nothing(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "missing"))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    (tmp_path / ".netrc").write_text("machine localhost login user password secret")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert client.send(post()).body == b"data"
    assert "Authorization" not in server.requests[0].headers
    assert [path.name for path in tmp_path.iterdir()] == [".netrc"]


def test_follows_no_redirect_and_keeps_no_cookie(client: Client, server: Server) -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.read()
            peer.answer(status=307, headers="Location: /elsewhere\r\nSet-Cookie: a=b\r\n")

    server.script = script
    assert [client.send(post()).status, client.send(post()).status] == [307, 307]
    assert [request.line.split()[1] for request in server.requests] == ["/v1/sealed?a=%2F"] * 2
    assert "Cookie" not in server.requests[1].headers


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
def test_a_connection_that_the_server_has_closed_is_not_used(client: Client, server: Server, pause_s: float) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.answer(headers="" if pause_s else "Connection: close\r\n")
        time.sleep(pause_s / 2)  # so that it closes while the client is not looking

    server.script = script
    for _ in range(3):
        assert client.send(post()).status == 200
        time.sleep(pause_s)
    assert len(server.peers) == 3


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_never_sends_a_request_twice(client: Client, server: Server, method: str) -> None:
    def script(peer: Peer) -> None:
        peer.answer(peer.read().body)
        peer.read()

    server.script = script
    client.send(post())
    with pytest.raises(ConnectionLostError, match="broke") as failure:
        client.send(post(None, method=method))
    assert "not known whether the request ran" in failure.value.hint
    assert len(server.requests) == 2


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


def test_hands_over_a_200_answer_as_it_arrives(client: Client, server: Server) -> None:
    seen = threading.Event()
    pieces: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.read()
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        if seen.wait(10):
            peer.sock.sendall(b"3\r\ntwo\r\n0\r\n\r\n")
        peer.read()
        peer.answer(b"why", status=400)

    def on_data(data: bytes) -> None:
        pieces.append(data)
        seen.set()

    server.script = script
    assert client.send(post(on_data=on_data)).body == b""
    assert b"".join(pieces) == b"onetwo"
    assert client.send(post(on_data=on_data)).body == b"why"
    assert b"".join(pieces) == b"onetwo"


@pytest.mark.parametrize(
    "change", [{"path": "/a b"}, {"path": "x"}, {"headers": (("A", "b\r\nC: d"),)}, {"headers": (("A: b", "c"),)}]
)
def test_refuses_to_send_a_head_that_reads_differently(client: Client, server: Server, change: dict[str, Any]) -> None:
    with pytest.raises(ChannelError):
        client.send(post(**change))
    assert server.requests == []


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


@pytest.mark.parametrize("kind", [SyncClient, AsyncClient])
def test_speaks_plain_http_when_told_so_and_names_a_mismatch(kind: type[Client]) -> None:
    def script(peer: Peer) -> None:
        try:
            peer.answer(peer.read().body)
        except ValueError:  # a TLS greeting is no text
            peer.answer(status=400)
            peer.reader.read()

    server = Server(None)
    server.script = script
    client, mistaken = kind(server.url), kind(parse_server_url(server.url.authority))
    assert client.send(post()).body == b"data"
    with pytest.raises(ConnectionLostError) as failure:
        mistaken.send(post())
    assert "http://" in failure.value.hint
    client.close()
    mistaken.close()
    server.stop()


def test_threads_share_a_transport(server: Server) -> None:
    transport = SyncTransport(server.url)
    bodies = [b"%d" % number for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: transport.send(post(body)).body, bodies))
    transport.close()
    assert answers == bodies
    assert len(server.peers) <= 8


FORKING = """
import os, sys
from blindai.client.http_sync import SyncTransport
from blindai.client.transport import HttpRequest, parse_server_url
transport = SyncTransport(parse_server_url(sys.argv[1]))
def send(body):
    request = HttpRequest(method="POST", path="/", body=body, max_body_bytes=9, timeout_s=10)
    assert transport.send(request).body == body
send(b"before")
child = os.fork()
send(b"child" if child == 0 else b"parent")
transport.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork on Windows")
def test_a_forked_child_leaves_the_parents_connection_alone(server: Server) -> None:
    subprocess.run([sys.executable, "-c", FORKING, str(server.url)], check=True, timeout=60)
    assert sorted(request.body for request in server.requests) == [b"before", b"child", b"parent"]
    assert len(server.peers) == 2


async def test_tasks_share_a_transport_and_another_loop_is_refused(server: Server) -> None:
    transport = AsyncTransport(server.url)
    bodies = [b"%d" % number for number in range(40)]
    answers = await asyncio.gather(*(transport.send(post(body)) for body in bodies))
    assert [answer.body for answer in answers] == bodies
    with pytest.raises(ChannelError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, transport.send(post()))
    await transport.close()
