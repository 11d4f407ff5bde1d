"""Counters and histograms that are added up here, for back ends that read them.

Any thread may read them. Only one thread at a time may record a value.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from .instruments import Instrument
from .labels import Labels
from .measurements import Record


class _Total(Protocol):
    def __init__(self, instrument: Instrument) -> None: ...

    def record(self, value: float) -> None: ...


T = TypeVar("T", bound=_Total)


class Count:
    """The total of a counter."""

    __slots__ = ("total",)

    def __init__(self, instrument: Instrument) -> None:
        self.total: float = 0

    def record(self, value: float) -> None:
        self.total += value


class Distribution:
    """The values of a histogram."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, instrument: Instrument) -> None:
        self._bounds = instrument.buckets
        self.counts = [0] * (len(instrument.buckets) + 1)
        """The number of values by bucket. The last bucket has no upper bound."""
        self.sum = 0.0

    def record(self, value: float) -> None:
        # A bucket includes its upper bound.
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Totals(Generic[T]):
    """The totals of an instrument, by labels."""

    def __init__(self, instrument: Instrument, kind: type[T]) -> None:
        self.instrument = instrument
        self._kind = kind
        self._by_labels: dict[Labels, T] = {}
        if not instrument.labels:
            # A total without labels exists from the beginning, with the value 0.
            self(())

    def __call__(self, labels: Labels) -> Record:
        """The function that records a value with these labels."""
        found = self._by_labels.get(labels)
        if found is None:
            found = self._by_labels[labels] = self._kind(self.instrument)
        return found.record

    def __iter__(self) -> Iterator[tuple[Labels, T]]:
        # A copy, since other threads may add labels.
        return iter(list(self._by_labels.items()))
