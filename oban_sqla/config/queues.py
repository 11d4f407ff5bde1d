"""`Queue`: the settings of a queue on a node, and their checks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..limiting import Rate
from .rule import Complain
from .values import LARGEST_COUNT, is_count, is_name

LONGEST_NAME = 127
"""Oban for Elixir checks the same length of queues and workers in its table."""

QUEUE_OPTIONS = ("limit", "paused", "global_limit", "rate_limit")

BY_KEY = (
    "partition is not an option of a queue, which counts all its jobs alike; to count by keys, give"
    " its workers limit=Limit(2, by='account_id') or rate=Rate(60, per=60, by='account_id')"
)

QueueConfig = int | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of this node."""

    name: str
    limit: int
    """How many jobs of the queue run at once on this node."""
    paused: bool = False
    """Whether the queue is paused when the node starts."""
    global_limit: int | None = None
    """How many jobs of the queue run at once on all nodes together; `None` for any number."""
    rate_limit: Rate | None = None
    """How many jobs of the queue start in a period on all nodes together; `None` for any number."""


def check_queues(key: str, given: Any, complain: Complain) -> tuple[Queue, ...]:
    """Parse a mapping of names to limits or to options."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        complain(f"queues must map names to limits, like {{'default': 10}}, not {given!r}")
        return ()
    checked = []
    for name, value in given.items():
        try:
            options = _plain(value if isinstance(value, Mapping) else {"limit": value})
        except ValueError as error:
            complain(f"the global_limit of queue {name!r}: {error}")
            continue
        if complaints := list(_wrong(name, options)):
            for complaint in complaints:
                complain(complaint)
            continue
        try:
            rate = queue_rate(options.get("rate_limit"))
        except (TypeError, ValueError) as error:
            complain(f"the rate_limit of queue {name!r}: {error}")
        else:
            checked.append(Queue(name, **{**options, "rate_limit": rate}))
    return tuple(checked)


def queue_rate(given: object) -> Rate | None:
    """The rate of a queue: a `Rate`, or Oban's `{"allowed": 60, "period": 60}`.

    `TypeError` or `ValueError`, naming the field and the value, for anything else.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        given = _of_all_jobs(given)
        known = {"allowed", "period", "burst"}
        if not {"allowed", "period"} <= given.keys() <= known:
            raise ValueError(f"it must hold allowed and period, and may hold burst, not {given!r}")
        return Rate(given["allowed"], per=given["period"], burst=given.get("burst", 0))
    if not isinstance(given, Rate):
        raise TypeError(f"it must be a Rate, like Rate(60, per=60), not {given!r}")
    if given.by is not None or given.name is not None or given.weight != 1:
        raise ValueError(
            f"it counts all jobs of the queue alike: leave by, name and weight out of {given!r},"
            " or give it to the workers"
        )
    return given


def queue_count(given: object) -> object:
    """The number in a global limit: an integer, or Oban's `{"allowed": 50}`; not checked.

    `ValueError` for a limit that counts by keys.
    """
    if isinstance(given, Mapping) and (limit := _of_all_jobs(given)).keys() == {"allowed"}:
        return limit["allowed"]
    return given


def _of_all_jobs(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The terms without Oban's empty entries."""
    if given.get("partition"):
        raise ValueError(BY_KEY)
    return {
        name: value
        for name, value in given.items()
        if name not in ("partition", "burst") or (value is not None and value is not False)
    }


def _plain(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a queue, with Oban's other notations replaced."""
    plain = dict(options)
    limit = plain["global_limit"] = queue_count(plain.get("global_limit"))
    if limit is not None:
        # As in Oban: without a limit per node, one node may run all of them.
        plain.setdefault("limit", limit)
    return plain


def _wrong(name: object, options: Mapping[str, Any]) -> Iterator[str]:
    if not is_name(name) or len(str(name)) > LONGEST_NAME:
        yield f"a queue's name must be 1 to {LONGEST_NAME} characters, not blank: {name!r}"
    for unknown in sorted(options.keys() - set(QUEUE_OPTIONS)):
        if unknown == "partition":
            yield f"queue {name!r}: {BY_KEY}"
            continue
        yield f"queue {name!r} has no option {unknown!r}; there are {', '.join(QUEUE_OPTIONS)}"
    if "limit" not in options:
        yield f"queue {name!r} needs a limit, like {{'limit': 10}}"
    elif not is_count(options["limit"]):
        yield (
            f"the limit of queue {name!r} must be an integer from 1 to {LARGEST_COUNT},"
            f" not {options['limit']!r}"
        )
    if not (options.get("global_limit") is None or is_count(options["global_limit"])):
        yield (
            f"the global_limit of queue {name!r} must be an integer from 1 to {LARGEST_COUNT},"
            f" not {options['global_limit']!r}"
        )
    if not isinstance(paused := options.get("paused", False), bool):
        yield f"paused of queue {name!r} must be True or False, not {paused!r}"
