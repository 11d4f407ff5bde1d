"""Record the instruments in a meter of OpenTelemetry."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from .. import __version__
from . import instruments
from .gauges import Reading
from .instruments import Instrument
from .labels import Labels
from .measurements import Record, Recorder
from .totals import Count, Totals


class Collector:
    """Records the instruments in a meter. The SDK reads gauges when it collects them.

    A meter can't remove an instrument, so each provider has one collector.
    """

    def __init__(self, provider: MeterProvider | None) -> None:
        self._meter = get_meter("oban_sqla", __version__, provider)
        self._read: Callable[[], Iterator[Reading]] | None = None
        self._observed = False
        self._totals: dict[Instrument, Totals[Count]] = {}

    def counter(self, instrument: Instrument) -> Recorder:
        # Added up here, and read by the SDK: to add one value, the SDK takes 8 microseconds.
        totals = self._totals.get(instrument)
        if totals is None:
            totals = self._totals[instrument] = Totals(instrument, Count)
            self._meter.create_observable_counter(
                instrument.name,
                [partial(_observe_totals, totals)],
                instrument.unit,
                instrument.description,
            )
        return totals

    def histogram(self, instrument: Instrument) -> Recorder:
        kept = self._meter.create_histogram(
            instrument.name,
            instrument.unit,
            instrument.description,
            explicit_bucket_boundaries_advisory=instrument.buckets,
        )

        @cache
        def by_labels(labels: Labels) -> Record:
            attributes = _attributes(instrument, labels)
            return lambda value: kept.record(value, attributes)

        return by_labels

    def gauges(self, read: Callable[[], Iterator[Reading]]) -> None:
        self._read = read
        if self._observed:
            return
        self._observed = True
        for instrument in instruments.GAUGES:
            self._meter.create_observable_gauge(
                instrument.name,
                [partial(self._observe, instrument)],
                instrument.unit,
                instrument.description,
            )

    def tick(self) -> None:
        """Do nothing: the SDK collects by itself."""

    def close(self) -> None:
        """Stop the gauges."""
        self._read = None

    def _observe(self, instrument: Instrument, options: CallbackOptions) -> Iterable[Observation]:
        for one, labels, value in self._read() if self._read else ():
            if one is instrument:
                yield Observation(value, _attributes(instrument, labels))


def _observe_totals(totals: Totals[Count], options: CallbackOptions) -> Iterable[Observation]:
    for labels, count in totals:
        yield Observation(count.total, _attributes(totals.instrument, labels))


def _attributes(instrument: Instrument, labels: Labels) -> Mapping[str, str]:
    return dict(zip(instrument.labels, labels, strict=True))


@cache
def collector(provider: MeterProvider | None) -> Collector:
    """The collector of a provider; `None` is the global one."""
    return Collector(provider)
