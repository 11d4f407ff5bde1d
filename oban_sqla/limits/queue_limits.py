"""`QueueLimits`: the limits of a queue over all nodes, from its settings and from orders."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..config.queues import Queue, queue_count, queue_rate
from ..limiting import Rate, count

GLOBAL_LIMIT = "global_limit"
RATE_LIMIT = "rate_limit"


class QueueLimits:
    """The most jobs of a queue that run at once, and that start in a period, on all nodes."""

    def __init__(self, queue: Queue) -> None:
        self.global_limit = queue.global_limit
        self.rate: Rate | None = queue.rate_limit
        self.started = 0
        """The number of starts that counted at the last claim."""

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self.global_limit is not None or self.rate is not None

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters of a claim."""
        rate = self.rate
        return {
            GLOBAL_LIMIT: self.global_limit,
            "rate_allowed": rate and rate.allowed,
            "rate_burst": rate and rate.burst,
            "rate_period": rate and rate.per,
        }

    @property
    def meta(self) -> dict[str, Any]:
        """The limits for the row of a producer, in Oban's form."""
        meta: dict[str, Any] = {}
        if self.global_limit is not None:
            meta[GLOBAL_LIMIT] = {"allowed": self.global_limit}
        if (rate := self.rate) is not None:
            windows = [{"curr_count": self.started, "prev_count": 0}]
            meta[RATE_LIMIT] = {"allowed": rate.allowed, "period": rate.per, "windows": windows}
            if rate.burst:
                meta[RATE_LIMIT]["burst"] = rate.burst
        return meta

    def change(self, changes: Mapping[str, Any]) -> bool:
        """Apply an order. Returns whether it changed a limit. Invalid values are ignored."""
        before = self.global_limit, self.rate
        with suppress(TypeError, ValueError):
            if GLOBAL_LIMIT in changes:
                allowed = queue_count(changes[GLOBAL_LIMIT])
                self.global_limit = None if allowed is None else count(GLOBAL_LIMIT, allowed)
        with suppress(TypeError, ValueError):
            if RATE_LIMIT in changes:
                self.rate = queue_rate(changes[RATE_LIMIT])
        return (self.global_limit, self.rate) != before
