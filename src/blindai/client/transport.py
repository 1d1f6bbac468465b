"""What the client asks of an HTTP connection and gets back, whoever moves the bytes; nothing here opens a socket.

`http_sync` and `http_async` share these types, TLS without trust, and the wording of failures; `http_message` says what
goes on the wire. Why two libraries: docs/decisions/0002-client-transport.md. Leaves out every trust decision: a
transport carries bytes that protect themselves (docs/spec/sealed.md).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blindai.errors import ChannelError, ConnectionLostError, InvalidInputError, PeerKeyMismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEFAULT_PORT = 50051
PINNED_VERSION = "TLSv1.3"
CHUNK_BYTES = 256 * 1024
MAX_REFUSAL_BYTES = 64 * 1024
MAX_IDLE_S = 50.0  # below the server's 75 s and most proxies' 60 s, so that idle connections end on our side
_URL = re.compile(
    r"(?:([Hh][Tt]{2}[Pp][Ss]?)://)?(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z][\w.-]*)(?::([0-9]{1,5}))?/?", re.ASCII
)
UNKNOWN_OUTCOME = "it is not known whether the request ran: send it again only if running it twice does no harm"


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
        content_length: bytes that an iterable yields, if known; a long one is sent in HTTP chunks without it.
        on_data: gets each piece of the body of a 200 answer as it arrives; its exceptions reach the caller unchanged.
        max_body_bytes: a larger answer is refused; one with another status than 200 may have 64 KiB at most.
        timeout_s: patience with connecting, and with each read or write of at most 256 KiB.
        deadline_s: patience with the whole exchange, however steadily its bytes drip; None has no end.
        pins: SHA-256 of the public keys (SPKI), one of which the server must show before a byte of this leaves it;
            None accepts any, and is for what protects itself.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: Iterable[bytes] | bytes | None = field(default=None, repr=False)
    content_length: int | None = None
    on_data: Callable[[bytes], None] | None = None
    max_body_bytes: int
    timeout_s: float
    deadline_s: float | None = None
    pins: tuple[bytes, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """One answer: status, headers by lower-case name, and the body unless `on_data` took it."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def make_tls_context(certificate: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """TLS that hides traffic from onlookers and proves nothing; who pins keys looks at them (`check_pins`).

    Who answers is proven by the attested keys inside the sealed messages; whoever ends TLS (a proxy, a load balancer)
    need not be trusted. Checking certificates would suggest otherwise, and let certificate stores and their environment
    variables decide whether the client works.

    Args:
        certificate: PEM file; TLS must then show a certificate that stands in it, or one that such a one signed. No
            store and no environment variable adds to it or takes its place.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidInputError: it holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # what some load balancers still speak; 1.3 is taken where offered
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        _pin(context, certificate)
    return context


def _pin(context: ssl.SSLContext, certificate: str | os.PathLike[str]) -> None:
    try:
        context.load_verify_locations(cafile=certificate)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no certificate file {os.fspath(certificate)!r}") from None
    except (ssl.SSLError, OSError):
        raise InvalidInputError(
            f"{os.fspath(certificate)!r} holds no certificate", hint="give a PEM file: -----BEGIN CERTIFICATE-----"
        ) from None
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own will do: it need not be a CA's


def spki_digest(certificate: bytes | None) -> bytes | None:
    """SHA-256 of the public key in a certificate (DER), whose holder TLS 1.3 has just proven; None if there is none."""
    if not certificate:
        return None
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def check_pins(url: ServerUrl, request: HttpRequest, shown: bytes | None) -> None:
    """Called after the handshake and before anything of a request is written.

    Raises:
        PeerKeyMismatchError: the server shows another key than the attested ones.
    """
    if request.pins is not None and shown not in request.pins:
        raise PeerKeyMismatchError(
            f"{url} does not hold the TLS key that was attested; nothing was sent",
            hint="something between ends TLS: pinned TLS needs a path that does not, the sealed door goes through any",
        )


def cannot_connect(url: ServerUrl, cause: BaseException) -> ConnectionLostError:
    """Word a failure before anything of the request was sent."""
    hint = "check host and port, and what lies between"
    if isinstance(cause, ConnectionRefusedError) or getattr(cause, "errno", None) == errno.ECONNREFUSED:
        hint = "is the server running? start one with `blindai serve --simulation`"
    elif isinstance(cause, ssl.SSLCertVerificationError):
        hint = "the server shows another certificate than the one you gave; one that is new since it started again?"
    elif isinstance(cause, ssl.SSLError):
        hint = "does the server speak TLS on this port? write http:// for one that does not"
    return ConnectionLostError(f"cannot connect to {url} ({type(cause).__name__})", hint=hint)


def connection_lost(url: ServerUrl, cause: BaseException) -> ConnectionLostError:
    """Word a failure after the request began to leave."""
    event = "stands still" if isinstance(cause, TimeoutError) else "broke"
    return ConnectionLostError(f"the connection to {url} {event} ({type(cause).__name__})", hint=UNKNOWN_OUTCOME)


def not_http(url: ServerUrl, cause: BaseException) -> ChannelError:
    """What answers does not speak HTTP/1.1."""
    hint = "is this the port of a BlindAI server, and https or http as it should be?"
    return ChannelError(f"{url} does not answer in HTTP/1.1 ({type(cause).__name__})", hint=hint)
