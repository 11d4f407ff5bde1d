"""`Limit` and `Rate`: how many jobs run at once, and how many start in a period, over all nodes."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

MOST = 1_000_000_000
"""The largest number of jobs. PostgreSQL can add two such numbers as integers."""
LONGEST_PERIOD = 366 * 86400.0

By: TypeAlias = str | Callable[[Any], object] | None
"""The key by which jobs are counted: the name of an argument, with dots for nested ones, or a
function of the job. `None` counts all jobs of the worker together.
"""


class Limit:
    """How many jobs of a worker, or of one key, run at once, over all nodes::

        class Sync(Worker, limit=Limit(2, by="account_id")): ...

    A job that would exceed the limit waits. Jobs of other keys behind it do not wait.
    """

    __module__ = "oban_sqla"

    def __init__(
        self,
        allowed: int | Callable[[Any], int],
        /,
        *,
        by: By = None,
        name: str | None = None,
        burst: bool = False,
    ) -> None:
        """Declare a limit.

        allowed: the most jobs, or a function that returns this number for a key. The number and the
            key of a job are fixed when the job is made.
        by: the key by which jobs are counted: the name of an argument, such as `"account_id"` or
            `"order.account_id"`, or a function of the job that returns the key. A mapped instance
            stands for its primary key. A job without the argument has the key `None`.
        name: workers with the same name share the limit, also in different queues.
        burst: whether a key may exceed the limit while there are slots that no other key needs.

        Other values raise a `TypeError` or `ValueError` that names the field and the value.
        """
        self.allowed = allowed if callable(allowed) else count("allowed", allowed)
        self.by = _by(by)
        self.name = _name(name)
        if not isinstance(burst, bool):
            raise TypeError(f"burst of a Limit must be True or False, not {burst!r}")
        self.burst = burst

    def __repr__(self) -> str:
        return f"Limit({_shown(self, allowed=self.allowed, burst=self.burst or None)})"

    @property
    def terms(self) -> tuple[object, ...]:
        """The values that must be the same in all limits of one name."""
        return self.allowed, self.burst


class Rate:
    """How many jobs of a worker, or of one key, *start* in a period, over all nodes::

        @job(rate=Rate(14, per=1, name="ses"))
        async def send(to: str): ...

    Each attempt counts, also a retry or a failed attempt. No period of this length, whenever it
    begins, has more than `allowed + burst` starts. A job that would exceed the rate waits.
    """

    __module__ = "oban_sqla"

    def __init__(
        self,
        allowed: int,
        /,
        *,
        per: float | timedelta,
        by: By = None,
        name: str | None = None,
        burst: int = 0,
        weight: int | Callable[[Any], int] = 1,
    ) -> None:
        """Declare a rate.

        allowed: the most jobs that start in a period.
        per: the length of the period: seconds, or a `timedelta`.
        by: the key by which jobs are counted, as for a `Limit`.
        name: workers with the same name share the rate, also in different queues.
        burst: the most further jobs that may start in one period after quieter periods.
        weight: the number of starts for which a job counts, or a function of the job.

        Other values raise a `TypeError` or `ValueError` that names the field and the value.
        """
        self.allowed = count("allowed", allowed)
        self.per = _seconds(per)
        self.by = _by(by)
        self.name = _name(name)
        self.burst = count("burst", burst, least=0)
        self.weight = weight if callable(weight) else self.weighed(weight)

    def weighed(self, weight: object) -> int:
        """Check a weight. A job that is heavier than `allowed + burst` could never start."""
        checked = count("weight", weight)
        if checked > self.allowed + self.burst:
            raise ValueError(
                f"weight must be at most allowed + burst, {self.allowed + self.burst}, or the job"
                f" could never start; not {weight!r}"
            )
        return checked

    def __repr__(self) -> str:
        weight = None if self.weight == 1 else self.weight
        shown = _shown(self, allowed=self.allowed, per=self.per, burst=self.burst, weight=weight)
        return f"Rate({shown})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rate) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.terms)

    @property
    def terms(self) -> tuple[object, ...]:
        """The values that must be the same in all rates of one name."""
        return self.allowed, self.per, self.burst


def count(field: str, value: object, *, least: int = 1) -> int:
    """Check a number of jobs."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{field} must be an integer, {least} or more, not {value!r}")
    if not least <= value <= MOST:
        raise ValueError(f"{field} must be an integer from {least} to {MOST}, not {value!r}")
    return value


def _seconds(per: object) -> float:
    seconds = per.total_seconds() if isinstance(per, timedelta) else per
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"per must be seconds or a timedelta, not {per!r}")
    if not 0.001 <= seconds <= LONGEST_PERIOD:
        raise ValueError(f"per must be seconds from 0.001 to {LONGEST_PERIOD:g}, not {per!r}")
    return float(seconds)


def _by(by: object) -> By:
    if by is None or callable(by):
        return by
    if not isinstance(by, str):
        raise TypeError(f"by must name an argument, or be a function of the job, not {by!r}")
    if not all(by.split(".")):
        raise ValueError(f"by must name an argument, like 'account_id' or 'order.id', not {by!r}")
    return by


def _name(name: object) -> str | None:
    if name is not None and (not isinstance(name, str) or not name.strip() or "\x00" in name):
        raise TypeError(f"name must be a string that is not blank, not {name!r}")
    return name


def _shown(limit: Limit | Rate, **values: object) -> str:
    first, *others = [(key, value) for key, value in values.items() if value]
    named = [*others, ("by", limit.by), ("name", limit.name)]
    return ", ".join([repr(first[1]), *(f"{key}={v!r}" for key, v in named if v is not None)])
