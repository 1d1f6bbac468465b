"""What the operator can read: counts on an allow-list, over a listener of its own, and nothing of anybody's data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from fakes.network import Sent, call_handler

from blindai.server.metrics import DOORS, GAUGES, KINDS, OUTCOMES, TOTALS, Metrics
from blindai.server.metrics_listener import metrics_server
from blindai.server.readiness import Readiness

if TYPE_CHECKING:
    from fakes.network import Answered

NAMES = {
    "blindai_requests_total",
    "blindai_failures_total",
    "blindai_attestations_total",
    "blindai_worker_restarts_total",
    *(f"blindai_request_seconds_{part}" for part in ("bucket", "count", "sum")),
    *(f"blindai_batch_size_{part}" for part in ("bucket", "count", "sum")),
    *GAUGES,
    *(f"{name}_total" for name in TOTALS),
}
LABELS = {"door": set(DOORS), "outcome": set(OUTCOMES), "kind": set(KINDS)}


def read(metrics: Metrics) -> dict[str, float]:
    lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def asked(method: str, path: str, readiness: Readiness | None = None) -> Answered:
    handler = metrics_server(Metrics(), readiness or Readiness()).handler
    return await call_handler(handler, Sent(method=method, path=path, headers=(), body=b""))


def test_requests_are_counted_by_door_and_outcome_and_their_durations_in_few_buckets() -> None:
    metrics = Metrics()
    for status, duration_s in ((200, 0.0005), (404, 0.003), (500, 99.0)):
        metrics.answered("sealed", status, duration_s)
    metrics.answered("tls", 200, 0.001)
    found = read(metrics)
    assert found['blindai_requests_total{door="sealed",outcome="ok"}'] == 1
    assert found['blindai_requests_total{door="sealed",outcome="client_error"}'] == 1
    assert found['blindai_requests_total{door="sealed",outcome="server_error"}'] == 1
    assert found['blindai_requests_total{door="tls",outcome="ok"}'] == 1
    assert found['blindai_request_seconds_bucket{le="0.001"}'] == 2
    assert found['blindai_request_seconds_bucket{le="60.0"}'] == 3
    assert found['blindai_request_seconds_bucket{le="+Inf"}'] == found["blindai_request_seconds_count"] == 4


def test_every_name_and_label_is_on_the_list_whatever_is_counted() -> None:
    metrics = Metrics()
    metrics.failed("secret words")
    metrics.failed("overloaded")
    metrics.answered("tls", 200, 1.0)
    metrics.batch_sizes.observe(3)
    for name in (*GAUGES, *TOTALS):
        metrics.read_from(name, lambda: 1.0)
    for line in read(metrics):
        name, _, labels = line.partition("{")
        assert name in NAMES
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            if label == "code":
                assert value in {"internal", "overloaded"}
            elif label != "le":
                assert value in LABELS[label]
    with pytest.raises(KeyError):
        metrics.read_from("blindai_model_names", lambda: 1.0)


async def test_the_listener_serves_metrics_and_health_and_nothing_else() -> None:
    answered = await asked("GET", "/metrics")
    assert answered.status == 200
    assert answered.headers["content-type"].startswith("text/plain")
    assert b"blindai_requests_total" in answered.body
    assert (await asked("GET", "/v2/health/live")).body == b'{"live":true}'
    assert (await asked("GET", "/v2/health/ready")).body == b'{"ready":true}'
    assert (await asked("POST", "/metrics")).status == 405
    for path in ("/", "/v2", "/v1/sealed", "/.well-known/blindai/attestation", "/v2/repository/index", "/metrics/x"):
        assert (await asked("GET", path)).status == 404


async def test_a_server_that_loads_or_drains_is_alive_and_not_ready() -> None:
    readiness = Readiness()
    with readiness.not_ready():
        answered = await asked("GET", "/v2/health/ready", readiness)
        assert (answered.status, answered.body) == (503, b'{"ready":false}')
        assert (await asked("GET", "/v2/health/live", readiness)).status == 200
    assert (await asked("GET", "/v2/health/ready", readiness)).status == 200
    readiness.is_draining = True
    assert (await asked("GET", "/v2/health/ready", readiness)).status == 503
