"""The settings of an instance, checked together: every mistake is named at once."""

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .instances import DEFAULT_NAME

# The longest channel name is 63 bytes, of which ".oban_schedule" takes 14.
LONGEST_PREFIX = 49

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
            try:
                checked.append(_queue(queue, given))
            except ValueError as error:
                errors.append(str(error))
        demand(_is_name(name), f"name must be a string that is not blank, not {name!r}")
        demand(node is None or _is_name(node), f"node must be a string that is not blank: {node!r}")
        demand(
            prefix is None or (_is_name(prefix) and len(prefix.encode()) <= LONGEST_PREFIX),
            f"prefix must be the name of a schema of at most {LONGEST_PREFIX} bytes: {prefix!r}",
        )
        demand(notify in ("listen", "poll"), f"notify must be 'listen' or 'poll', not {notify!r}")
        demand(
            listen_dsn is None or notify == "listen",
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
            _is_count(stage_batch), f"stage_batch must be an integer above 0, not {stage_batch!r}"
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


def _queue(name: object, given: object) -> Queue:
    if not _is_name(name) or len(str(name)) > 127:
        raise ValueError(f"a queue's name must be 1 to 127 characters, not blank: {name!r}")
    options = given if isinstance(given, Mapping) else {"limit": given}
    if unknown := sorted(map(str, set(options) - {"limit", "paused"})):
        raise ValueError(f"queue {name!r} has no option {unknown[0]!r}; there are limit, paused")
    limit, paused = options.get("limit"), options.get("paused", False)
    if not _is_count(limit):
        raise ValueError(f"the limit of queue {name!r} must be an integer above 0, not {limit!r}")
    if not isinstance(paused, bool):
        raise ValueError(f"paused of queue {name!r} must be True or False, not {paused!r}")
    return Queue(str(name), int(str(limit)), paused)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\x00" not in value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
