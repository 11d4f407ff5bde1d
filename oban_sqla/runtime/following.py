"""The seam for features that act on outcomes in their transaction, such as workflows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from sqlalchemy import ColumnElement, Connection, Executable, false, literal_column, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from ..models import Job
from ..models.recorded import recorded_value
from ..series import Series, run_series, run_series_async
from ..wakeups import Wakeup


class Fetches(Protocol):
    """An object that runs our statements."""

    async def fetch(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Followed:
    """The results of following outcomes, which are announced after their transaction."""

    wakeup: Wakeup = field(default_factory=Wakeup)
    """The jobs that became available or scheduled."""
    ended: Sequence[int] = ()
    """The ids of other jobs that have ended as a result."""
    events: Sequence[tuple[str, object]] = ()
    late: Sequence[int] = ()
    """The ids of jobs whose outcomes must be followed later, since rows were locked."""


Statements: TypeAlias = Series[tuple[Executable, Mapping[str, Any]], Followed]
"""A series of statements with their parameters."""


class Follower(Protocol):
    """A feature that acts on the outcomes of jobs."""

    key: str
    """A key that the meta of each concerned job has."""

    def concerns(self, meta: Mapping[str, Any]) -> bool:
        """Whether the feature follows the outcome of a job with this meta."""

    def follow(self, ids: Sequence[int], *, wait: bool, prefix: str | None) -> Statements:
        """Act on the new states of these jobs.

        Without `wait`, jobs whose rows are locked are left for later.
        """

    def reopen(self, ids: Sequence[int]) -> Statements:
        """Act on finished jobs that will run again."""

    def results(self, job: Job) -> tuple[Executable, Mapping[str, Any]]:
        """The statement that finds the names and metas of the jobs that a job follows."""


_followers: list[Follower] = []


def register(follower: Follower) -> None:
    """Register a feature that follows the outcomes of the jobs that it concerns."""
    if follower not in _followers:
        _followers.append(follower)


def is_followed(meta: object) -> bool:
    """Whether a feature follows the outcome of a job with this meta."""
    # Most jobs have no meta. Other programs may have written any JSON there.
    if not meta or not isinstance(meta, dict):
        return False
    return any([follower.concerns(meta) for follower in _followers])


def has_key_followed() -> ColumnElement[bool]:
    """Whether a job has a meta that a feature may follow."""
    return or_(false(), *(Job.meta.has_key(literal_column(f"'{f.key}'")) for f in _followers))


def follow(
    connection: Connection, ids: Sequence[int], prefix: str | None, *, reopened: bool = False
) -> Followed:
    """Let features follow outcomes in the transaction of a sync connection, waiting for locks.

    reopened: the jobs were finished, and are to run again.
    """
    options = {"schema_translate_map": {None: prefix}} if prefix else {}

    def execute(step: tuple[Executable, Mapping[str, Any]]) -> Sequence[Any]:
        return connection.execute(*step, execution_options=options).all()

    total = Followed()
    for follower in _followers:
        if reopened:
            statements = follower.reopen(ids)
        else:
            statements = follower.follow(ids, wait=True, prefix=prefix)
        total = _sum(total, run_series(statements, execute))
    return total


class InTransaction:
    """Runs statements on a connection with an open transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def fetch(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]:
        return (await self._connection.execute(statement, params)).all()


async def follow_by(
    database: Fetches, ids: Sequence[int], prefix: str | None, *, wait: bool = False
) -> Followed:
    """Let features follow outcomes, through any object that runs our statements."""
    total = Followed()
    for follower in _followers:
        statements = follower.follow(ids, wait=wait, prefix=prefix)
        total = _sum(total, await run_by(database, statements))
    return total


async def run_by(database: Fetches, statements: Statements) -> Followed:
    """Run statements through any object that runs our statements."""
    return await run_series_async(statements, lambda step: database.fetch(*step))


async def results(job: Job, database: Fetches) -> dict[str, Any]:
    """The values that were recorded by the jobs that a job follows from."""
    found: dict[str, Any] = {}
    for follower in _followers:
        if follower.concerns(job.meta):
            rows = await database.fetch(*follower.results(job))
            found |= {
                name: recorded_value(meta, f"step {name!r}")
                for name, meta in rows
                if meta.get("recorded")
            }
    return found


def _sum(one: Followed, other: Followed) -> Followed:
    return Followed(
        one.wakeup | other.wakeup,
        [*one.ended, *other.ended],
        [*one.events, *other.events],
        [*one.late, *other.late],
    )
