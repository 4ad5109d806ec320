"""Rate, errors and duration of calls, cheap enough for every call (about a microsecond).

Counts live in plain lists and become metric families only when somebody reads them.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

MAX_SERIES = 20_000

Labels = tuple[str, str, str]
"""Tenant, target (``cache/memory`` or ``order``) and action."""
OTHER: Labels = ("", "other", "other")


class CallSeries:
    """Counts of one tenant, target and action."""

    __slots__ = ("buckets", "codes", "provider_seconds", "seconds")

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.buckets = [0] * (len(BUCKETS_SECONDS) + 1)
        self.seconds = 0.0
        self.provider_seconds = 0.0

    def observe(self, code: str, seconds: float, provider_seconds: float) -> None:
        """Count one call that ended with ``code`` (``ok`` or an error code)."""
        self.codes[code] = self.codes.get(code, 0) + 1
        self.buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        self.seconds += seconds
        self.provider_seconds += provider_seconds


class CallMetrics:
    """All series of this process."""

    def __init__(self) -> None:
        self._series: dict[Labels, CallSeries] = {}
        self._lock = threading.Lock()
        self.in_flight = 0

    def series(self, tenant: str, target: str, action: str) -> CallSeries:
        """Return the counters of one tenant, target and action; beyond ``MAX_SERIES`` all share one."""
        labels = (tenant, target, action)
        found = self._series.get(labels)
        if found is None:
            with self._lock:
                labels = labels if len(self._series) < MAX_SERIES else OTHER
                found = self._series.setdefault(labels, CallSeries())
        return found

    def exposition(self, *, tenant: str | None = None, target: str | None = None) -> bytes:
        """Return OpenMetrics text: of everything without the tenant label, or of one tenant's target."""
        registry = CollectorRegistry()
        registry.register(_View(self, tenant, target))
        text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]  # published without types
        return text

    def selected(self, tenant: str | None, target: str | None) -> Iterable[tuple[Labels, CallSeries]]:
        """The series of ``tenant`` and ``target``; None selects all."""
        return [
            (labels, series)
            for labels, series in list(self._series.items())
            if tenant in {None, labels[0]} and target in {None, labels[1]}
        ]


class _View:
    """What one reader sees, as a prometheus_client collector."""

    def __init__(self, metrics: CallMetrics, tenant: str | None, target: str | None) -> None:
        self._metrics = metrics
        self._tenant = tenant
        self._target = target

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("erp_calls", "Calls by outcome.", labels=["target", "action", "code"])
        duration = HistogramMetricFamily(
            "erp_call_duration_seconds", "Time from request to answer.", labels=["target", "action"], unit="seconds"
        )
        inside = CounterMetricFamily(
            "erp_provider_seconds", "Time spent inside providers.", labels=["target", "action"], unit="seconds"
        )
        for (target, action), merged in self._merged().items():
            for code, count in merged.codes.items():
                calls.add_metric([target, action, code], count)
            duration.add_metric([target, action], _cumulative(merged.buckets), merged.seconds)
            inside.add_metric([target, action], merged.provider_seconds)
        yield from (calls, duration, inside)
        if self._tenant is None:
            yield GaugeMetricFamily("erp_calls_in_flight", "Calls being served now.", self._metrics.in_flight)

    def _merged(self) -> dict[tuple[str, str], CallSeries]:
        merged: dict[tuple[str, str], CallSeries] = {}
        for (_, target, action), series in self._metrics.selected(self._tenant, self._target):
            total = merged.setdefault((target, action), CallSeries())
            for code, count in series.codes.items():
                total.codes[code] = total.codes.get(code, 0) + count
            total.buckets = [left + right for left, right in zip(total.buckets, series.buckets, strict=True)]
            total.seconds += series.seconds
            total.provider_seconds += series.provider_seconds
        return merged


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    rows: list[tuple[str, float]] = []
    for bound, count in zip([*map(str, BUCKETS_SECONDS), "+Inf"], buckets, strict=True):
        total += count
        rows.append((bound, total))
    return rows
