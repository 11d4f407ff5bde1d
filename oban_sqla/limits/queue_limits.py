"""`QueueLimits`: the limits of a queue over all nodes, from its settings and from orders."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..config.queue_limits import GlobalLimit, RateLimit, global_limit_of, rate_limit_of
from ..config.queues import Queue
from .queue_keys import QueueKeys

GLOBAL_LIMIT = "global_limit"
RATE_LIMIT = "rate_limit"


class QueueLimits:
    """The most jobs of a queue that run at once, and that start in a period, on all nodes."""

    def __init__(self, queue: Queue) -> None:
        self.global_limit: GlobalLimit | None = queue.global_limit
        self.rate: RateLimit | None = queue.rate_limit
        self.started = 0
        """The number of starts that counted at the last claim."""

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self.global_limit is not None or self.rate is not None

    @property
    def keys(self) -> QueueKeys | None:
        """The keys by which the limits count jobs; `None` if they count all jobs alike."""
        limit, rate = self.global_limit, self.rate
        found = QueueKeys(limit.partition if limit else None, rate.partition if rate else None)
        return None if found == (None, None) else found

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters of a claim: the limits of all jobs of the queue, and of each key."""
        params: dict[str, Any] = {}
        limit, rate = self.global_limit, self.rate
        for prefix, by_key in (("", False), ("key_", True)):
            most = limit if limit and bool(limit.partition) is by_key else None
            terms = rate.rate if rate and bool(rate.partition) is by_key else None
            params |= {
                f"{prefix}global_limit": most and most.allowed,
                f"{prefix}rate_allowed": terms and terms.allowed,
                f"{prefix}rate_burst": terms and terms.burst,
                f"{prefix}rate_period": terms and terms.per,
            }
        return {**params, "key_shares": limit is not None and limit.burst}

    @property
    def meta(self) -> dict[str, Any]:
        """The limits for the row of a producer, in Oban's form."""
        meta: dict[str, Any] = {}
        if self.global_limit is not None:
            meta[GLOBAL_LIMIT] = self.global_limit.words
        if self.rate is not None:
            # Each key has starts of its own, so a sum of all starts says nothing.
            whole = [] if self.rate.partition else [self.started]
            windows = [{"curr_count": count, "prev_count": 0} for count in whole]
            meta[RATE_LIMIT] = {**self.rate.words, "windows": windows}
        return meta

    def change(self, changes: Mapping[str, Any]) -> bool:
        """Apply an order. Returns whether it changed a limit. Invalid values are ignored."""
        before = self.global_limit, self.rate
        with suppress(TypeError, ValueError):
            if GLOBAL_LIMIT in changes:
                self.global_limit = global_limit_of(changes[GLOBAL_LIMIT])
        with suppress(TypeError, ValueError):
            if RATE_LIMIT in changes:
                self.rate = rate_limit_of(changes[RATE_LIMIT])
        return (self.global_limit, self.rate) != before
