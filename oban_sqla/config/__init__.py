"""`Config`: the settings of an `Oban`, checked together. One error lists all mistakes."""

import os
import socket
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

from ..errors import ConfigError
from .oban_settings import RULES, ObanSettings
from .queues import Queue
from .retention import Retention

NODE_CONNECTIONS = 5
"""The connections that a node uses beside its jobs: LISTEN, claims, outcomes, services."""

LONGEST_INTERVAL = 15.0


@dataclass(frozen=True, slots=True)
class Config:
    """The checked arguments of `Oban`. All times are seconds."""

    name: str
    node: str
    prefix: str | None
    queues: tuple[Queue, ...]
    shutdown_grace_period: float
    notify: Literal["listen", "poll"]
    listen_dsn: str | None = field(repr=False)  # may contain a password
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
        """The size of a pool that is made for this node; `None` for SQLAlchemy's default."""
        if self.pool_size is not None or not self.queues:
            return self.pool_size
        return sum(queue.limit for queue in self.queues) + NODE_CONNECTIONS

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two beats. A node expires only after three lost beats in a row.

        At most 15: oban-py's leader deletes producers after a minute without a beat.
        """
        return min(self.heartbeat_expiry / 4, LONGEST_INTERVAL)

    @property
    def lease(self) -> float:
        """Seconds of the leader's lease. If a leader dies, another one rescues its jobs in time."""
        return self.heartbeat_expiry / 3

    @classmethod
    def check(cls, **given: Unpack[ObanSettings]) -> "Config":
        """Check the settings. A `ConfigError` lists all mistakes.

        `TypeError` if there is no setting of a name.
        """
        values: dict[str, Any] = {**given}
        errors: list[tuple[str, str]] = []
        checked = {}
        for key, rule in RULES.items():
            complaints: list[str] = []
            checked[key] = rule.check(key, values.pop(key, rule.default), complaints.append)
            errors.extend((key, complaint) for complaint in complaints)
        if values:
            known = ", ".join(RULES)
            raise TypeError(f"there is no setting {next(iter(values))!r}; there are {known}")
        if checked["listen_dsn"] is not None and checked["notify"] == "poll":
            text = "listen_dsn names the connection for LISTEN, which notify='poll' does without"
            errors.append(("listen_dsn", text))
        if errors:
            raise ConfigError(errors)
        # The process id tells the nodes of one host apart.
        checked["node"] = checked["node"] or f"{socket.gethostname()}.{os.getpid()}"
        return cls(**checked)
