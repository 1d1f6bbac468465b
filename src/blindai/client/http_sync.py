"""Blocking HTTP/1.1 on the standard library's `http.client`: a pool of connections to one server.

Nothing is ever sent twice: a pooled connection that the server has closed is noticed before anything is written.
Threads may share a transport; a forked child starts with an empty pool. Leaves out on purpose: redirects, proxies,
cookies, decompression and netrc (`http.client` knows none of them), and the meaning of what is carried.
"""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
from collections import deque
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from blindai.client.http_message import AnswerBody, outgoing
from blindai.client.transport import (
    CHUNK_BYTES,
    MAX_IDLE_S,
    PINNED_VERSION,
    cannot_connect,
    check_pins,
    connection_lost,
    make_tls_context,
    not_http,
    spki_digest,
)
from blindai.errors import ChannelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

    from blindai.client.http_message import Chunk, Outgoing
    from blindai.client.transport import HttpRequest, ServerUrl
    from blindai.client.transport import HttpResponse as Answer

MAX_IDLE_CONNECTIONS = 64
_ONE_RECORD_BYTES = 16 * 1024


class _Patience:
    """How long one exchange may take: each step on the network, and all of them together."""

    def __init__(self, request: HttpRequest) -> None:
        self._step_s = request.timeout_s
        self._ends_s = None if request.deadline_s is None else monotonic() + request.deadline_s

    def step_s(self) -> float:
        """Seconds for the next step; `TimeoutError` if none are left."""
        if self._ends_s is None:
            return self._step_s
        left_s = self._ends_s - monotonic()
        if left_s <= 0:
            raise TimeoutError("the exchange took too long")
        return min(self._step_s, left_s)


class _Reader(io.RawIOBase):
    """What `http.client` reads an answer from: patience is looked up before each read, since bytes may drip."""

    def __init__(self, sock: socket.socket, patience: _Patience) -> None:
        self._sock, self._patience = sock, patience
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read once from the socket."""
        self._sock.settimeout(self._patience.step_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Close the socket's file; the socket itself too if that was closed before."""
        self._raw.close()
        super().close()


class _Connection(HTTPConnection):
    """`http.client`'s connection, plain or TLS, whose head leaves together with a small first piece of the body."""

    def __init__(self, url: ServerUrl, context: ssl.SSLContext | None, patience: _Patience) -> None:
        super().__init__(url.host, url.port, timeout=patience.step_s())
        self._url = url
        self.patience = patience
        self._tls = context
        self._first: Chunk = b""
        self.idle_since = 0.0
        self._shown: bytes | None = None
        try:
            self.connect()
        except OSError as error:
            self.close()
            raise cannot_connect(url, error) from error

    def connect(self) -> None:
        """Open the socket (`http.client` sets TCP_NODELAY) and shake hands."""
        super().connect()
        self.sock.settimeout(self.patience.step_s())
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)

    @property
    def shown_key(self) -> bytes | None:
        """The public key that the server proved in the handshake; None outside TLS 1.3, where we rely on none."""
        if self._shown is None and isinstance(self.sock, ssl.SSLSocket) and self.sock.version() == PINNED_VERSION:
            self._shown = spki_digest(self.sock.getpeercert(binary_form=True))
        return self._shown

    def response_class(self, sock: socket.socket, *args: Any, **options: Any) -> HTTPResponse:  # type: ignore[override]
        """What `getresponse` makes: a response that reads with our patience."""
        response = HTTPResponse(sock, *args, **options)
        response.fp.close()
        response.fp = io.BufferedReader(_Reader(sock, self.patience))
        return response

    def start(self, request: HttpRequest, out: Outgoing, first: Chunk) -> bool:
        """Send the head and the first piece of the body; False as in `send_piece`."""
        self._first = first
        self.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in out.headers:
            self.putheader(name, value)
        if out.is_chunked:
            self.putheader("Transfer-Encoding", "chunked")
        try:
            self.endheaders()
        except OSError as error:
            return self._may_have_answered(error)
        return True

    def send(self, data: Chunk) -> None:  # type: ignore[override]  # narrower: `endheaders` passes the head
        """Called by `endheaders`: one TLS record and one packet for a small request, instead of two."""
        joined = len(self._first) <= _ONE_RECORD_BYTES
        self.sock.settimeout(self.patience.step_s())
        self.sock.sendall(b"".join((data, self._first)) if joined else data)
        if not joined:
            self.sock.sendall(self._first)

    def send_piece(self, data: Chunk) -> bool:
        """Send more of the body; False if the server listens no longer, but may have said why.

        Raises:
            ConnectionLostError: the connection broke or stands still, and no answer waits.
        """
        try:
            self.sock.settimeout(self.patience.step_s())
            self.sock.sendall(data)
        except OSError as error:
            return self._may_have_answered(error)
        return True

    def _may_have_answered(self, error: OSError) -> bool:
        if self.sock is None or not _is_readable(self.sock):
            raise connection_lost(self._url, error) from error
        return False

    def is_usable(self) -> bool:
        """Whether a request may go out on it: what is readable now is an end, or an answer that nobody asked for."""
        return self.sock is not None and monotonic() - self.idle_since < MAX_IDLE_S and not _is_readable(self.sock)

    def forget(self) -> None:
        """Give up our descriptor of the parent process's connection, with no word (close_notify) to the server."""
        if self.sock is not None:
            socket.close(self.sock.detach())
            self.sock = None


