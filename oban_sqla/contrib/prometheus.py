"""Prometheus: the instruments, in a registry of its client.

One line switches it on, or `oban-sqla start --metrics :9100`, which serves them, too::

    from oban_sqla.contrib import prometheus

    prometheus.attach()

It needs the extra `prometheus`. With `PROMETHEUS_MULTIPROC_DIR` set, the processes that share that
directory are measured together; the names of queues and workers are the only labels of jobs.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from . import listeners
from .instruments import Instrument
from .listeners import Listener
from .measurements import Labels, Measurements, Reading, Record

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"

_attached: list[Listener] = []
_collectors: list["Collector"] = []


def attach(registry: CollectorRegistry = REGISTRY) -> None:
    """Measure the enqueues and the jobs of this process, from now on, in this registry."""
    detach()
    collector = Collector(registry)
    _collectors.append(collector)
    _attached.extend(Measurements(collector).listeners)
    listeners.attach(_attached)


def detach() -> None:
    """Measure nothing, and take the instruments out of their registry."""
    listeners.detach(_attached)
    _attached.clear()
    for collector in _collectors:
        collector.unregister()
    _collectors.clear()


def exposed(registry: CollectorRegistry = REGISTRY) -> CollectorRegistry:
    """The registry to serve: of all processes in the multiprocess mode, else the one given."""
    if MULTIPROCESS not in os.environ:
        return registry
    shared = CollectorRegistry()
    collect: Any = MultiProcessCollector  # which is not typed
    collect(shared)
    return shared


class Collector:
    """Keeps the instruments in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._registered: list[Any] = []
        self._shared: _SharedGauges | None = None

    def counter(self, instrument: Instrument) -> Record:
        metric = self._keep(
            Counter(
                instrument.prometheus_name,
                instrument.description,
                instrument.labels,
                registry=self._registry,
            )
        )
        child = _children(metric)
        return lambda labels, value: child(labels).inc(value)

    def histogram(self, instrument: Instrument) -> Record:
        metric = self._keep(
            Histogram(
                instrument.prometheus_name,
                instrument.description,
                instrument.labels,
                buckets=instrument.buckets,
                registry=self._registry,
            )
        )
        child = _children(metric)
        return lambda labels, value: child(labels).observe(value)

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
        """Take the instruments out of the registry."""
        for metric in self._registered:
            self._registry.unregister(metric)
        self._registered.clear()

    def _keep(self, metric: Any) -> Any:
        self._registered.append(metric)
        return metric


class _Gauges:
    """Reads the gauges when they are collected: what is gone is not shown any more."""

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
        # Without it the registry would collect them to learn their names.
        return ()


class _SharedGauges:
    """Writes the gauges where the other processes find them, once a second at most."""

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


def _children(metric: Any) -> Callable[[Labels], Any]:
    """The part of a metric with some labels: kept, since to find it takes longer than to use it."""
    children: dict[Labels, Any] = {}

    def child(labels: Labels) -> Any:
        found = children.get(labels)
        if found is None:
            found = children[labels] = metric.labels(*labels) if labels else metric
        return found

    return child
