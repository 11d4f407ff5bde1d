"""Everything that `new()` accepts is stored and read back, by sessions and by the insert."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import Job
from oban_sqla.statements.insert import insert, records

Sessions = sessionmaker[Session]

# Any characters, including those that PostgreSQL can't store.
text = st.text(st.characters() | st.sampled_from("\x00\ud800\udfff\U0010ffff\u2028\\\"'%:"))
numbers = st.integers() | st.integers(-(2**15000), 2**15000) | st.floats()
scalars = st.none() | st.booleans() | numbers | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20
)
objects = st.dictionaries(text, values, max_size=5)


def add(session: Session, jobs: list[Job]) -> None:
    session.add_all(jobs)
    session.flush()


def insert_at_once(session: Session, jobs: list[Job]) -> None:
    session.connection().execute(insert(announced=False), {"jobs": records(jobs)})


ways = pytest.mark.parametrize("store", [add, insert_at_once])
in_the_database = settings(
    deadline=None,
    suppress_health_check=[
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)

Store = Callable[[Session, list[Job]], None]


def come_back(sessions: Sessions, store: Store, jobs: list[Job]) -> list[Job]:
    """Store the jobs, and return them as another transaction reads them. The table is empty
    afterwards.
    """
    with sessions() as session:
        store(session, jobs)
        session.expunge_all()
        return list(session.scalars(select(Job).order_by(Job.id)))


def accepted(**options: Any) -> Job | None:
    try:
        return Job("app.Worker", **options)
    except (TypeError, ValueError):
        return None


def same(stored: Any, given: Any) -> bool:
    """Whether values are equal as JSON. PostgreSQL's numbers are decimals, so 1e+23 comes back as
    an integer.
    """
    if isinstance(given, dict):
        return stored.keys() == given.keys() and all(same(stored[k], given[k]) for k in given)
    if isinstance(given, list):
        return len(stored) == len(given) and all(map(same, stored, given))
    if isinstance(given, float):
        return float(stored) == given
    return type(stored) is type(given) and stored == given


@ways
def test_any_json_that_is_accepted_comes_back(session_factory: Sessions, store: Store) -> None:
    @in_the_database
    @given(args=objects, meta=objects)
    def comes_back(args: dict[str, Any], meta: dict[str, Any]) -> None:
        if job := accepted(args=args, meta=meta):
            (stored,) = come_back(session_factory, store, [job])
            assert same(stored.args, args)
            assert same(stored.meta, meta)

    comes_back()


@ways
def test_any_text_that_is_accepted_comes_back(session_factory: Sessions, store: Store) -> None:
    @in_the_database
    @given(queue=text, worker=text, tags=st.lists(text))
    def comes_back(queue: str, worker: str, tags: list[str]) -> None:
        try:
            job = Job(worker, queue=queue, tags=tags)
        except ValueError:
            return
        (stored,) = come_back(session_factory, store, [job])
        assert (stored.queue, stored.worker, stored.tags) == (queue, worker, job.tags)

    comes_back()


@ways
def test_any_number_and_time_that_is_accepted_comes_back(
    session_factory: Sessions, store: Store
) -> None:
    @in_the_database
    @given(
        priority=st.integers(-1, 10),
        max_attempts=st.integers() | st.integers(1, 32768),
        scheduled_at=st.datetimes(timezones=st.none() | st.timezones()),
    )
    def comes_back(priority: int, max_attempts: int, scheduled_at: datetime) -> None:
        if job := accepted(priority=priority, max_attempts=max_attempts, scheduled_at=scheduled_at):
            (stored,) = come_back(session_factory, store, [job])
            assert (stored.priority, stored.max_attempts) == (priority, max_attempts)
            assert (stored.state, stored.scheduled_at) == ("scheduled", job.scheduled_at)

    comes_back()


@ways
def test_extreme_values_come_back(session_factory: Sessions, store: Store) -> None:
    deepest: list[Any] = []
    for _ in range(254):
        deepest = [deepest]
    edges = [
        Job("w" * 127, queue="\U0001f600" * 127, tags=["\U0001f600" * 300]),
        Job("w", {"integers": [2**14_000 - 1, -(2**14_000) + 1, 2**63, 0]}),
        Job("w", {"floats": [5e-324, -1.7976931348623157e308, 0.1, 1e22, 1e23]}),
        Job("w", {"deepest": deepest}),
        Job("w", {"text": "\x01\x1f\x7f\u2028\ufffe\uffff\U0010ffff", "": {"": ""}}),
        Job("w", {"large": "x" * 1_000_000}, priority=9, max_attempts=32767),
        Job("w", scheduled_at=datetime.min),
        Job("w", scheduled_at=datetime.max),
    ]
    stored = come_back(session_factory, store, edges)
    for before, after in zip(edges, stored, strict=True):
        assert same(after.args, before.args)
        assert (after.worker, after.queue, after.tags) == (
            before.worker,
            before.queue,
            before.tags,
        )
    assert stored[-2].scheduled_at == datetime.min.replace(tzinfo=UTC)
    assert stored[-1].scheduled_at == datetime.max.replace(tzinfo=UTC)
