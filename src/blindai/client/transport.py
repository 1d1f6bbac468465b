"""What the client asks of an HTTP connection and gets back, whoever moves the bytes; nothing here opens a socket.

`http_sync` and `http_async` share these types, the rules for an answer and the wording of failures. Why two libraries:
docs/decisions/0002-client-transport.md. Leaves out every trust decision: a transport carries bytes that protect
themselves (docs/spec/sealed.md).
"""

from __future__ import annotations

import errno
import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blindai import __version__
from blindai.errors import ChannelError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Chunk = bytes | memoryview

DEFAULT_PORT = 50051
CHUNK_BYTES = 256 * 1024
MAX_IDLE_S = 4.0  # below uvicorn's 5 s, so that idle connections end on our side and not while we write
_URL = re.compile(
    r"(?:([Hh][Tt]{2}[Pp][Ss]?)://)?(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z][\w.-]*)(?::([0-9]{1,5}))?/?", re.ASCII
)
_PATH = re.compile(r"/[!-\"$-~]*")  # visible ASCII without `#`
_HEADER = re.compile(r"[A-Za-z0-9-]+\n[ -~]*")  # name, end of name, value
_LENGTH = re.compile(r"[0-9]{1,18}")
_OK, _NO_CONTENT, _NOT_MODIFIED = 200, 204, 304
_UNKNOWN_OUTCOME = "it is not known whether the request ran: send it again only if running it twice does no harm"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUrl:
    """Where a server listens: `https` or `http` (neither is trusted), name or address without brackets, TCP port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """The URL without a path."""
        return f"{self.scheme}://{self.authority}"


def parse_server_url(text: str) -> ServerUrl:
    """Read `host`, `host:port`, `[IPv6]:port` or these after `https://` or `http://`; https and 50051 if not said.

    Raises:
        ChannelError: anything else. The text is not repeated, since it may hold a password.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise ChannelError(f"not a server's address: {_what_is_wrong(text)}", hint="write host:port or https://host")
    scheme, host, port = match[1] or "https", match[2].strip("[]"), int(match[3] or DEFAULT_PORT)
    if not 0 < port < 1 << 16:
        raise ChannelError(f"not a server's address: port {port} is not between 1 and 65535")
    return ServerUrl(scheme=scheme.lower(), host=host.lower(), port=port)


