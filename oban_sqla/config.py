"""The settings of an instance, checked together: every mistake is named at once."""

import math
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .dsn import listen_target
from .errors import ConfigError
from .instances import DEFAULT_NAME
from .zones import time_zone

# PostgreSQL refuses channel names of more than 63 bytes; ".oban_schedule" takes 14 of them.
LONGEST_PREFIX = 49
# Oban for Elixir checks the same length of queues and workers in its table.
LONGEST_NAME = 127
DAY = 86400.0
# The states that retention is about, as `FINISHED` has them.
RETAINED = ("completed", "cancelled", "discarded")
# What PostgreSQL's `integer` holds.
LARGEST_COUNT = 2**31 - 1

# What a node itself uses of a pool, beside the jobs: LISTEN, claims, outcomes, services.
NODE_CONNECTIONS = 5

# A shorter one would take a node for dead for a pause of its garbage collector.
SHORTEST_EXPIRY = 5.0
LONGEST_EXPIRY = DAY
LONGEST_INTERVAL = 15.0
# A job that is held longer is work that another node could do meanwhile.
LONGEST_AHEAD = 1.0

QUEUE_OPTIONS = ("limit", "paused", "global_limit")

QueueConfig = int | Mapping[str, Any]
RetentionConfig = float | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of this node."""

    name: str
    limit: int
    """How many of its jobs run at once on this node."""
    paused: bool = False
    """Whether it starts without claiming anything."""
    global_limit: int | None = None
    """How many of its jobs run at once on all nodes together; `None` for any number."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How many seconds finished jobs are kept, by state; `None` for ever."""

    states: Mapping[str, float | None]
    workers: Mapping[str, Mapping[str, float | None]]
    """Where a worker's jobs are kept for another time."""

    @classmethod
    def parse(cls, given: RetentionConfig, complain: Callable[[str], None]) -> "Retention":
        """Seconds for all states, or a mapping of states, with `workers` for their own.

        A worker is named by its name, its class or its function. Its plain seconds are for the
        states that are not kept for ever; if all are, they are for all states.
        """
        states: Any = given
        workers: Any = {}
        if isinstance(given, Mapping):
            states = {key: given[key] for key in given if key != "workers"}
            workers = given.get("workers", {})
        states = _retained("retention", states, dict.fromkeys(RETAINED, DAY), complain)
        if not isinstance(workers, Mapping):
            complain(f"retention of workers must map their names to seconds, not {workers!r}")
            workers = {}
        named = {}
        for worker, own in workers.items():
            for name in names_of(worker):
                if isinstance(name, str) and name:
                    where = f"retention of worker {name!r}"
                    # `discarded = inf` is there to lose nothing: only the state's name ends it.
                    endless = {state for state in RETAINED if states.get(state, 0) is None}
                    named[name] = _retained(where, own, states, complain, endless)
                else:
                    complain(f"retention of workers must name a worker, not {worker!r}")
        return cls(states, named)


