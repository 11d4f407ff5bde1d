"""What a contestant has to be able to do; each does it as its own documentation recommends."""

from abc import ABC, abstractmethod
from importlib import import_module
from types import TracebackType
from typing import Self

NAMES = ("oban_sqla", "oban_sqla_psycopg", "bare", "oban_py", "procrastinate", "pgqueuer")


class Contestant(ABC):
    """A queue on a fresh database, whose jobs do nothing."""

    waiting: str
    """The SELECT of how many jobs wait."""
    finished: str
    """The SELECT of how many are finished, each of them once."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @abstractmethod
    async def install(self) -> None:
        """Create the tables."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Connect."""

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disconnect."""

    @abstractmethod
    async def enqueue_many(self, count: int) -> None:
        """Enqueue so many jobs, all or none."""

    @abstractmethod
    async def enqueue(self) -> None:
        """Enqueue one job in a transaction of its own."""

    @abstractmethod
    async def drain(self, count: int, limit: int) -> None:
        """Run all jobs, `limit` at once, until `count` have been run."""


def load(name: str, dsn: str) -> Contestant:
    """The contestant of that name; `ModuleNotFoundError` if its package is not installed."""
    contestant: type[Contestant] = import_module(f"{__package__}.contestants.{name}").Entrant
    return contestant(dsn)
