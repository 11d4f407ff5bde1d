"""Outages: if many services of a node fail for the same cause, the log has one line about it."""

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

# Prefixes of SQLSTATEs: connection exceptions, shutdown or crash, too many connections.
_LOST = ("08", "57P", "53300")


@dataclass(slots=True)
class Outage:
    """A time in which a node can't use its database."""

    began: float = field(default_factory=time.monotonic)
    services: set[str] = field(default_factory=set)
    """The services that have failed and have not been restored."""
    told: bool = False
    """Whether the outage was logged."""

    @property
    def duration(self) -> float:
        """Seconds since the outage began."""
        return time.monotonic() - self.began


class Outages:
    """The current outages, by node."""

    def __init__(self) -> None:
        self._outages: WeakKeyDictionary[Hashable, Outage] = WeakKeyDictionary()

    def of(self, node: Hashable, service: str) -> Outage | None:
        """The outage to which a failed service belongs, if any."""
        outage = self._outages.get(node)
        return outage if outage is not None and service in outage.services else None

    def join(self, node: Hashable, service: str) -> Outage:
        """Add a failed service to the outage of its node, or begin an outage."""
        outage = self._outages.get(node)
        # A service that fails again without being restored belongs to a restarted node.
        if outage is None or service in outage.services:
            outage = self._outages[node] = Outage()
        outage.services.add(service)
        return outage

    def leave(self, node: Hashable, service: str) -> Outage | None:
        """Remove a restored service. Returns the outage if it ends, or `None`."""
        outage = self._outages[node]
        outage.services.discard(service)
        return None if outage.services else self._outages.pop(node)


def is_outage(error: BaseException) -> bool:
    """Whether a service failed because it could not use the database at all."""
    if isinstance(error, OSError | PoolTimeoutError):  # a TimeoutError is an OSError
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlstate", None)
    if code is not None:
        return str(code).startswith(_LOST)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or isinstance(cause, OSError | psycopg.OperationalError)
