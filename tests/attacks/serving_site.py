"""A running server with two tenants for attacks on its HTTP, and a neighbour who goes on working meanwhile."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from conformance.server_under_test import ServerUnderTest
from e2e.tiny_models import times
from soak.soaked_server import ANY_CERTIFICATE, SoakedServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

IDLE_S = 3
MAX_BODY_BYTES = 8 * 1024 * 1024
ROW = np.array([[1, 2, 3]], np.float32)
_SETTINGS = f'log_level = "debug"\nidle_timeout_s = {IDLE_S}\nmax_body_bytes = {MAX_BODY_BYTES}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The server, and how its front door is reached without any client of ours.

    Attributes:
        raw: plain HTTPS with the key of `alpha`.
    """

    server: SoakedServer
    folder: Path
    raw: ServerUnderTest

    @property
    def authorization(self) -> str:
        """As `alpha` shows its key in clear inside TLS."""
        return f"Bearer {self.server.keys['alpha']}"

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """A request's head as it goes on the wire."""
        lines = (f"{method} {path} HTTP/1.1", "host: x", f"authorization: {self.authorization}", *headers)
        return "\r\n".join((*lines, "", "")).encode("latin-1")

    def connect(self) -> ssl.SSLSocket:
        """A TLS connection that has said nothing yet."""
        return ANY_CERTIFICATE.wrap_socket(
            socket.create_connection(("127.0.0.1", self.server.running.port), timeout=30)
        )

    def is_alive(self) -> bool:
        """Whether it answers."""
        return self.raw.ask("GET", "/v2/health/live").status == 200

    @contextlib.contextmanager
    def neighbour(self) -> Iterator[Neighbour]:
        """The other tenant works while the block runs; at its end it has had right answers only."""
        with Neighbour(self) as neighbour:
            yield neighbour
        assert not neighbour.problems, neighbour.problems
        assert neighbour.right > 0


@dataclass(slots=True)
class Neighbour:
    """Tenant `beta`: asks its model over the sealed door, one request after the other, from a thread of its own."""

    site: Site
    right: int = 0
    slowest_s: float = 0.0
    problems: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _working: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        assert self._working.wait(60), self.problems
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        try:
            with self.site.server.client("beta") as client:
                while not self._over.is_set():
                    began_s = time.monotonic()
                    if client.infer("neighbour", ROW)["y"].tolist() != (2 * ROW).tolist():
                        self.problems.append("a wrong answer")
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
                    self.right += 1
                    self._working.set()
        except Exception as error:  # noqa: BLE001  # the test says what it was
            self.problems.append(repr(error))
        finally:
            self._working.set()


@contextlib.contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """A server with a model of each tenant, whose log is quiet at the end."""
    server = SoakedServer(folder, _SETTINGS)
    authorization = {"authorization": f"Bearer {server.keys['alpha']}"}
    site = Site(server=server, folder=folder, raw=ServerUnderTest(server.running.url, headers=authorization))
    try:
        for tenant, name in (("alpha", "model"), ("beta", "neighbour")):
            with site.server.client(tenant) as client:
                client.upload_model(times(folder / f"{name}.onnx", 2.0))
        yield site
        assert site.is_alive()
    finally:
        site.server.running.stop()
    complaints = [line for line in site.server.running.log.splitlines() if "Traceback" in line or " ERROR " in line]
    assert not complaints, complaints[:10]


def infer_json(data: Any = (1.0, 2.0, 3.0), shape: Any = (1, 3), **tensor: Any) -> dict[str, Any]:
    """A request to `model`."""
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": list(shape), "data": list(data), **tensor}]}
