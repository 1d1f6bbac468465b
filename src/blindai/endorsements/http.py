"""One HTTP exchange with a vendor's service, over the standard library's `http.client`.

Stricter than a browser: no redirects, proxies or cookies; bytes and seconds are bounded. Certificates are checked,
since whoever answers could otherwise hold back the newest document and show one that is still valid.
Leaves out: when to try again (services.py), and what the bytes are (documents.py).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from blindai import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPResponse

_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What is asked.

    Attributes:
        url: absolute, `https` or `http`.
        post: the body of a POST; empty means GET.
        media_type: of the body.
        ca_file: PEM of the authorities to trust instead of the system's, for a service with a certificate of its own.
        timeout_s: for the whole exchange, in seconds.
        max_bytes: a larger answer is refused.
    """

    url: str
    post: bytes = field(default=b"", repr=False)
    media_type: str = ""
    ca_file: str | None = None
    timeout_s: float
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, headers by lower-case name, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def exchange(asked: Exchange) -> Answer:
    """Ask, and take the answer.

    Raises:
        OSError: no answer; also for TLS, a broken connection, or one that takes too long.
        ValueError: an answer that is too large, or not plain HTTP/1.1.
    """
    url = urlsplit(asked.url)
    ends_at = monotonic() + asked.timeout_s
    host, target = url.hostname or "", (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection: HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=asked.ca_file)
        connection = HTTPSConnection(host, url.port, timeout=asked.timeout_s, context=context)
    else:
        connection = HTTPConnection(host, url.port, timeout=asked.timeout_s)
    try:
        connection.request("POST" if asked.post else "GET", target, body=asked.post or None, headers=_headers(asked))
        response = connection.getresponse()
        return Answer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=_body(response, connection, ends_at, asked.max_bytes),
        )
    except HTTPException as error:
        raise ValueError(f"the answer is not plain HTTP/1.1 ({type(error).__name__})") from None
    finally:
        connection.close()


def _headers(asked: Exchange) -> dict[str, str]:
    headers = {"User-Agent": f"blindai/{__version__}", "Accept-Encoding": "identity"}
    return {**headers, "Content-Type": asked.media_type} if asked.media_type else headers


def _body(response: HTTPResponse, connection: HTTPConnection, ends_at: float, max_bytes: int) -> bytes:
    """All of it: the socket's patience is cut to what is left of the whole, since bytes may drip."""
    body = bytearray()
    while True:
        left_s = ends_at - monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer took too long")
        if connection.sock is not None:
            connection.sock.settimeout(left_s)
        piece = response.read1(_CHUNK_BYTES)
        if not piece:
            break
        body += piece
        if len(body) > max_bytes:
            raise ValueError(f"the answer passes {max_bytes} bytes")
    if response.length not in {None, 0}:
        raise ConnectionError("the answer ended before its end")
    return bytes(body)
