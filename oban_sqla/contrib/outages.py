"""Outages: many services of a node fail for one cause, which deserves one line in the log."""

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

# Of SQLSTATE: connection exceptions, an admin's or a crash's shutdown, too many connections.
_LOST = ("08", "57P", "53300")


@dataclass(slots=True)
class Outage:
    """A time in which a node can't use its database."""

    began: float = field(default_factory=time.monotonic)
    services: set[str] = field(default_factory=set)
    """The services that have failed and have not been restored."""
    told: bool = False
    """Whether the log has a line about it."""

    @property
    def duration(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began


class Outages:
    """The outage of each node that has one."""

    def __init__(self) -> None:
        self._outages: WeakKeyDictionary[Hashable, Outage] = WeakKeyDictionary()

    def of(self, node: Hashable, service: str) -> Outage | None:
        """The outage that a service is part of."""
        outage = self._outages.get(node)
        return outage if outage is not None and service in outage.services else None

    def join(self, node: Hashable, service: str) -> Outage:
        """The outage of a node, of which a service is part from now on."""
        outage = self._outages.get(node)
        # A service that fails again was restarted in between: the node is another one.
        if outage is None or service in outage.services:
            outage = self._outages[node] = Outage()
        outage.services.add(service)
        return outage

    def leave(self, node: Hashable, service: str) -> Outage | None:
        """The outage that ends with the restored service; `None` if other services still fail."""
        outage = self._outages[node]
        outage.services.discard(service)
        return None if outage.services else self._outages.pop(node)


def is_outage(error: BaseException) -> bool:
    """Whether a service failed since it could not use the database at all."""
    if isinstance(error, OSError | PoolTimeoutError):  # a TimeoutError is an OSError
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlstate", None)
    if code is not None:
        return str(code).startswith(_LOST)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return lost or isinstance(cause, OSError | psycopg.OperationalError)
