"""Prometheus: record the metrics in a registry of its client.

Turn it on with one line, or with `oban-sqla start --metrics :9100`, which also serves them::

    from oban_sqla.contrib import prometheus

    prometheus.attach()

It needs the extra `prometheus`. If `PROMETHEUS_MULTIPROC_DIR` is set, the processes that share the
directory are measured together. The only labels of jobs are the names of queues and workers.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from . import instruments, listeners, multiprocess
from .gauges import Reading
from .instruments import Instrument, Kind
from .listeners import Listener
from .measurements import Measurements, Recorder
from .totals import Count, Distribution, Totals

_attached: list[Listener] = []
_collectors: list["Collector | multiprocess.Collector"] = []


def attach(registry: CollectorRegistry = REGISTRY) -> None:
    """Begin to measure the enqueues and the jobs of this process in a registry.

    `ValueError` if the registry has other metrics with the names of ours.
    """
    detach()
    collector = (multiprocess.Collector if multiprocess.is_on() else Collector)(registry)
    _attached.extend(Measurements(collector).listeners)
    _collectors.append(collector)
    listeners.attach(_attached)


def detach() -> None:
    """Stop all measuring, and remove the instruments from their registry."""
    listeners.detach(_attached)
    _attached.clear()
    for collector in _collectors:
        collector.close()
    _collectors.clear()


def exposed(registry: CollectorRegistry = REGISTRY) -> CollectorRegistry:
    """The registry to serve: that of all processes in multiprocess mode, otherwise `registry`."""
    return multiprocess.registry_of_all() if multiprocess.is_on() else registry


class Collector:
    """Adds values up. A registry reads the totals when it collects them.

    The counters and histograms of Prometheus's client take several times as long to add a value.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._counters: list[Totals[Count]] = []
        self._histograms: list[Totals[Distribution]] = []

    def counter(self, instrument: Instrument) -> Recorder:
        totals = Totals(instrument, Count)
        self._counters.append(totals)
        return totals

    def histogram(self, instrument: Instrument) -> Recorder:
        totals = Totals(instrument, Distribution)
        self._histograms.append(totals)
        return totals

    def gauges(self, read: Callable[[], Iterator[Reading]]) -> None:
        self._read = read
        self._registry.register(self)

    def tick(self) -> None:
        """Do nothing: the registry reads the gauges when it collects them."""

    def close(self) -> None:
        """Remove the instruments from the registry."""
        self._registry.unregister(self)

    def describe(self) -> Iterator[Metric]:
        """The instruments without values, so that the registry knows their names."""
        for instrument in instruments.EVERY:
            yield _family(instrument)

    def collect(self) -> Iterator[Metric]:
        """The instruments with their current values."""
        for counter in self._counters:
            yield _counted(counter)
        for histogram in self._histograms:
            yield _distributed(histogram)
        gauges: dict[Instrument, Any] = {}
        for instrument, labels, value in self._read():
            family = gauges.get(instrument)
            if family is None:
                family = gauges[instrument] = _family(instrument)
            family.add_metric(labels, value)
        yield from gauges.values()


_FAMILIES: Mapping[Kind, Any] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
}


def _family(instrument: Instrument) -> Any:
    family = _FAMILIES[instrument.kind]
    return family(instrument.prometheus_name, instrument.description, labels=instrument.labels)


def _counted(totals: Totals[Count]) -> Metric:
    family: CounterMetricFamily = _family(totals.instrument)
    for labels, count in totals:
        family.add_metric(labels, count.total)
    return family


def _distributed(totals: Totals[Distribution]) -> Metric:
    family: HistogramMetricFamily = _family(totals.instrument)
    bounds = [*map(str, totals.instrument.buckets), "+Inf"]
    for labels, distribution in totals:
        # In Prometheus, each bucket includes those below it.
        counts = accumulate(distribution.counts.copy())
        family.add_metric(labels, list(zip(bounds, counts, strict=True)), distribution.sum)
    return family
