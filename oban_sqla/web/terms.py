"""`Terms`: the limits of a queue over all nodes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..config.partition import Partition
from ..monitor.status import Status
from ..runtime.presence import RunningQueue


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits of a queue over all nodes; `None` for none."""

    limit: float | None = None
    """The most jobs that run at once."""
    starts: float | None = None
    """The most jobs that start in `period` seconds."""
    period: float | None = None
    burst: float | None = None
    """The further jobs that may start in a period, after a quiet time."""
    limit_keys: Mapping[str, Any] = field(default_factory=dict)
    """Oban's `partition` and `burst` of the limit, if it is for each key."""
    rate_keys: Mapping[str, Any] = field(default_factory=dict)
    """Oban's `partition` of the rate."""

    @property
    def words(self) -> list[str]:
        """The limits in words."""
        said = []
        if self.limit is not None:
            said.append(f"{self.limit:,g} at once on all nodes{_for_each(self.limit_keys)}")
        if self.starts is not None:
            burst = "" if self.burst is None else f", and a burst of {self.burst:,g}"
            each = _for_each(self.rate_keys)
            said.append(f"{self.starts:,g} starts in {self.period:g} s{burst}{each}")
        return said


def terms_of_queues(status: Status) -> dict[str, Terms]:
    """The limits of the running queues over all nodes."""
    running = (queue for node in status.nodes for queue in node.queues if queue.alive)
    return {queue.queue: terms_of(queue) for queue in running}


def terms_of(queue: RunningQueue) -> Terms:
    """The limits that a node applies to a queue. Another Oban may have stored other values."""
    limit, rate = queue.global_limit or {}, queue.rate_limit or {}
    allowed, starts, period, burst = (
        value if isinstance(value, int | float) and value > 0 else None
        for value in (limit.get("allowed"), *map(rate.get, ("allowed", "period", "burst")))
    )
    limit_keys = _keys(limit, "partition", "burst")
    if starts is None or period is None:
        return Terms(allowed, limit_keys=limit_keys)
    return Terms(allowed, starts, period, burst, limit_keys, _keys(rate, "partition"))


def _keys(terms: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return {name: terms[name] for name in names if terms.get(name)}


def _for_each(keys: Mapping[str, Any]) -> str:
    with suppress(TypeError, ValueError):
        if (partition := Partition.of(keys.get("partition"))) is not None:
            return f" for each {partition.label}"
    return ""
