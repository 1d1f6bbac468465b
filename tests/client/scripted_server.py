"""A small HTTPS server whose every connection runs a script, so that it can misbehave in any way a test needs."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blindai.client.transport import ServerUrl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Script = Callable[["Peer"], None]


class Received(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """One accepted connection, as a script sees it."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock, self.server = sock, server
        self.reader = sock.makefile("rb")

    def read_head(self) -> tuple[str, dict[str, str]]:
        line = self.reader.readline().decode().strip()
        rows = (row.decode().strip().partition(": ") for row in iter(self.reader.readline, b"\r\n"))
        if not line:
            raise EOFError
        return line, {name: value for name, _, value in rows}

    def read(self) -> Received:
        line, headers = self.read_head()
        length = int(headers.get("Content-Length", 0))
        body = self.reader.read(length)
        if headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.reader.readline(), 16):
                body += self.reader.read(size + 2)[:-2]
            self.reader.readline()
        elif len(body) < length:
            raise EOFError
        self.server.requests.append(Received(line, headers, body))
        return self.server.requests[-1]

    def answer(self, body: bytes = b"", *, status: int = 200, headers: str = "") -> None:
        self.sock.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)


def echo(peer: Peer) -> None:
    while True:
        peer.answer(peer.read().body)


class Server:
    """Runs a script in a thread for each connection, which ends with it; keeps the requests that it read."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.script: Script = echo
        self.context = context
        self.requests: list[Received] = []
        self.peers: list[Peer] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if context else "http"
        self.url = ServerUrl(scheme=scheme, host="localhost", port=self.listener.getsockname()[1])
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self.serve, args=(sock,)))
                self.threads[-1].start()

    def serve(self, sock: socket.socket) -> None:
        with suppress(OSError, EOFError, ValueError):  # what a client that goes away looks like
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self.context.wrap_socket(sock, server_side=True) if self.context else sock
            peer = Peer(sock, self)
            self.peers.append(peer)
            with sock, peer.reader:
                self.script(peer)

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(10)


def server_context(folder: Path) -> ssl.SSLContext:
    """Its certificate has ended and is for no host: nobody looks."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    start = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + dt.timedelta(days=1))
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
