"""Sends the counts of metrics.py to the operator's own collector, if the settings name one. By default nothing is sent.

OpenTelemetry's protocol over HTTP, in its JSON form (OTLP 1.x, metrics only), with the standard library: its SDK would
also obey a dozen variables of the environment, follow redirects and proxies, and load code that one of them names.
What is sent is what /metrics shows, the service's name, and a random number that tells two servers apart.
Leaves out: what is counted (metrics.py), and whether anything may be sent (settings.in_effect).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import secrets
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from blindai.server.log import LOG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prometheus_client.metrics_core import Metric

    from blindai.server.metrics import Metrics

EVERY_S = 60.0
_TIMEOUT_S = 5.0
_CUMULATIVE = 2  # AGGREGATION_TEMPORALITY_CUMULATIVE
_REFUSED = 300


@contextlib.asynccontextmanager
async def sent_to(endpoint: str | None, metrics: Metrics, service: str) -> AsyncIterator[None]:
    """Meanwhile the metrics are sent: at once, every minute, and at the end; never without an endpoint."""
    if endpoint is None:
        yield
        return
    sender = _Sender(endpoint, metrics, service)
    sending = asyncio.create_task(sender.run())
    try:
        yield
    finally:
        sending.cancel()
        await sender.send()


class _Sender:
    """Belongs to one event loop; only the network's part runs in a thread."""

    def __init__(self, endpoint: str, metrics: Metrics, service: str) -> None:
        self._endpoint = endpoint
        self._metrics = metrics
        self._resource = {"service.name": service, "service.instance.id": secrets.token_hex(8)}
        self._began_ns = time.time_ns()
        self._is_failing = False

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self.send()
            await asyncio.sleep(EVERY_S)

    async def send(self) -> None:
        """A collector that is away costs its operator a line in the log, and nobody anything else."""
        document = otlp_document(self._metrics, self._resource, began_ns=self._began_ns, now_ns=time.time_ns())
        try:
            await asyncio.to_thread(_post, self._endpoint, document)
            self._is_failing = False
        except (OSError, http.client.HTTPException) as error:
            if not self._is_failing:
                LOG.warning("telemetry could not be sent: %s", type(error).__name__)
            self._is_failing = True


def otlp_document(metrics: Metrics, resource: dict[str, str], *, began_ns: int, now_ns: int) -> bytes:
    """An ExportMetricsServiceRequest in OTLP's JSON, where 64-bit integers are strings."""
    times = {"startTimeUnixNano": str(began_ns), "timeUnixNano": str(now_ns)}
    families = [_family(family, times) for family in metrics.collect() if family.samples]
    scope = {"scope": {"name": "blindai"}, "metrics": families}
    described = {"resource": {"attributes": _attributes(resource)}, "scopeMetrics": [scope]}
    return json.dumps({"resourceMetrics": [described]}).encode()


def _family(family: Metric, times: dict[str, str]) -> dict[str, Any]:
    kinds = {"counter": _sum, "gauge": _gauge, "histogram": _histogram}
    return {"name": family.name, "description": family.documentation, **kinds[family.type](family, times)}


def _points(family: Metric, times: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {**times, "attributes": _attributes(sample.labels), "asDouble": float(sample.value)}
        for sample in family.samples
    ]


def _sum(family: Metric, times: dict[str, str]) -> dict[str, Any]:
    points = _points(family, times)
    return {"sum": {"dataPoints": points, "aggregationTemporality": _CUMULATIVE, "isMonotonic": True}}


def _gauge(family: Metric, times: dict[str, str]) -> dict[str, Any]:
    return {"gauge": {"dataPoints": _points(family, times)}}


def _histogram(family: Metric, times: dict[str, str]) -> dict[str, Any]:
    """Prometheus counts up to each bound, OpenTelemetry between two of them."""
    buckets = [(sample.labels["le"], int(sample.value)) for sample in family.samples if sample.name.endswith("_bucket")]
    counts = [count for _, count in buckets]
    point = {
        **times,
        "count": str(counts[-1]),
        "sum": next(float(sample.value) for sample in family.samples if sample.name.endswith("_sum")),
        "bucketCounts": [str(count - before) for before, count in zip([0, *counts], counts, strict=False)],
        "explicitBounds": [float(bound) for bound, _ in buckets[:-1]],
    }
    return {"histogram": {"dataPoints": [point], "aggregationTemporality": _CUMULATIVE}}


def _attributes(values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def _post(endpoint: str, document: bytes) -> None:
    """To this endpoint and to no other: neither redirects nor proxies are followed."""
    parts = urlsplit(endpoint)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", parts.path or "/", document, {"Content-Type": "application/json"})
        if connection.getresponse().status >= _REFUSED:
            raise http.client.HTTPException
