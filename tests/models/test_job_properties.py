"""Properties of jobs: an instance in Python and a statement in SQL give the same answer."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import Job, JobState, Worker, job
from tests.factories import JobFactory

Sessions = sessionmaker[Session]

NOW = datetime.now(UTC)
QUESTIONS = ("is_finished", "is_due", "failing", "waited", "duration")


class Mail(Worker, name="questions.mail"):
    async def process(self, job: Job) -> None: ...


@job(name="questions.report")
def report(month: str) -> None: ...


@pytest.fixture
def session(session_factory: Sessions) -> Any:
    with session_factory() as session:
        yield session


@pytest.fixture
def jobs(session: Session) -> list[Job]:
    """Jobs in every state: due or not, with errors or without, claimed or not."""
    jobs = []
    for state, due_in, errors, claimed in product(JobState, (-60, 60), ([], [{}]), (True, False)):
        made = Job("w", state=state, scheduled_at=NOW + timedelta(seconds=due_in))
        made.errors = errors
        made.attempted_at = NOW + timedelta(seconds=5) if claimed else None
        made.completed_at = NOW + timedelta(seconds=8)
        made.discarded_at = NOW + timedelta(seconds=9)
        jobs.append(made)
    session.add_all(jobs)
    session.flush()
    return jobs


@pytest.mark.parametrize("question", QUESTIONS)
def test_python_and_sql_agree(session: Session, jobs: list[Job], question: str) -> None:
    rows = session.execute(select(Job.id, getattr(Job, question)))
    answers = {job.id: getattr(job, question) for job in jobs}
    assert {id: answer for id, answer in rows} == answers
    assert len(set(answers.values())) > 1


def test_the_properties_of_a_job_are_right() -> None:
    done: Job = JobFactory.build(completed=True)
    done.attempted_at = done.completed_at - timedelta(seconds=3)
    done.scheduled_at = done.attempted_at - timedelta(seconds=2)
    assert done.is_finished
    assert not done.is_due
    assert (done.waited, done.duration) == (timedelta(seconds=2), timedelta(seconds=3))
    waiting = Job("w", scheduled_at=NOW - timedelta(seconds=1))
    assert waiting.is_due
    assert not waiting.failing
    assert (waiting.waited, waiting.duration) == (None, None)


def test_for_worker_selects_the_jobs_of_workers(session: Session) -> None:
    session.add_all([Mail.new(), report.new("2026-11"), Job("another")])
    session.flush()

    def found(*workers: Any) -> list[str]:
        jobs = session.scalars(select(Job).where(Job.for_worker(*workers)).order_by(Job.id))
        return [job.worker for job in jobs]

    assert found(Mail) == ["questions.mail"]
    assert found(Mail, report, "another") == ["questions.mail", "questions.report", "another"]
    assert found() == []
    renamed = job(name="questions.new", aliases=["another"])(lambda: None)
    assert found(renamed) == ["another"]
    with pytest.raises(TypeError, match="worker must be"):
        Job.for_worker(5)


def test_args_contain_selects_jobs_by_arguments(session: Session) -> None:
    order = {"order": {"id": 7, "lines": [1, 2]}, "user": "ann"}
    session.add_all([Mail.new(order), Mail.new({"order": {"id": 8}})])
    session.flush()

    def count(args: dict[str, Any]) -> int:
        return len(session.scalars(select(Job).where(Job.args_contain(args))).all())

    assert count({}) == 2
    assert count({"order": {"id": 7}}) == 1
    assert count({"order": {"lines": [2]}}) == 1
    assert count({"user": "bob"}) == 0
    with pytest.raises(TypeError, match="args"):
        Job.args_contain({"when": NOW})
