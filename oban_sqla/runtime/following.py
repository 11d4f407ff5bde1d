"""What follows outcomes in their transaction: the seam at which workflows release their steps."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from sqlalchemy import ColumnElement, Connection, Executable, false, literal_column, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from ..models import Job
from ..wakeups import Wakeup


class Fetches(Protocol):
    """What runs statements of ours."""

    async def fetch(
        self, statement: Executable, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True)
class Followed:
    """What followed from outcomes, to be told once their transaction has committed."""

    wakeup: Wakeup = field(default_factory=Wakeup)
    """The jobs that became available, or scheduled."""
    ended: Sequence[int] = ()
    """Other jobs that have ended by it."""
    events: Sequence[tuple[str, object]] = ()
    late: Sequence[int] = ()
    """The jobs whose outcome nothing followed from yet, since rows were locked."""


Statements: TypeAlias = Generator[tuple[Executable, Mapping[str, Any]], Sequence[Any], Followed]
"""Yields statements with their parameters, is sent their rows, and returns what followed."""


class Follower(Protocol):
    """A feature in which jobs follow others."""

    key: str
    """What the meta of each job that it concerns has."""

    def concerns(self, meta: Mapping[str, Any]) -> bool:
        """Whether anything follows from the outcome of a job with this meta."""

    def follow(self, ids: Sequence[int], *, wait: bool, prefix: str | None) -> Statements:
        """What follows now that these jobs are as they are.

        Without `wait`, a lock that somebody else has puts it off.
        """

    def reopen(self, ids: Sequence[int]) -> Statements:
        """What follows now that these jobs, which were finished, are to run again."""

    def results(self, job: Job) -> tuple[Executable, Mapping[str, Any]]:
        """What finds the values that a job follows from: their names and metas."""


_followers: list[Follower] = []


def register(follower: Follower) -> None:
    """Have a feature follow the outcomes of the jobs that it concerns."""
    if follower not in _followers:
        _followers.append(follower)


def is_followed(meta: object) -> bool:
    """Whether anything follows from the outcome of a job with this meta."""
    # Most jobs have none. Others may have written any JSON there.
    if not meta or not isinstance(meta, dict):
        return False
    return any(follower.concerns(meta) for follower in _followers)


def has_key_followed() -> ColumnElement[bool]:
    """Whether a job has a meta that a feature may follow."""
    return or_(false(), *(Job.meta.has_key(literal_column(f"'{f.key}'")) for f in _followers))


def follow(
    connection: Connection, ids: Sequence[int], prefix: str | None, *, reopened: bool = False
) -> Followed:
    """Have features follow outcomes in the transaction of a connection that may wait.

    reopened: the jobs were finished, and are to run again.
    """
    total = Followed()
    for follower in _followers:
        if reopened:
            statements = follower.reopen(ids)
        else:
            statements = follower.follow(ids, wait=True, prefix=prefix)
        rows: Sequence[Any] | None = None
        while True:
            try:
                statement, params = next(statements) if rows is None else statements.send(rows)
            except StopIteration as done:
                total = _sum(total, done.value)
                break
            options = {"schema_translate_map": {None: prefix}} if prefix else {}
            rows = connection.execute(statement, params, execution_options=options).all()
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
    """Have features follow outcomes."""
    total = Followed()
    for follower in _followers:
        statements = follower.follow(ids, wait=wait, prefix=prefix)
        rows: Sequence[Any] | None = None
        while True:
            try:
                statement, params = next(statements) if rows is None else statements.send(rows)
            except StopIteration as done:
                total = _sum(total, done.value)
                break
            rows = await database.fetch(statement, params)
    return total


async def results(job: Job, database: Fetches) -> dict[str, Any]:
    """The values that were recorded by the jobs that a job follows from."""
    found: dict[str, Any] = {}
    for follower in _followers:
        if follower.concerns(job.meta):
            rows = await database.fetch(*follower.results(job))
            found |= {name: meta.get("return") for name, meta in rows if meta.get("recorded")}
    return found


def _sum(one: Followed, other: Followed) -> Followed:
    return Followed(
        one.wakeup | other.wakeup,
        [*one.ended, *other.ended],
        [*one.events, *other.events],
        [*one.late, *other.late],
    )