def _what_is_wrong(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() not in {"https", "http"}:
        return "the scheme must be https or http"
    rest = (rest if separator else text).removesuffix("/")
    for mark, part in (("@", "user information"), ("?", "a query"), ("#", "a fragment"), ("/", "a path")):
        if mark in rest:
            return f"{part} has no place in it"
    if rest.count(":") > 1:
        return "an IPv6 address stands in brackets, as in [::1]:50051"
    return "host and port cannot be told"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request.

    Attributes:
        method: HTTP method, in capitals.
        path: path and query, percent-encoded.
        headers: beside `Host`, `User-Agent`, `Accept-Encoding` and the body's framing, which the transport writes.
        body: whole, or an iterable of pieces, streamed; its exceptions reach the caller unchanged.
        content_length: bytes that an iterable yields, if known; without it the body is sent in HTTP chunks.
        on_data: gets each piece of the body of a 200 answer as it arrives; its exceptions reach the caller unchanged.
        max_body_bytes: a larger answer is refused.
        timeout_s: patience with connecting, and with each read or write of at most 256 KiB.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: Iterable[bytes] | bytes | None = field(default=None, repr=False)
    content_length: int | None = None
    on_data: Callable[[bytes], None] | None = None
    max_body_bytes: int
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """One answer: status, headers by lower-case name, and the body unless `on_data` took it."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def make_tls_context() -> ssl.SSLContext:
    """TLS that hides traffic from onlookers and proves nothing.

    Who answers is proven by the attested keys inside the sealed messages; whoever ends TLS (a proxy, a load balancer)
    need not be trusted. Checking certificates would suggest otherwise, and let certificate stores and their environment
    variables decide whether the client works.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # what some load balancers still speak; 1.3 is taken where offered
    context.set_alpn_protocols(["http/1.1"])
    return context


def request_headers(url: ServerUrl, request: HttpRequest) -> list[tuple[str, str]]:
    """Every header but `Transfer-Encoding`, which follows from `is_chunked`.

    Raises:
        ChannelError: the path could not be sent as it is.
    """
    if not _PATH.fullmatch(request.path) or not all(_HEADER.fullmatch("\n".join(pair)) for pair in request.headers):
        raise ChannelError("the request's path or headers hold characters that HTTP cannot carry")
    headers = [("Host", url.authority), ("User-Agent", f"blindai/{__version__}"), ("Accept-Encoding", "identity")]
    headers += request.headers
    if isinstance(request.body, bytes):
        headers.append(("Content-Length", str(len(request.body))))
    elif request.body is not None and request.content_length is not None:
        headers.append(("Content-Length", str(request.content_length)))
    elif request.body is None and request.method not in {"GET", "HEAD"}:
        headers.append(("Content-Length", "0"))
    return headers


def is_chunked(request: HttpRequest) -> bool:
    """Whether the body goes out in HTTP chunks, its length being unknown."""
    return request.body is not None and not isinstance(request.body, bytes) and request.content_length is None


def body_pieces(request: HttpRequest) -> Iterator[Chunk]:
    """The body in non-empty pieces of at most 256 KiB.

    Raises:
        ChannelError: an iterable yields another number of bytes than announced.
    """
    sent = 0
    for chunk in (request.body,) if isinstance(request.body, bytes) else request.body or ():
        sent += len(chunk)
        if request.content_length is not None and sent > request.content_length:
            break
        if len(chunk) <= CHUNK_BYTES:
            yield from (chunk,) if chunk else ()
        else:
            view = memoryview(chunk)
            yield from (view[at : at + CHUNK_BYTES] for at in range(0, len(view), CHUNK_BYTES))
    if request.content_length not in {None, sent}:
        raise ChannelError(f"the request's body has {sent} bytes or more, and {request.content_length} were announced")


class AnswerBody:
    """Takes an answer's body piece by piece and holds it to the rules.

    Raises:
        ChannelError: encoded, larger than allowed, or framed in a way that can be read in two ways.
        ConnectionLostError: no length is declared, so an early end could not be told from the end.
    """

    __slots__ = ("_collected", "_expected", "_headers", "_on_data", "_received", "_request", "_status")

    def __init__(self, request: HttpRequest, status: int, headers: Iterable[tuple[str, str]]) -> None:
        self._request, self._status, self._headers = request, status, _joined(headers)
        self._on_data = request.on_data if status == _OK else None
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
            raise ConnectionLostError("the answer ended before it had said its length", hint=_UNKNOWN_OUTCOME)
        return None if length is None else int(length)

    def _check_size(self, size: int) -> None:
        if size > self._request.max_body_bytes:
            raise ChannelError(f"the answer (status {self._status}) passes {self._request.max_body_bytes} bytes")

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
            raise ConnectionLostError(f"the connection ended inside an answer: {found}", hint=_UNKNOWN_OUTCOME)
        return HttpResponse(status=self._status, headers=self._headers, body=bytes(self._collected))


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined


def cannot_connect(url: ServerUrl, cause: BaseException) -> ConnectionLostError:
    """Word a failure before anything of the request was sent."""
    hint = "check host and port, and what lies between"
    if isinstance(cause, ConnectionRefusedError) or getattr(cause, "errno", None) == errno.ECONNREFUSED:
        hint = "is the server running? start one with `blindai serve --simulation`"
    elif isinstance(cause, ssl.SSLError):
        hint = "does the server speak TLS on this port? write http:// for one that does not"
    return ConnectionLostError(f"cannot connect to {url} ({type(cause).__name__})", hint=hint)


def connection_lost(url: ServerUrl, cause: BaseException) -> ConnectionLostError:
    """Word a failure after the request began to leave."""
    event = "stands still" if isinstance(cause, TimeoutError) else "broke"
    return ConnectionLostError(f"the connection to {url} {event} ({type(cause).__name__})", hint=_UNKNOWN_OUTCOME)


def not_http(url: ServerUrl, cause: BaseException) -> ChannelError:
    """What answers does not speak HTTP/1.1."""
    hint = "is this the port of a BlindAI server, and https or http as it should be?"
    return ChannelError(f"{url} does not answer in HTTP/1.1 ({type(cause).__name__})", hint=hint)
