"""Both transports: what they send, what they reuse and share, and what they never do of their own accord."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from client.scripted_server import Peer, Received, Server
from client.transport_clients import MIB, AsyncClient, Client, SyncClient, post

from blindai import __version__
from blindai.client.http_async import AsyncTransport
from blindai.client.http_sync import SyncTransport
from blindai.client.transport import make_tls_context, parse_server_url
from blindai.errors import ChannelError, ConnectionLostError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.network


@pytest.mark.parametrize(
    ("body", "framing"),
    [
        (b"data", {"Content-Length": "4"}),
        (bytes(3 * MIB), {"Content-Length": str(3 * MIB)}),
        (b"", {"Content-Length": "0"}),
        (None, {"Content-Length": "0"}),
        ([b"da", b"", b"ta"], {"Content-Length": "4"}),
        ([], {"Content-Length": "0"}),
        ([bytes(MIB), b"da", b"ta"], {"Transfer-Encoding": "chunked"}),
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
