"""A collector of OpenTelemetry metrics at the far end of the network: it keeps what comes, and answers as told."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON_S = 30.0


@dataclass(slots=True, kw_only=True)
class Collector:
    """What came.

    Attributes:
        url: where it listens.
        connections: how often somebody connected, whether or not anything was sent.
        received: headers and documents, in order.
    """

    url: str = ""
    connections: int = 0
    received: queue.Queue[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=queue.Queue)

    def next(self) -> dict[str, Any]:
        """The next document, once it is there."""
        headers, document = self.received.get(timeout=SOON_S)
        assert headers["Content-Type"] == "application/json"
        return document


@contextlib.contextmanager
def collecting(status: int = 200, location: str = "") -> Iterator[Collector]:
    """A collector on a free port of loopback, until the end of the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server looks for
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            collector.received.put((dict(self.headers), json.loads(body)))

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def get_request(self) -> Any:
            collector.connections += 1
            return super().get_request()

    with Server(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}/v1/metrics"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
