"""The operator's listener: content-free metrics and health over plain HTTP, apart from everybody's data.

It has no TLS, since it says nothing that needs hiding (metrics.py), and nobody can ask it for anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blindai.server.http_limits import HttpLimits
from blindai.server.http_request import NO_STORE
from blindai.server.http_server import HttpServer

if TYPE_CHECKING:
    from blindai.server.http_request import HttpRequest
    from blindai.server.metrics import Metrics
    from blindai.server.readiness import Readiness

METRICS_PATH = "/metrics"
_LIMITS = HttpLimits(max_connections=64, max_head_bytes=8 * 1024, head_timeout_s=10.0, idle_timeout_s=10.0)
_TEXT = (b"content-type", b"text/plain; version=1.0.0; charset=utf-8")


def metrics_server(metrics: Metrics, readiness: Readiness) -> HttpServer:
    """A server that knows three paths."""

    async def handle(request: HttpRequest) -> None:
        if request.method not in {"GET", "HEAD"}:
            await request.refuse(405, "bad_request", "only GET", (b"allow", b"GET, HEAD"))
        elif request.path == METRICS_PATH:
            await request.answer(200, metrics.text(), headers=(_TEXT, NO_STORE))
        elif not await readiness.answer(request):
            await request.refuse(404, "not_found", "there is /metrics, /v2/health/live and /v2/health/ready")

    return HttpServer(handle, _LIMITS)
