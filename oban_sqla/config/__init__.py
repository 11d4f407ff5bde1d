"""`Config`: the settings of an `Oban`, checked together. Every mistake is named at once."""

import os
import socket
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

from ..errors import ConfigError
from .oban_settings import RULES, ObanSettings
from .queues import Queue
from .retention import Retention

NODE_CONNECTIONS = 5
"""What a node itself uses of a pool, beside the jobs: LISTEN, claims, outcomes, services."""

LONGEST_INTERVAL = 15.0


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
    def check(cls, **given: Unpack[ObanSettings]) -> "Config":
        """The settings; a `ConfigError` that lists all that is wrong with them.

        `TypeError` for a name that is none of a setting.
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
        # Containers share host names, so the process tells nodes of one host apart.
        checked["node"] = checked["node"] or f"{socket.gethostname()}.{os.getpid()}"
        return cls(**checked)
