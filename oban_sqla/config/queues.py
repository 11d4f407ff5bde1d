"""`Queue`: the settings of a queue on a node, and their checks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .rule import Complain
from .values import LARGEST_COUNT, is_count, is_name

LONGEST_NAME = 127
"""Oban for Elixir checks the same length of queues and workers in its table."""

QUEUE_OPTIONS = ("limit", "paused", "global_limit")

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


def check_queues(key: str, given: Any, complain: Complain) -> tuple[Queue, ...]:
    """Parse a mapping of names to limits or to options."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        complain(f"queues must map names to limits, like {{'default': 10}}, not {given!r}")
        return ()
    checked = []
    for name, value in given.items():
        options = _plain(value if isinstance(value, Mapping) else {"limit": value})
        if complaints := list(_wrong(name, options)):
            for complaint in complaints:
                complain(complaint)
        else:
            checked.append(Queue(name, **options))
    return tuple(checked)


def _plain(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a queue, with Oban's other notations replaced."""
    plain = dict(options)
    limit = plain.get("global_limit")
    if isinstance(limit, Mapping) and limit.keys() == {"allowed"}:
        plain["global_limit"] = limit = limit["allowed"]
    if limit is not None:
        # As in Oban: without a limit per node, one node may run all of them.
        plain.setdefault("limit", limit)
    return plain


def _wrong(name: object, options: Mapping[str, Any]) -> Iterator[str]:
    if not is_name(name) or len(str(name)) > LONGEST_NAME:
        yield f"a queue's name must be 1 to {LONGEST_NAME} characters, not blank: {name!r}"
    for unknown in sorted(options.keys() - set(QUEUE_OPTIONS)):
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
