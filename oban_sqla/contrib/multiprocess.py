"""Prometheus's multiprocess mode: the processes that share a directory are measured together."""

import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from .gauges import Reading
from .instruments import Instrument
from .measurements import Record, Recorder

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the directory. Prometheus's client reads it when it is imported."""


def is_on() -> bool:
    """Whether the processes of a directory are measured together."""
    return DIRECTORY in os.environ


def registry_of_all() -> CollectorRegistry:
    """A registry with the metrics of all processes of the directory."""
    registry = CollectorRegistry()
    collect: Any = MultiProcessCollector  # not typed
    collect(registry)
    return registry


class Collector:
    """Records each value with Prometheus's client, which writes it to the directory."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._registered: list[Any] = []
        self._read: Callable[[], Iterator[Reading]] = lambda: iter(())
        self._written_at = float("-inf")
        self._gauges: dict[Instrument, Gauge] = {}

    def counter(self, instrument: Instrument) -> Recorder:
        metric = Counter(
            instrument.prometheus_name,
            instrument.description,
            instrument.labels,
            registry=self._registry,
        )
        self._registered.append(metric)
        return _by_labels(metric, lambda child: child.inc)

    def histogram(self, instrument: Instrument) -> Recorder:
        metric = Histogram(
            instrument.prometheus_name,
            instrument.description,
            instrument.labels,
            buckets=instrument.buckets,
            registry=self._registry,
        )
        self._registered.append(metric)
        return _by_labels(metric, lambda child: child.observe)

    def gauges(self, read: Callable[[], Iterator[Reading]]) -> None:
        self._read = read

    def tick(self) -> None:
        """Write the gauges, at most once a second."""
        now = time.monotonic()
        if now < self._written_at + 1.0:
            return
        self._written_at = now
        for instrument, labels, value in self._read():
            gauge = self._gauges.get(instrument)
            if gauge is None:
                gauge = self._gauges[instrument] = Gauge(
                    instrument.prometheus_name,
                    instrument.description,
                    instrument.labels,
                    registry=None,
                    multiprocess_mode=instrument.merge,
                )
            gauge.labels(*labels).set(value)

    def close(self) -> None:
        """Remove the instruments from the registry."""
        for metric in self._registered:
            self._registry.unregister(metric)


def _by_labels(metric: Any, record: Callable[[Any], Record]) -> Recorder:
    """The functions of a metric, with a cache, since the client's lookup is slow."""
    return cache(lambda labels: record(metric.labels(*labels) if labels else metric))
