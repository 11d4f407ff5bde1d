"""The settings of an instance, checked together: every mistake is named at once."""

import math
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .instances import DEFAULT_NAME

# PostgreSQL refuses channel names of more than 63 bytes; ".oban_schedule" takes 14 of them.
LONGEST_PREFIX = 49
# Oban for Elixir checks the same length of queues and workers in its table.
LONGEST_NAME = 127
# What PostgreSQL's `integer` holds.
LARGEST_COUNT = 2**31 - 1

QueueConfig = int | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of this node."""

    name: str
    limit: int
    """How many of its jobs run at once on this node."""
    paused: bool = False
    """Whether it starts without claiming anything."""


@dataclass(frozen=True, slots=True)
class Config:
    """What `Oban` was given, checked. All times are seconds."""

    name: str
    node: str
    prefix: str | None
    queues: tuple[Queue, ...]
    shutdown_grace_period: float
    notify: Literal["listen", "poll"]
    listen_dsn: str | None
    poll_interval: float
    fallback_interval: float
    heartbeat_interval: float
    stage_batch: int

    @classmethod
    def check(
        cls,
        *,
        queues: Mapping[str, QueueConfig] | None = None,
        name: str = DEFAULT_NAME,
        node: str | None = None,
        prefix: str | None = None,
        shutdown_grace_period: float = 15.0,
        notify: str = "listen",
        listen_dsn: str | None = None,
        poll_interval: float = 1.0,
        fallback_interval: float = 15.0,
        heartbeat_interval: float = 15.0,
        stage_batch: int = 5000,
    ) -> "Config":
        """The settings; a `ValueError` that lists all that is wrong with them."""
        errors: list[str] = []

        def demand(holds: bool, complaint: str) -> None:
            if not holds:
                errors.append(complaint)

        checked: list[Queue] = []
        demand(
            queues is None or isinstance(queues, Mapping),
            f"queues must map names to limits, like {{'default': 10}}, not {queues!r}",
        )
        for queue, given in (queues if isinstance(queues, Mapping) else {}).items():
            options = given if isinstance(given, Mapping) else {"limit": given}
            if complaints := list(_wrong_with_queue(queue, options)):
                errors.extend(complaints)
            else:
                checked.append(Queue(queue, **options))
        demand(_is_name(name), f"name must be a string that is not blank, not {name!r}")
        demand(node is None or _is_name(node), f"node must be a string that is not blank: {node!r}")
        demand(
            prefix is None or _is_name(prefix, LONGEST_PREFIX),
            f"prefix must be the name of a schema of at most {LONGEST_PREFIX} bytes: {prefix!r}",
        )
        demand(notify in ("listen", "poll"), f"notify must be 'listen' or 'poll', not {notify!r}")
        demand(
            listen_dsn is None or _is_name(listen_dsn),
            # Not shown: it holds a password.
            "listen_dsn must be a connection string that is not blank",
        )
        demand(
            listen_dsn is None or notify != "poll",
            "listen_dsn names the connection for LISTEN, which notify='poll' does without",
        )
        demand(
            _is_number(shutdown_grace_period) and shutdown_grace_period >= 0,
            f"shutdown_grace_period must be seconds, 0 or more, not {shutdown_grace_period!r}",
        )
        for key, seconds in {
            "poll_interval": poll_interval,
            "fallback_interval": fallback_interval,
            "heartbeat_interval": heartbeat_interval,
        }.items():
            demand(
                _is_number(seconds) and seconds > 0,
                f"{key} must be seconds, more than 0, not {seconds!r}",
            )
        demand(
            _is_count(stage_batch),
            f"stage_batch must be an integer from 1 to {LARGEST_COUNT}, not {stage_batch!r}",
        )
        if errors:
            raise ValueError("; ".join(errors))
        return cls(
            name=name,
            # Containers share host names, so the process tells nodes of one host apart.
            node=node or f"{socket.gethostname()}.{os.getpid()}",
            prefix=prefix,
            queues=tuple(checked),
            shutdown_grace_period=shutdown_grace_period,
            notify="poll" if notify == "poll" else "listen",
            listen_dsn=listen_dsn,
            poll_interval=poll_interval,
            fallback_interval=fallback_interval,
            heartbeat_interval=heartbeat_interval,
            stage_batch=stage_batch,
        )


def database_url(given: URL | str) -> URL:
    """The URL of a PostgreSQL, through psycopg unless it names a driver; `ValueError` if it is not.

    What can't be read is not shown in the message: it may hold a password.
    """
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise ValueError(
            "the DSN is not a URL of the form postgresql://user:password@host:5432/database"
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(f"the DSN must start with postgresql://, not {url.drivername}://")
    # Without a driver it is libpq's form, which SQLAlchemy would take for psycopg2.
    return url if "+" in url.drivername else url.set(drivername="postgresql+psycopg")


def _wrong_with_queue(name: object, options: Mapping[str, Any]) -> Iterator[str]:
    if not _is_name(name) or len(str(name)) > LONGEST_NAME:
        yield f"a queue's name must be 1 to {LONGEST_NAME} characters, not blank: {name!r}"
    for unknown in options.keys() - {"limit", "paused"}:
        yield f"queue {name!r} has no option {unknown!r}; there are limit, paused"
    if "limit" not in options:
        yield f"queue {name!r} needs a limit, like {{'limit': 10}}"
    elif not _is_count(options["limit"]):
        yield (
            f"the limit of queue {name!r} must be an integer from 1 to {LARGEST_COUNT},"
            f" not {options['limit']!r}"
        )
    if not isinstance(paused := options.get("paused", False), bool):
        yield f"paused of queue {name!r} must be True or False, not {paused!r}"


def _is_name(value: object, most_bytes: float = math.inf) -> bool:
    if not isinstance(value, str) or not value.strip() or "\x00" in value:
        return False
    try:
        return len(value.encode()) <= most_bytes
    except UnicodeEncodeError:
        return False


def _is_number(value: object) -> bool:
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_COUNT