def _is_readable(sock: socket.socket) -> bool:
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    if hasattr(select, "poll"):  # select() refuses descriptors above 1023; Windows has no poll and no such limit
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        return bool(poller.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


def _framed(out: Outgoing) -> Iterator[Chunk]:
    if not out.is_chunked:
        yield from out.pieces
        return
    for piece in out.pieces:
        yield b"".join((b"%x\r\n" % len(piece), piece, b"\r\n"))
    yield b"0\r\n\r\n"


class SyncTransport:
    """Sends requests to one server, each on a connection of its own while it lasts; threads may share it."""

    def __init__(self, url: ServerUrl, *, certificate: str | os.PathLike[str] | None = None) -> None:
        self._url = url
        self._context = make_tls_context(certificate) if url.scheme == "https" else None
        self._closed = False
        self._start_pool()

    def _start_pool(self) -> None:
        self._process, self._lock = os.getpid(), Lock()
        self._idle: deque[_Connection] = deque()

    def send(self, request: HttpRequest) -> Answer:
        """Send one request and take its answer.

        If the server answers and hangs up before it has the whole body, that answer is returned where the platform
        still hands it over (Linux does).

        Raises:
            ConnectionLostError: the server cannot be reached, or the connection broke, stood still or took too long.
            ChannelError: the answer is too large, or not plain HTTP/1.1.
        """
        patience = _Patience(request)
        out = outgoing(self._url, request)
        connection = self._take(patience)
        is_reusable = False
        try:
            if request.pins is not None:
                check_pins(self._url, request, connection.shown_key)
            sent_whole = self._write(connection, request, out)
            answer = self._read(connection, request)
            is_reusable = sent_whole and connection.sock is not None
        finally:
            if is_reusable:
                self._put_back(connection)
            else:
                connection.close()
        return answer

    def close(self) -> None:
        """Close what is idle now, and what is in use when its request ends."""
        self._forget_inherited()
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
        for connection in idle:
            connection.close()

    def _take(self, patience: _Patience) -> _Connection:
        self._forget_inherited()
        while True:
            with self._lock:
                if self._closed:
                    raise ChannelError("the client is closed", hint="make a new one")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return _Connection(self._url, self._context, patience)
            if connection.is_usable():
                connection.patience = patience
                return connection
            connection.close()

    def _put_back(self, connection: _Connection) -> None:
        connection.idle_since = monotonic()
        with self._lock:
            has_room = not self._closed and len(self._idle) < MAX_IDLE_CONNECTIONS
            if has_room:
                self._idle.append(connection)
        if not has_room:
            connection.close()

    def _forget_inherited(self) -> None:
        """In a forked child: the parent's connections are not ours to use or end, and its lock may be held forever."""
        if os.getpid() != self._process:
            inherited = self._idle
            self._start_pool()
            for connection in inherited:
                connection.forget()

    def _write(self, connection: _Connection, request: HttpRequest, out: Outgoing) -> bool:
        """Send the request; False if the server stopped listening. Only the caller's own errors pass through."""
        if out.whole is not None:
            return connection.start(request, out, out.whole)
        pieces = _framed(out)
        return connection.start(request, out, next(pieces)) and all(map(connection.send_piece, pieces))

    def _read(self, connection: _Connection, request: HttpRequest) -> Answer:
        try:
            response = connection.getresponse()
        except RemoteDisconnected as error:
            raise connection_lost(self._url, error) from error
        except HTTPException as error:
            raise not_http(self._url, error) from error
        except OSError as error:
            raise connection_lost(self._url, error) from error
        with closing(response):
            body = AnswerBody(request, response.status, response.getheaders())
            while data := self._some(response):
                body.feed(data)
            return body.response()

    def _some(self, response: HTTPResponse) -> bytes:
        """What has arrived, at most 256 KiB; empty at the end."""
        try:
            return response.read1(CHUNK_BYTES)
        except (OSError, IncompleteRead) as error:
            raise connection_lost(self._url, error) from error
        except (HTTPException, ValueError) as error:
            raise not_http(self._url, error) from error
