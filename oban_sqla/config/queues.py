"""`Queue`: the settings of a queue on a node, and their checks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .partition import Partition
from .queue_limits import GlobalLimit, RateLimit, global_limit_of, rate_limit_of
from .rule import Complain
from .values import LARGEST_COUNT, is_count, is_name

LONGEST_NAME = 127
"""Oban for Elixir checks the same length of queues and workers in its table."""

QUEUE_OPTIONS = ("limit", "paused", "global_limit", "rate_limit", "partition")

QueueConfig = int | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of this node."""

    name: str
    limit: int
    """How many jobs of the queue run at once on this node."""
    paused: bool = False
    """Whether the queue is paused when the node starts."""
    global_limit: GlobalLimit | None = None
    """How many jobs of the queue run at once on all nodes together; `None` for any number."""
    rate_limit: RateLimit | None = None
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
        options = dict(value) if isinstance(value, Mapping) else {"limit": value}
        wrong: list[str] = []
        limits = _limits(name, options, wrong.append)
        whole = limits["global_limit"]
        if whole is not None and whole.partition is None:
            # As in Oban: without a limit per node, one node may run all of them.
            options.setdefault("limit", whole.allowed)
        wrong += _wrong(name, options)
        for complaint in wrong:
            complain(complaint)
        if not wrong:
            checked.append(Queue(name, options["limit"], options.get("paused", False), **limits))
    return tuple(checked)


def _limits(name: object, options: Mapping[str, Any], complain: Complain) -> dict[str, Any]:
    """The limits of a queue on all nodes together."""
    try:
        partition = Partition.of(options.get("partition"))
    except (TypeError, ValueError) as error:
        complain(f"queue {name!r}: {error}")
        partition = None
    limits: dict[str, Any] = {}
    read: dict[str, Callable[..., Any]] = {
        "global_limit": global_limit_of,
        "rate_limit": rate_limit_of,
    }
    for word, limit_of in read.items():
        try:
            limits[word] = limit_of(options.get(word), partition)
        except (TypeError, ValueError) as error:
            complain(f"the {word} of queue {name!r}: {error}")
            limits[word] = None
    if partition is not None and all(options.get(word) is None for word in read):
        complain(
            f"queue {name!r} has a partition, but nothing that it divides: give the queue a"
            " global_limit or a rate_limit"
        )
    return limits


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
    if not isinstance(paused := options.get("paused", False), bool):
        yield f"paused of queue {name!r} must be True or False, not {paused!r}"
