"""Whether the server lives, and whether it takes requests; both listeners say so alike (OIP §3.2.1)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blindai.server.http_request import JSON, NO_STORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blindai.server.http_request import HttpRequest

LIVE_PATH = "/v2/health/live"
READY_PATH = "/v2/health/ready"


@dataclass(slots=True, kw_only=True)
class Readiness:
    """Belongs to one event loop.

    Attributes:
        is_draining: the server ends; it stays not ready.
        loading: how many start-up tasks are not done.
    """

    is_draining: bool = False
    loading: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether a load balancer should send requests here."""
        return not self.is_draining and not self.loading

    @contextlib.contextmanager
    def not_ready(self) -> Iterator[None]:
        """While models load at start."""
        self.loading += 1
        try:
            yield
        finally:
            self.loading -= 1

    async def answer(self, request: HttpRequest) -> bool:
        """Answer a GET for one of the two paths; False if it is for neither."""
        if request.path == LIVE_PATH:
            await request.answer(200, b'{"live":true}', headers=(JSON, NO_STORE))
        elif request.path == READY_PATH:
            status, body = (200, b'{"ready":true}') if self.is_ready else (503, b'{"ready":false}')
            await request.answer(status, body, headers=(JSON, NO_STORE))
        else:
            return False
        return True
