"""Vendors' services at the far end of the network: AMD's KDS, Intel's PCS or a PCCS, NVIDIA's OCSP and RIM services.

One HTTP server on loopback that answers from a table and keeps what it was asked. What it serves, tests make up.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered; `stalls_s` before the body, `cut_bytes` of it never sent, `drips_s` after each byte."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stalls_s: float = 0.0
    cut_bytes: int = 0
    drips_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class VendorServices:
    """Attributes: `url` where it listens, `replies` by path and query (a list answers in turn, its last for ever)."""

    url: str = ""
    replies: dict[str, Reply | list[Reply]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    posted: list[bytes] = field(default_factory=list)

    def reply_to(self, path: str) -> Reply:
        """The next answer for a path."""
        self.asked.append(path)
        found = self.replies.get(path, Reply(status=404))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found


@contextlib.contextmanager
def vendor_services(certificate: Path | None = None) -> Iterator[VendorServices]:
    """Such a server on a free port of loopback, until the end of the block; over TLS if given key and certificate."""
    services = VendorServices()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server looks for
            self._answer()

        def do_POST(self) -> None:
            services.posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer()

        def _answer(self) -> None:
            reply = services.reply_to(self.path)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                time.sleep(reply.stalls_s)
                sent = reply.body[: len(reply.body) - reply.cut_bytes]
                for piece in (sent[at : at + 1] for at in range(len(sent))) if reply.drips_s else (sent,):
                    self.wfile.write(piece)
                    time.sleep(reply.drips_s)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        services.url = f"http://127.0.0.1:{server.server_address[1]}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            services.url = services.url.replace("http:", "https:")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield services
        finally:
            server.shutdown()
            thread.join()
