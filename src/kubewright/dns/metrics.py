"""What the server counts, under CoreDNS' names where CoreDNS has them, so that dashboards made for it still work.

Plain integers are counted while answering; prometheus_client sees them only when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kubewright import __version__

if TYPE_CHECKING:
    from prometheus_client.core import HistogramMetricFamily, Metric

_DURATIONS = tuple(0.00025 * 2**power for power in range(16))
_SIZES = (0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16000, 32000, 48000, 64000)
_TYPES = frozenset(
    ("A", "AAAA", "MX", "SOA", "CNAME", "PTR", "TXT", "NS", "SRV", "DS", "DNSKEY", "RRSIG", "NSEC", "NSEC3",
     "HTTPS", "IXFR", "AXFR", "ANY")
)  # fmt: skip


class Label(NamedTuple):
    """What a question and its answer count as."""

    zone: str
    """The cluster's domain, "." for other names, "dropped" for what was no question."""
    type: str
    rcode: str
    plugin: str
    """CoreDNS' word for who answered: kubernetes, forward, cache, or nothing."""


class Transport(NamedTuple):
    """How a question came: "udp" or "tcp", and "1" for IPv4 or "2" for IPv6."""

    proto: str
    family: str


class Histogram:
    """Counts of values by size."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Put the counts so far into a metric."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric(labels, buckets, self._sum)


def type_label(text: str) -> str:
    """A record type as a label: rare ones together, so that no client can make series without end."""
    return text if text in _TYPES else "other"


class Metrics:
    """All counts. `server` is what CoreDNS calls this server: `dns://:53`."""

    def __init__(self, server: str = "dns://:53") -> None:
        self._server = server
        self.served: defaultdict[tuple[Transport, Label], int] = defaultdict(int)
        self.durations: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_DURATIONS))
        self.request_sizes: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_SIZES))
        self.response_sizes: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_SIZES))
        self.panics = 0
        self.cache_requests = 0
        self.cache_hits: defaultdict[str, int] = defaultdict(int)
        self.forwarded: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.forward_durations: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_DURATIONS))
        self.forward_rejected = 0
        self.unhealthy: defaultdict[str, int] = defaultdict(int)
        self.watch_errors: defaultdict[str, int] = defaultdict(int)
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        """Name -> (help, value): what is looked at when somebody asks."""

    def answered(self, transport: Transport, label: Label, seconds: float, asked: int, sent: int) -> None:
        """Count one answer of `sent` bytes to a question of `asked` bytes."""
        self.served[transport, label] += 1
        self.durations[label.zone].observe(seconds)
        self.request_sizes[transport.proto].observe(asked)
        self.response_sizes[transport.proto].observe(sent)

    def text(self) -> bytes:
        """Everything, in Prometheus' text format. Only now is prometheus_client loaded: nobody may ever ask."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Everything, as prometheus_client wants it."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        info = GaugeMetricFamily("kubewright_dns_build_info", "Always 1.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield from self._collect_served()
        yield from self._collect_sizes()
        yield from self._collect_cache()
        yield from self._collect_forward()
        errors = CounterMetricFamily(
            "kubewright_dns_watch_errors", "Failed lists and watches.", labels=["kind"]
        )
        for kind, count in list(self.watch_errors.items()):
            errors.add_metric([kind], count)
        yield errors
        for name, (text, value) in self.gauges.items():
            yield GaugeMetricFamily(name, text, value())

    def _collect_served(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        requests: defaultdict[tuple[str, ...], int] = defaultdict(int)
        responses: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for (transport, label), count in list(self.served.items()):
            requests[self._server, label.zone, "", *transport, label.type] += count
            responses[self._server, label.zone, "", label.rcode, label.plugin] += count
        asked = CounterMetricFamily(
            "coredns_dns_requests",
            "Questions received.",
            labels=["server", "zone", "view", "proto", "family", "type"],
        )
        answered = CounterMetricFamily(
            "coredns_dns_responses", "Answers sent.", labels=["server", "zone", "view", "rcode", "plugin"]
        )
        for labels, count in requests.items():
            asked.add_metric(labels, count)
        for labels, count in responses.items():
            answered.add_metric(labels, count)
        yield from (asked, answered)
        panics = CounterMetricFamily("coredns_panics", "Questions whose handling broke.")
        panics.add_metric([], self.panics)
        yield panics

    def _collect_sizes(self) -> Iterator[Metric]:
        from prometheus_client.core import HistogramMetricFamily

        groups = (
            ("request_duration_seconds", "Time to answer.", "zone", self.durations),
            ("request_size_bytes", "Size of questions.", "proto", self.request_sizes),
            ("response_size_bytes", "Size of answers.", "proto", self.response_sizes),
        )
        for name, text, label, histograms in groups:
            family = HistogramMetricFamily(f"coredns_dns_{name}", text, labels=["server", label])
            for value, histogram in list(histograms.items()):
                histogram.add_to(family, [self._server, value])
            yield family

    def _collect_cache(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        hits = CounterMetricFamily(
            "coredns_cache_hits", "Forwarded names found in the cache.", labels=["server", "type"]
        )
        for kind, count in list(self.cache_hits.items()):
            hits.add_metric([self._server, kind], count)
        requests = CounterMetricFamily("coredns_cache_requests", "Look-ups in it.", labels=["server"])
        requests.add_metric([self._server], self.cache_requests)
        misses = CounterMetricFamily("coredns_cache_misses", "Names not found in it.", labels=["server"])
        misses.add_metric([self._server], self.cache_requests - sum(self.cache_hits.values()))
        yield from (hits, requests, misses)

    def _collect_forward(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily(
            "coredns_forward_requests", "Questions put to each upstream.", labels=["to"]
        )
        responses = CounterMetricFamily(
            "coredns_forward_responses", "Their answers; rcode is empty for none.", labels=["to", "rcode"]
        )
        by_upstream: defaultdict[str, int] = defaultdict(int)
        for (to, rcode), count in list(self.forwarded.items()):
            by_upstream[to] += count
            responses.add_metric([to, rcode], count)
        for to, count in by_upstream.items():
            requests.add_metric([to], count)
        durations = HistogramMetricFamily(
            "coredns_forward_request_duration_seconds", "Time each upstream took.", labels=["to"]
        )
        for to, histogram in list(self.forward_durations.items()):
            histogram.add_to(durations, [to])
        failures = CounterMetricFamily(
            "coredns_forward_healthcheck_failures", "Checks that an upstream failed.", labels=["to"]
        )
        for to, count in list(self.unhealthy.items()):
            failures.add_metric([to], count)
        rejected = CounterMetricFamily(
            "coredns_forward_max_concurrent_rejects", "Questions refused because too many were under way."
        )
        rejected.add_metric([], self.forward_rejected)
        yield from (requests, responses, durations, failures, rejected)
