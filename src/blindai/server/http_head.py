"""How the head of a request is judged, and recognised when it comes again (RFC 9112).

A client sends the same head with each of its requests: one that is equal byte for byte means the same, and need not be
parsed again if the whole request came at once. Leaves out: parsing itself (httptools, http_protocol.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import httptools

if TYPE_CHECKING:
    from blindai.server.http_request import Headers, HttpRequest

_HEAD_END = b"\r\n\r\n"


class KnownHead(NamedTuple):
    """The head of a request of HTTP/1.1 that keeps its connection, and whose body has a known length.

    Attributes:
        head: its bytes, with the empty line.
        size: of the whole request.
        method: as in `HttpRequest`.
        path: likewise.
        headers: likewise.
    """

    head: bytes
    size: int
    method: str
    path: str
    headers: Headers

    @classmethod
    def of(cls, request: HttpRequest, data: bytes, body_bytes: int) -> Self | None:
        """Of a request that was just parsed out of `data`, if that is all there is in it."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        if not request.keep_alive or request.is_http_10 or not body_bytes or len(data) - end != body_bytes:
            return None
        return cls(data[:end], len(data), request.method, request.path, request.headers)

    def begins(self, data: bytes) -> bool:
        """Whether these bytes are such a request, whole."""
        return len(data) == self.size and data.startswith(self.head)


def judge(version: str, headers: Headers, max_headers: int) -> int:
    """The status that a head is refused with, or 0: what could be read in two ways is not read at all."""
    if version not in {"1.1", "1.0"}:
        return 505
    if len(headers) > max_headers:
        return 431
    hosts = codings = 0
    for name, value in headers:
        hosts += name == b"host"
        if name == b"transfer-encoding":
            codings += 1 if value.lower() == b"chunked" else 2
    is_11 = version == "1.1"
    return 400 if hosts > 1 or (is_11 and not hosts) or codings > is_11 else 0  # RFC 9112 §3.2, §6.1


def path_of(url: bytes) -> str:
    """The target's path without its query, in any of the forms of RFC 9112 §3.2."""
    if not url.startswith(b"/") and url != b"*":
        try:
            url = httptools.parse_url(url).path or b"/"
        except httptools.HttpParserInvalidURLError:
            return "*"
    return url.partition(b"?")[0].decode("ascii", "replace")
