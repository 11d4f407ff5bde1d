"""`GlobalLimit` and `RateLimit`: the limits of a queue on all nodes together, in Oban's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..limiting import Rate
from .partition import Partition
from .values import LARGEST_COUNT, is_count


@dataclass(frozen=True, slots=True)
class GlobalLimit:
    """How many jobs of a queue run at once, on all nodes together."""

    allowed: int
    burst: bool = False
    """Whether a key may exceed the limit while there are slots that no other key needs."""
    partition: Partition | None = None
    """If given, the limit is for each key."""

    @property
    def words(self) -> dict[str, Any]:
        """Oban's form."""
        words: dict[str, Any] = {"allowed": self.allowed}
        if self.burst:
            words["burst"] = True
        return words | _partition_words(self.partition)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many jobs of a queue start in a period, on all nodes together."""

    rate: Rate
    partition: Partition | None = None
    """If given, the rate is for each key."""

    @property
    def words(self) -> dict[str, Any]:
        """Oban's form."""
        words: dict[str, Any] = {"allowed": self.rate.allowed, "period": self.rate.per}
        if self.rate.burst:
            words["burst"] = self.rate.burst
        return words | _partition_words(self.partition)


def global_limit_of(given: object, partition: Partition | None = None) -> GlobalLimit | None:
    """Read an integer, or Oban's `{"allowed": 2, "burst": True, "partition": {...}}`.

    `partition` is for a limit without one. `TypeError` or `ValueError` for anything else.
    """
    if given is None:
        return None
    terms: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"allowed": given}
    partition = Partition.of(terms.pop("partition", None)) or partition
    burst = terms.pop("burst", None) or False
    if terms.keys() != {"allowed"} or not is_count(terms["allowed"]):
        raise ValueError(
            f"it must be an integer from 1 to {LARGEST_COUNT}, or allowed, burst and partition, not"
            f" {given!r}"
        )
    if not isinstance(burst, bool):
        raise TypeError(f"its burst must be True or False, not {burst!r}")
    if burst and partition is None:
        raise ValueError("burst needs a partition, which names the keys that share the slots")
    return GlobalLimit(terms["allowed"], burst, partition)


def rate_limit_of(given: object, partition: Partition | None = None) -> RateLimit | None:
    """Read a `Rate`, or Oban's `{"allowed": 60, "period": 60, "partition": {...}}`.

    `partition` is for a rate without one. `TypeError` or `ValueError` for anything else.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        # Oban's forms have empty entries.
        terms = {k: v for k, v in given.items() if v is not None and v is not False}
        partition = Partition.of(terms.pop("partition", None)) or partition
        known = {"allowed", "period", "burst"}
        if not {"allowed", "period"} <= terms.keys() <= known:
            raise ValueError(
                f"it must hold allowed and period, and may hold burst and partition, not {given!r}"
            )
        rate = Rate(terms["allowed"], per=terms["period"], burst=terms.get("burst", 0))
        return RateLimit(rate, partition)
    if not isinstance(given, Rate):
        raise TypeError(f"it must be a Rate, like Rate(60, per=60), not {given!r}")
    if given.by is not None or given.name is not None or given.weight != 1:
        raise ValueError(
            f"it counts the jobs of the queue: leave by, name and weight out of {given!r}, and give"
            " a partition beside it, or give the rate to the workers"
        )
    return RateLimit(given, partition)


def _partition_words(partition: Partition | None) -> dict[str, Any]:
    return {} if partition is None else {"partition": partition.words}
