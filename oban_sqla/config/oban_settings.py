"""The settings of `Oban`, each declared once: its type, its check and its default."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

from ..dsn import listen_target
from ..instances import DEFAULT_NAME
from ..zones import time_zone
from .queues import QueueConfig, check_queues
from .retention import DAY, Retention, RetentionConfig
from .rule import (
    Complain,
    Rule,
    at_least_zero,
    count,
    demand,
    more_than_zero,
    parsed,
    rules_of,
    seconds,
    unless_none,
)
from .values import is_name

LONGEST_PREFIX = 49
"""PostgreSQL refuses channel names of more than 63 bytes; ".oban_schedule" takes 14 of them."""

SHORTEST_EXPIRY = 5.0
"""With a shorter expiry, a pause of the garbage collector could make a node look dead."""

LONGEST_EXPIRY = DAY

LONGEST_AHEAD = 1.0
"""Another node could run a job that is held longer."""


def _prefix(key: str, value: Any, complain: Complain) -> Any:
    if not is_name(value, LONGEST_PREFIX):
        most = f"at most {LONGEST_PREFIX} bytes"
        complain(f"prefix must be the name of a schema of {most}: {value!r}")
    return value


def _expiry(key: str, value: Any, complain: Complain) -> Any:
    return seconds(SHORTEST_EXPIRY, LONGEST_EXPIRY)(key, value, complain)


def _retention(key: str, value: Any, complain: Complain) -> Retention:
    return Retention.parse(value, complain)


class ObanSettings(TypedDict, total=False):
    """The arguments of `Oban` beside its engine. All times are seconds."""

    queues: Annotated[Mapping[str, QueueConfig] | None, Rule(check_queues)]
    name: Annotated[str, Rule(demand(is_name, "a string that is not blank"), DEFAULT_NAME)]
    node: Annotated[str | None, Rule(unless_none(demand(is_name, "a name")))]
    prefix: Annotated[str | None, Rule(unless_none(_prefix))]
    shutdown_grace_period: Annotated[float, Rule(at_least_zero, 15.0)]
    notify: Annotated[
        Literal["listen", "poll"],
        Rule(demand(lambda value: value in ("listen", "poll"), "'listen' or 'poll'"), "listen"),
    ]
    listen_dsn: Annotated[str | None, Rule(unless_none(parsed(listen_target)))]
    poll_interval: Annotated[float, Rule(more_than_zero, 1.0)]
    fallback_interval: Annotated[float, Rule(more_than_zero, 30.0)]
    heartbeat_expiry: Annotated[float, Rule(_expiry, 60.0)]
    rescue_after: Annotated[float, Rule(more_than_zero, 3600.0)]
    leadership: Annotated[
        bool, Rule(demand(lambda value: isinstance(value, bool), "True or False"), True)
    ]
    timezone: Annotated[str, Rule(parsed(time_zone), "UTC")]
    retention: Annotated[RetentionConfig, Rule(_retention, DAY)]
    stage_batch: Annotated[int, Rule(count, 5000)]
    pool_size: Annotated[int | None, Rule(unless_none(count))]
    claim_ahead: Annotated[float, Rule(seconds(0, LONGEST_AHEAD), 0.05)]


RULES: Mapping[str, Rule] = rules_of(ObanSettings)
