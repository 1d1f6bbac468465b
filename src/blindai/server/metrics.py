"""What the server counts, for its operator: an allow-list of names, none of which says anything of anybody's data.

No label names a user, a tenant or a model (their names are their owner's secret), and nothing depends on a payload but
the sizes that the network shows anyway. Counting is addition in the event loop's thread; Prometheus's types are made
when somebody asks. Leaves out: serving this (metrics_listener.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from blindai import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

DOORS = ("sealed", "tls", "grpc")
OUTCOMES = ("ok", "client_error", "server_error")
KINDS = ("fresh", "cached", "activation")
DURATIONS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
GAUGES = {
    "blindai_connections": "Connections that are open now.",
    "blindai_sessions": "Sealed sessions that are open now.",
    "blindai_workers": "Models' processes that are up now.",
    "blindai_queue_length": "Requests that wait for a model's process now.",
    "blindai_keyset_age_seconds": "Age of the epoch keyset that is published now; 0 if there is none.",
    "blindai_ready": "1 if requests are taken, 0 while models load at start or the server drains.",
}
TOTALS = {
    "blindai_received_bytes": "HTTP bytes received by the HTTPS listener.",
    "blindai_sent_bytes": "HTTP bytes sent by the HTTPS listener.",
}
_CODES = frozenset(error.code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "code"))
_OTHER = errors.InternalError.code
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


class CoarseHistogram:
    """Counts in a few buckets."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds and the counts up to them, as Prometheus wants them."""
        so_far, found = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found


class Metrics:
    """All counters of one server; belongs to one event loop."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter({(door, end): 0 for door in DOORS for end in OUTCOMES})
        self.failures: Counter[str] = Counter()
        self.durations = CoarseHistogram(DURATIONS_S)
        self.batch_sizes = CoarseHistogram(BATCH_SIZES)
        self.worker_restarts = 0
        self.attestations: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        self._sources: dict[str, Callable[[], float]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def answered(self, door: str, status: int, duration_s: float) -> None:
        """A request that reached dispatch, by the door it came through."""
        outcome = OUTCOMES[(status >= _CLIENT_ERROR) + (status >= _SERVER_ERROR)]
        self.requests[door if door in DOORS else "grpc", outcome] += 1
        self.durations.observe(duration_s)

    def failed(self, code: str) -> None:
        """A failure by its cause; a code that is not in `errors` counts as `internal`."""
        self.failures[code if code in _CODES else _OTHER] += 1

    def read_from(self, name: str, read: Callable[[], float]) -> None:
        """Where a gauge's or a total's value comes from when somebody asks.

        Raises:
            KeyError: the name is not on the allow-list.
        """
        if name not in GAUGES and name not in TOTALS:
            raise KeyError(name)
        self._sources[name] = read

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by `prometheus_client`."""
        requests = CounterMetricFamily("blindai_requests", "Requests by door and outcome.", labels=["door", "outcome"])
        for (door, outcome), count in self.requests.items():
            requests.add_metric([door, outcome], count)
        yield requests
        yield _counter("blindai_failures", "Failed requests by cause.", "code", self.failures)
        yield _counter("blindai_attestations", "Attestations handed out by kind.", "kind", self.attestations)
        yield _histogram("blindai_request_seconds", "From a request's head to its answer.", self.durations)
        yield _histogram("blindai_batch_size", "Requests that ran together and were answered.", self.batch_sizes)
        restarts = "Models' processes started again after they had died."
        yield CounterMetricFamily("blindai_worker_restarts", restarts, value=self.worker_restarts)
        for name, read in self._sources.items():
            if name in GAUGES:
                yield GaugeMetricFamily(name, GAUGES[name], value=read())
            else:
                yield CounterMetricFamily(name, TOTALS[name], value=read())


def _counter(name: str, words: str, label: str, counts: Counter[str]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, words, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, words: str, histogram: CoarseHistogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, words, buckets=histogram.buckets(), sum_value=histogram.total)