@dataclass(frozen=True, slots=True)
class Config:
    """What `Oban` was given, checked. All times are seconds."""

    name: str
    node: str
    prefix: str | None
    queues: tuple[Queue, ...]
    shutdown_grace_period: float
    notify: Literal["listen", "poll"]
    listen_dsn: str | None = field(repr=False)  # it holds a password
    poll_interval: float
    fallback_interval: float
    heartbeat_expiry: float
    rescue_after: float
    leadership: bool
    timezone: str
    retention: Retention
    stage_batch: int
    pool_size: int | None
    claim_ahead: float

    @property
    def connections(self) -> int | None:
        """The most connections of a pool made for this node; `None`: as SQLAlchemy does it."""
        if self.pool_size is not None or not self.queues:
            return self.pool_size
        return sum(queue.limit for queue in self.queues) + NODE_CONNECTIONS

    @property
    def heartbeat_interval(self) -> float:
        """Between two signs of life: the third that is lost in a row is the one that counts.

        oban-py's leader takes away what was silent for a minute, whatever the expiry.
        """
        return min(self.heartbeat_expiry / 4, LONGEST_INTERVAL)

    @property
    def lease(self) -> float:
        """How long a leader stays one without a renewal: its jobs are rescued in time even so."""
        return self.heartbeat_expiry / 3

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
        fallback_interval: float = 30.0,
        heartbeat_expiry: float = 60.0,
        rescue_after: float = 3600.0,
        leadership: bool = True,
        timezone: str = "UTC",
        retention: RetentionConfig = 86400.0,
        stage_batch: int = 5000,
        pool_size: int | None = None,
        claim_ahead: float = 0.05,
    ) -> "Config":
        """The settings; a `ConfigError` that lists all that is wrong with them."""
        errors: list[tuple[str, str]] = []

        def demand(key: str, holds: bool, complaint: str) -> None:
            if not holds:
                errors.append((key, complaint))

        checked: list[Queue] = []
        demand(
            "queues",
            queues is None or isinstance(queues, Mapping),
            f"queues must map names to limits, like {{'default': 10}}, not {queues!r}",
        )
        for queue, given in (queues if isinstance(queues, Mapping) else {}).items():
            options = given if isinstance(given, Mapping) else {"limit": given}
            options = _plain_queue(options)
            if complaints := list(_wrong_with_queue(queue, options)):
                errors.extend(("queues", complaint) for complaint in complaints)
            else:
                checked.append(Queue(queue, **options))
        demand("name", _is_name(name), f"name must be a string that is not blank, not {name!r}")
        demand("node", node is None or _is_name(node), f"node must be a name, not {node!r}")
        demand(
            "prefix",
            prefix is None or _is_name(prefix, LONGEST_PREFIX),
            f"prefix must be the name of a schema of at most {LONGEST_PREFIX} bytes: {prefix!r}",
        )
        demand(
            "notify",
            notify in ("listen", "poll"),
            f"notify must be 'listen' or 'poll', not {notify!r}",
        )
        try:
            if listen_dsn is not None:
                listen_target(listen_dsn)
        except ValueError as error:
            errors.append(("listen_dsn", str(error)))
        demand(
            "listen_dsn",
            listen_dsn is None or notify != "poll",
            "listen_dsn names the connection for LISTEN, which notify='poll' does without",
        )
        demand(
            "shutdown_grace_period",
            _is_number(shutdown_grace_period) and shutdown_grace_period >= 0,
            f"shutdown_grace_period must be seconds, 0 or more, not {shutdown_grace_period!r}",
        )
        for key, seconds in {
            "poll_interval": poll_interval,
            "fallback_interval": fallback_interval,
            "rescue_after": rescue_after,
        }.items():
            demand(
                key,
                _is_number(seconds) and seconds > 0,
                f"{key} must be seconds, more than 0, not {seconds!r}",
            )
        demand(
            "heartbeat_expiry",
            _is_number(heartbeat_expiry) and SHORTEST_EXPIRY <= heartbeat_expiry <= LONGEST_EXPIRY,
            f"heartbeat_expiry must be seconds from {SHORTEST_EXPIRY:g} to {LONGEST_EXPIRY:g},"
            f" not {heartbeat_expiry!r}",
        )
        is_bool = isinstance(leadership, bool)
        demand("leadership", is_bool, f"leadership must be True or False, not {leadership!r}")
        try:
            time_zone(timezone)
        except ValueError as error:
            errors.append(("timezone", str(error)))
        kept = Retention.parse(retention, lambda complaint: errors.append(("retention", complaint)))
        demand(
            "stage_batch",
            _is_count(stage_batch),
            f"stage_batch must be an integer from 1 to {LARGEST_COUNT}, not {stage_batch!r}",
        )
        demand(
            "pool_size",
            pool_size is None or _is_count(pool_size),
            f"pool_size must be an integer from 1 to {LARGEST_COUNT}, not {pool_size!r}",
        )
        demand(
            "claim_ahead",
            _is_number(claim_ahead) and 0 <= claim_ahead <= LONGEST_AHEAD,
            f"claim_ahead must be seconds from 0 to {LONGEST_AHEAD:g}, not {claim_ahead!r}",
        )
        if errors:
            raise ConfigError(errors)
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
            heartbeat_expiry=heartbeat_expiry,
            rescue_after=rescue_after,
            leadership=leadership,
            timezone=timezone,
            retention=kept,
            stage_batch=stage_batch,
            pool_size=pool_size,
            claim_ahead=float(claim_ahead),
        )


def name_of(worker: object) -> object:
    """The name of a worker class or a job function; anything else as it is."""
    return getattr(getattr(worker, "__oban__", None), "name", worker)


def names_of(worker: object) -> tuple[object, ...]:
    """The same, and the aliases, under which jobs may be stored, too."""
    return (name_of(worker), *getattr(getattr(worker, "__oban__", None), "aliases", ()))


def _plain_queue(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of a queue, without Oban's other ways to write them."""
    plain = dict(options)
    limit = plain.get("global_limit")
    if isinstance(limit, Mapping) and limit.keys() == {"allowed"}:
        plain["global_limit"] = limit = limit["allowed"]
    if limit is not None:
        # As in Oban: one node may run all of them.
        plain.setdefault("limit", limit)
    return plain


def _wrong_with_queue(name: object, options: Mapping[str, Any]) -> Iterator[str]:
    if not _is_name(name) or len(str(name)) > LONGEST_NAME:
        yield f"a queue's name must be 1 to {LONGEST_NAME} characters, not blank: {name!r}"
    for unknown in sorted(options.keys() - set(QUEUE_OPTIONS)):
        yield f"queue {name!r} has no option {unknown!r}; there are {', '.join(QUEUE_OPTIONS)}"
    if "limit" not in options:
        yield f"queue {name!r} needs a limit, like {{'limit': 10}}"
    elif not _is_count(options["limit"]):
        yield (
            f"the limit of queue {name!r} must be an integer from 1 to {LARGEST_COUNT},"
            f" not {options['limit']!r}"
        )
    if not (options.get("global_limit") is None or _is_count(options["global_limit"])):
        yield (
            f"the global_limit of queue {name!r} must be an integer from 1 to {LARGEST_COUNT},"
            f" not {options['global_limit']!r}"
        )
    if not isinstance(paused := options.get("paused", False), bool):
        yield f"paused of queue {name!r} must be True or False, not {paused!r}"


def _retained(
    where: str,
    given: Any,
    default: Mapping[str, float | None],
    complain: Callable[[str], None],
    endless: Collection[str] = (),
) -> dict[str, float | None]:
    all_states = [state for state in RETAINED if state not in endless] or RETAINED
    chosen = given if isinstance(given, Mapping) else dict.fromkeys(all_states, given)
    for state, seconds in chosen.items():
        if state not in RETAINED:
            complain(f"{where} has no state {state!r}; there are {', '.join(RETAINED)}")
        elif seconds is not None and not (_is_number(seconds) and seconds >= 0):
            complain(f"{where} must be seconds, 0 or more, or None for ever, not {seconds!r}")
    return {**default, **chosen}


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
