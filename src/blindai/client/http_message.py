"""What may stand on the wire, for both transports: how a request is framed, and what an answer may look like.

Stricter than HTTP/1.1 asks for, since nothing legitimate needs more: every answer says its length once, and is not
encoded. Leaves out: sockets, and what the bodies mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from blindai import __version__
from blindai.client.transport import CHUNK_BYTES, MAX_REFUSAL_BYTES, UNKNOWN_OUTCOME, HttpResponse
from blindai.errors import ChannelError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blindai.client.transport import HttpRequest, ServerUrl

    Chunk = bytes | memoryview

SMALL_BYTES = 64 * 1024  # what asyncio's transports take without making the writer wait
_PATH = re.compile(r"/[!-\"$-~]*")  # visible ASCII without `#`
_HEADER = re.compile(r"[A-Za-z0-9-]+\n[ -~]*")  # name, end of name, value
_LENGTH = re.compile(r"[0-9]{1,18}")
_OK, _NO_CONTENT, _NOT_MODIFIED = 200, 204, 304


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request ready to be written.

    Attributes:
        headers: all of them but `Transfer-Encoding`.
        whole: the body if it is small, however it was given: one write, and no HTTP chunks.
        pieces: otherwise the body in pieces of at most 256 KiB; reading them runs the caller's iterable.
        is_chunked: whether the pieces go out in HTTP chunks, their length being unknown.
    """

    headers: list[tuple[str, str]]
    whole: bytes | None
    pieces: Iterator[Chunk]
    is_chunked: bool


def outgoing(url: ServerUrl, request: HttpRequest) -> Outgoing:
    """Frame a request. The first bytes of a streamed body are read here, before a connection is taken.

    Raises:
        ChannelError: the head could not be sent as it is, or a small body has another length than announced.
    """
    if not _PATH.fullmatch(request.path) or not all(_HEADER.fullmatch("\n".join(pair)) for pair in request.headers):
        raise ChannelError("the request's path or headers hold characters that HTTP cannot carry")
    headers = [("Host", url.authority), ("User-Agent", f"blindai/{__version__}"), ("Accept-Encoding", "identity")]
    headers += request.headers
    pieces = _pieces(request)
    first, second = next(pieces, b""), next(pieces, None)
    whole = bytes(first) if second is None and len(first) <= SMALL_BYTES else None
    length = request.content_length if whole is None else len(whole)
    if isinstance(request.body, bytes):
        length = len(request.body)
    if length is not None and (request.body is not None or request.method not in {"GET", "HEAD"}):
        headers.append(("Content-Length", str(length)))
    rest = chain((first,) if second is None else (first, second), pieces)
    return Outgoing(headers=headers, whole=whole, pieces=rest, is_chunked=length is None)


def _pieces(request: HttpRequest) -> Iterator[Chunk]:
    """The body in pieces of at most 256 KiB, small ones joined: each costs a TLS record and a system call.

    Raises:
        ChannelError: an iterable yields another number of bytes than announced.
    """
    small: list[bytes] = []
    sent = small_bytes = 0
    for chunk in (request.body,) if isinstance(request.body, bytes) else request.body or ():
        sent += len(chunk)
        if request.content_length is not None and sent > request.content_length:
            break
        if small_bytes + len(chunk) > SMALL_BYTES:
            yield from (b"".join(small),) if small else ()
            small, small_bytes = [], 0
        if len(chunk) > SMALL_BYTES:
            yield from (memoryview(chunk)[at : at + CHUNK_BYTES] for at in range(0, len(chunk), CHUNK_BYTES))
        else:
            small.append(chunk)
            small_bytes += len(chunk)
    if request.content_length not in {None, sent}:
        raise ChannelError(f"the request's body has {sent} bytes or more, and {request.content_length} were announced")
    yield from (b"".join(small),) if small_bytes else ()


class AnswerBody:
    """Takes an answer's body piece by piece and holds it to the rules.

    Raises:
        ChannelError: encoded, larger than allowed, or framed in a way that can be read in two ways.
        ConnectionLostError: no length is declared, so an early end could not be told from the end.
    """

    __slots__ = ("_collected", "_expected", "_headers", "_max_bytes", "_on_data", "_received", "_request", "_status")

    def __init__(self, request: HttpRequest, status: int, headers: Iterable[tuple[str, str]]) -> None:
        self._request, self._status, self._headers = request, status, _joined(headers)
        self._on_data = request.on_data if status == _OK else None
        # Anybody on the path can write a refusal, and there is nothing in it to read.
        self._max_bytes = request.max_body_bytes if status == _OK else min(request.max_body_bytes, MAX_REFUSAL_BYTES)
        self._collected = bytearray()
        self._received = 0
        if self._headers.get("content-encoding", "identity").lower() != "identity":
            raise ChannelError(f"the answer (status {status}) is compressed, which was not asked for")
        self._expected = self._declared_bytes()
        self._check_size(self._expected or 0)

    def _declared_bytes(self) -> int | None:
        length, coding = self._headers.get("content-length"), self._headers.get("transfer-encoding")
        is_plain = length is None or (coding is None and _LENGTH.fullmatch(length) is not None)
        if self._status < _OK or not is_plain:
            raise ChannelError(f"the answer's framing (status {self._status}) is not plain HTTP/1.1")
        if self._request.method == "HEAD" or self._status in {_NO_CONTENT, _NOT_MODIFIED}:
            return 0
        if length is None and (coding or "").lower() != "chunked":
            raise ConnectionLostError("the answer ended before it had said its length", hint=UNKNOWN_OUTCOME)
        return None if length is None else int(length)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ChannelError(f"the answer (status {self._status}) passes {self._max_bytes} bytes")

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._received += len(data)
        self._check_size(self._received)
        if self._on_data is None:
            self._collected += data
        else:
            self._on_data(data)

    def response(self) -> HttpResponse:
        """The answer, now that its body has ended; `ConnectionLostError` if it is shorter than declared."""
        if self._expected is not None and self._received != self._expected:
            found = f"{self._received} of {self._expected} bytes arrived"
            raise ConnectionLostError(f"the connection ended inside an answer: {found}", hint=UNKNOWN_OUTCOME)
        return HttpResponse(status=self._status, headers=self._headers, body=bytes(self._collected))


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined
