"""Prometheus: record the metrics in a registry of its client.

Turn it on with one line, or with `oban-sqla start --metrics :9100`, which also serves them::

    from oban_sqla.contrib import prometheus

    prometheus.attach()

It needs the extra `prometheus`. If `PROMETHEUS_MULTIPROC_DIR` is set, the processes that share the
directory are measured together. The only labels of jobs are the names of queues and workers.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from . import listeners
from .gauges import Reading
from .instruments import Instrument
from .labels import Labels
from .listeners import Listener
from .measurements import Measurements, Record, Recorder

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"

_attached: list[Listener] = []
_collectors: list["Collector"] = []


def attach(registry: CollectorRegistry = REGISTRY) -> None:
    """Begin to measure the enqueues and the jobs of this process in a registry."""
    detach()
    collector = Collector(registry)
    _collectors.append(collector)
    _attached.extend(Measurements(collector).listeners)
    listeners.attach(_attached)


def detach() -> None:
    """Stop all measuring, and remove the instruments from their registry."""
    listeners.detach(_attached)
    _attached.clear()
    for collector in _collectors:
        collector.unregister()
    _collectors.clear()


def exposed(registry: CollectorRegistry = REGISTRY) -> CollectorRegistry:
    """The registry to serve: that of all processes in multiprocess mode, otherwise `registry`."""
    if MULTIPROCESS not in os.environ:
        return registry
    shared = CollectorRegistry()
    collect: Any = MultiProcessCollector  # not typed
    collect(shared)
    return shared


class Collector:
    """Records the instruments in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._registered: list[Any] = []
        self._shared: _SharedGauges | None = None

    def counter(self, instrument: Instrument) -> Recorder:
        metric = self._keep(
            Counter(
                instrument.prometheus_name,
                instrument.description,
                instrument.labels,
                registry=self._registry,
            )
        )
        return _by_labels(metric, lambda child: child.inc)

    def histogram(self, instrument: Instrument) -> Recorder:
        metric = self._keep(
            Histogram(
                instrument.prometheus_name,
                instrument.description,
                instrument.labels,
                buckets=instrument.buckets,
                registry=self._registry,
            )
        )
        return _by_labels(metric, lambda child: child.observe)

    def gauges(self, read: Callable[[], Iterator[Reading]]) -> None:
        if MULTIPROCESS in os.environ:
            self._shared = _SharedGauges(read)
        else:
            gauges = self._keep(_Gauges(read))
            self._registry.register(gauges)

    def tick(self) -> None:
        if self._shared is not None:
            self._shared.write()

    def unregister(self) -> None:
        """Remove the instruments from the registry."""
        for metric in self._registered:
            self._registry.unregister(metric)
        self._registered.clear()

    def _keep(self, metric: Any) -> Any:
        self._registered.append(metric)
        return metric


class _Gauges:
    """Reads the gauges when they are collected, so that removed queues disappear."""

    def __init__(self, read: Callable[[], Iterator[Reading]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        families: dict[Instrument, GaugeMetricFamily] = {}
        for instrument, labels, value in self._read():
            family = families.get(instrument)
            if family is None:
                family = families[instrument] = GaugeMetricFamily(
                    instrument.prometheus_name, instrument.description, labels=instrument.labels
                )
            family.add_metric(labels, value)
        return families.values()

    def describe(self) -> Iterable[Metric]:
        # Without this method, the registry would collect the gauges to learn their names.
        return ()


class _SharedGauges:
    """Writes the gauges for multiprocess mode, at most once a second."""

    def __init__(self, read: Callable[[], Iterator[Reading]]) -> None:
        self._read = read
        self._written_at = float("-inf")
        self._gauges: dict[Instrument, Gauge] = {}

    def write(self) -> None:
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


def _by_labels(metric: Any, record: Callable[[Any], Record]) -> Recorder:
    """Find the function of a metric by labels, with a cache: the client's lookup is slow."""
    found: dict[Labels, Record] = {}

    def by_labels(labels: Labels) -> Record:
        known = found.get(labels)
        if known is None:
            known = found[labels] = record(metric.labels(*labels) if labels else metric)
        return known

    return by_labels
