"""Counts leave for the operator's collector and for nowhere else, and not at all if the variable says so."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fakes.collector import SOON_S, collecting

import blindai
from blindai.errors import InvalidSettingsError
from blindai.server.metrics import DOORS, GAUGES, KINDS, OUTCOMES, TOTALS, Metrics
from blindai.server.settings import DISABLE_TELEMETRY, Settings, in_effect
from blindai.server.telemetry import otlp_document, sent_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.collector import Collector

FAMILIES = {
    "blindai_requests",
    "blindai_failures",
    "blindai_attestations",
    "blindai_worker_restarts",
    "blindai_request_seconds",
    "blindai_batch_size",
    *GAUGES,
    *TOTALS,
}
LABELS = {"door": set(DOORS), "outcome": set(OUTCOMES), "kind": set(KINDS)}
WITH_A_TYPO_OR_SECRET = (
    "collector:4318", "ftp://collector/", "https://", "http://user:key@collector/", "http://collector/?key=1",
    "http://collector/#here", "http://collector:0/", "http://collector:99999/", "http://colléctor/", "http://a b/", "",
)  # fmt: skip


def families(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of a document by name, after everything around them was checked to be what may be sent."""
    (described,) = document["resourceMetrics"]
    assert {entry["key"] for entry in described["resource"]["attributes"]} == {"service.name", "service.instance.id"}
    (scope,) = described["scopeMetrics"]
    assert scope["scope"] == {"name": "blindai"}
    assert set(described) == {"resource", "scopeMetrics"}
    assert set(document) == {"resourceMetrics"}
    return {family["name"]: family for family in scope["metrics"]}


def points(family: dict[str, Any]) -> list[dict[str, Any]]:
    (kind,) = set(family) - {"name", "description"}
    found: list[dict[str, Any]] = family[kind]["dataPoints"]
    return found


@contextlib.contextmanager
def server(tmp_path: Path, endpoint: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    config = tmp_path / "blindai.toml"
    config.write_text(f'simulation = true\nport = 0\ntelemetry_endpoint = "{endpoint}"\n')
    environment = {name: value for name, value in os.environ.items() if name != DISABLE_TELEMETRY}
    with subprocess.Popen(
        [sys.executable, "-m", "blindai.cli.main", "serve", "--config", str(config)],
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def use_and_stop(process: subprocess.Popen[str]) -> bool:
    """Attest, send something, and stop the server; what its attested policy says of telemetry."""
    assert process.stdout is not None
    url = process.stdout.readline().split()[1]
    with blindai.connect(url, insecure_simulation=True) as client:
        assert client.models() == ()
        said = client.attestation.keyset.runtime.telemetry
    process.terminate()
    assert process.wait(SOON_S) == 0
    return said


def all_of(collector: Collector) -> list[dict[str, Any]]:
    return [collector.next() for _ in range(collector.received.qsize())]


@pytest.mark.network
def test_a_collector_gets_names_and_labels_of_the_list_at_start_and_at_the_end(tmp_path: Path) -> None:
    with collecting() as collector, server(tmp_path, collector.url) as process:
        first = families(collector.next())
        assert use_and_stop(process) is True
        last = families(all_of(collector)[-1])
    for found in (first, last):
        assert set(found) <= FAMILIES
        labels = [
            entry for family in found.values() for point in points(family) for entry in point.get("attributes", ())
        ]
        assert labels
        for entry in labels:
            assert entry["value"]["stringValue"] in LABELS[entry["key"]]
    assert GAUGES.keys() | TOTALS.keys() <= set(last)
    counted = {str(point["attributes"]): point["asDouble"] for point in points(last["blindai_requests"])}
    assert sum(counted.values()) == 1
    assert sum(point["asDouble"] for point in points(first["blindai_requests"])) == 0


@pytest.mark.network
def test_the_variable_switches_it_off_and_the_attested_policy_says_so(tmp_path: Path) -> None:
    with collecting() as collector, server(tmp_path, collector.url, **{DISABLE_TELEMETRY: "1"}) as process:
        assert use_and_stop(process) is False
        assert collector.connections == 0


def test_whatever_the_variable_holds_switches_off_and_nothing_is_sent_by_default() -> None:
    asked = Settings(simulation=True, telemetry_endpoint="https://collector.example/v1/metrics")
    assert asked.runtime_policy().telemetry is True
    assert in_effect(asked, {}) == asked == in_effect(asked, {DISABLE_TELEMETRY: ""})
    for value in ("1", "true", "0"):
        switched_off = in_effect(asked, {DISABLE_TELEMETRY: value})
        assert switched_off == Settings(simulation=True)
        assert switched_off.runtime_policy().telemetry is False


@pytest.mark.network
async def test_a_collector_that_refuses_or_redirects_costs_one_line_and_is_not_followed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with collecting() as elsewhere, collecting(307, elsewhere.url) as collector:
        async with sent_to(collector.url, Metrics(), "s"):
            pass
        collector.received.get(timeout=10)  # it may answer before it notes what it got
        assert elsewhere.connections == 0
    assert caplog.messages == ["telemetry could not be sent: HTTPException"]
    async with sent_to(collector.url, Metrics(), "s"):  # nobody listens there any more
        pass
    assert caplog.messages[1:] == ["telemetry could not be sent: ConnectionRefusedError"]


def test_histograms_count_between_bounds_and_integers_of_64_bits_are_strings() -> None:
    metrics = Metrics()
    for size in (1, 1, 3, 1000):
        metrics.batch_sizes.observe(size)
    document = otlp_document(metrics, {"service.name": "s", "service.instance.id": "1"}, began_ns=5, now_ns=7)
    (point,) = points(families(json.loads(document))["blindai_batch_size"])
    assert point == {
        "startTimeUnixNano": "5",
        "timeUnixNano": "7",
        "count": "4",
        "sum": 1005.0,
        "bucketCounts": ["2", "0", "1", "0", "0", "0", "0", "1"],
        "explicitBounds": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
    }


@pytest.mark.parametrize("endpoint", WITH_A_TYPO_OR_SECRET)
def test_an_endpoint_is_a_plain_url_without_anything_secret(endpoint: str) -> None:
    with pytest.raises(InvalidSettingsError, match="telemetry_endpoint"):
        Settings(simulation=True, telemetry_endpoint=endpoint).check()
