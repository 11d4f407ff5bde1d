"""`Job` as an object: copies, checks and repr."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import Job, JobState
from oban_sqla.models.job import detached

Sessions = sessionmaker[Session]

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_a_new_job_has_the_defaults_of_the_database(session_factory: Sessions) -> None:
    job = Job("app.Worker")
    bare = Job.__table__.insert().values(worker="app.Worker").returning(Job.__table__)
    with session_factory() as session:
        row = session.execute(bare).mappings().one()
    ours = {key: getattr(job, key) for key in row if not key.endswith("_at") and key != "id"}
    assert ours == {key: row[key] for key in ours}
    assert len(ours) == 11


def test_a_time_makes_a_job_scheduled() -> None:
    assert Job("w").state is JobState.AVAILABLE
    assert Job("w", scheduled_at=NOON).state is JobState.SCHEDULED
    assert Job("w", scheduled_at=NOON, state=JobState.SUSPENDED).state is JobState.SUSPENDED


def test_a_job_copies_the_given_values() -> None:
    args: dict[str, Any] = {"ids": [1]}
    meta: dict[str, Any] = {"by": {"name": "ann"}}
    tags = ["a"]
    job = Job("w", args, meta=meta, tags=tags)
    args["ids"].append(2)
    meta["by"]["name"] = "bob"
    tags.append("b")
    assert (job.args, job.meta, job.tags) == ({"ids": [1]}, {"by": {"name": "ann"}}, ["a"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("worker", "", "worker must not be blank, got ''"),
        ("worker", "w" * 128, "worker is 128 characters long, at most 127 fit"),
        ("worker", Job, "worker must be a string, not <class 'oban_sqla.models.job.Job'>"),
        ("queue", " ", "queue must not be blank, got ' '"),
        ("args", [1], "args must be a mapping of strings to JSON values, not [1]"),
        ("meta", {"a": {1}}, "meta['a'] is a set, not JSON: {1}"),
        ("tags", "a", "tags must be a list of strings, not 'a'"),
        ("priority", 10, "priority must be from 0 to 9, got 10"),
        ("max_attempts", 0, "max_attempts must be from 1 to 32767, got 0"),
        ("scheduled_at", "now", "scheduled_at must be a datetime, not 'now'"),
        ("scheduled_at", None, "scheduled_at must be a datetime, not None"),
        ("cancelled_at", 0, "cancelled_at must be a datetime, not 0"),
        ("state", 1, "state must be a JobState, not 1"),
        (
            "state",
            "done",
            "state must be one of available, scheduled, suspended, executing, retryable,"
            " completed, discarded, cancelled, not 'done'",
        ),
    ],
)
def test_an_assignment_is_checked(field: str, value: object, message: str) -> None:
    job = Job("w")
    before = getattr(job, field)
    with pytest.raises((TypeError, ValueError)) as raised:
        setattr(job, field, value)
    assert message in str(raised.value)
    assert getattr(job, field) == before


def test_a_state_may_be_assigned_by_its_name() -> None:
    job = Job("w")
    job.state = "cancelled"  # type: ignore[assignment]
    assert job.state is JobState.CANCELLED


@pytest.mark.parametrize(
    "column", ["scheduled_at", "attempted_at", "completed_at", "cancelled_at", "discarded_at"]
)
@pytest.mark.parametrize(
    "given",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=5, minutes=45))),
    ],
    ids=["utc", "naive", "elsewhere"],
)
def test_times_are_utc_before_and_after_the_database(
    session_factory: Sessions, column: str, given: datetime
) -> None:
    job = Job("w")
    setattr(job, column, given)
    assert getattr(job, column) == NOON
    with session_factory() as session:
        session.add(job)
        session.flush()
        session.expire_all()
        assert getattr(job, column) == NOON
        assert getattr(job, column).tzinfo is UTC
        condition = getattr(Job, column) == given
        assert session.scalars(select(Job).where(condition)).one() is job


def test_generated_values_need_no_further_select(
    session_factory: Sessions,
) -> None:
    job = Job("w")
    with session_factory() as session:
        session.add(job)
        session.commit()
    assert job.id > 0
    assert job.inserted_at == job.scheduled_at
    assert job.inserted_at.tzinfo is UTC
    assert (job.state, job.attempted_at) == (JobState.AVAILABLE, None)


def test_a_repr_sends_no_select(session_factory: Sessions) -> None:
    job = Job("app.Worker", queue="some")
    assert repr(job) == "<Job worker=app.Worker queue=some state=available attempt=0>"
    with session_factory() as session:
        session.add(job)
        session.flush()
        assert repr(job).startswith(f"<Job id={job.id} worker=app.Worker")
        session.expire(job)
        sent: list[object] = []
        event.listen(session.get_bind(), "before_cursor_execute", lambda *args: sent.append(args))
        assert repr(job) == "<Job id=1>"
        assert not sent
        assert job.id
        assert sent


def test_a_recorded_value_is_read_back() -> None:
    assert Job("w").recorded is None
    assert Job("w", meta={"recorded": "json", "return": {"a": [1]}}).recorded == {"a": [1]}
    assert Job("w", meta={"recorded": "json", "return": None}).recorded is None
    assert Job("w", meta={"recorded": "json"}).recorded is None


def test_a_value_that_another_oban_recorded_is_refused() -> None:
    job = Job("w", meta={"recorded": True, "return": "g2EB"})
    with pytest.raises(ValueError, match="recorded by another Oban, as an Erlang term"):
        _ = job.recorded


def test_a_detached_job_can_be_read_and_added_to_a_session(
    session_factory: Sessions,
) -> None:
    with session_factory.begin() as session:
        session.add(Job("w", {"n": 1}))
    with session_factory() as session:
        row = session.execute(select(*Job.__table__.columns)).one()
        job = detached(row._asdict())
        assert (job.args, job.state) == ({"n": 1}, JobState.AVAILABLE)
        session.add(job)
        job.priority = 5
        session.flush()
        session.expire_all()
        assert job.priority == 5


def test_rows_of_other_programs_are_loaded_unchanged() -> None:
    job = detached({"id": 1, "worker": "w" * 300, "queue": "q", "priority": 12})
    assert (job.worker, job.priority) == ("w" * 300, 12)
