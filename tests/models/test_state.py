"""The states: every statement of ours makes only legal moves."""

import pkgutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session, sessionmaker

from oban_sqla import Job, JobState, Unique, statements
from oban_sqla.manage.cancel import cancel
from oban_sqla.manage.retry import retry
from oban_sqla.models import ProducerRow
from oban_sqla.models.state import FINISHED, LEGAL_MOVES, STAGEABLE
from oban_sqla.models.unique_job import hold_key
from oban_sqla.statements import unique as unique_module
from oban_sqla.statements import update as update_module
from oban_sqla.statements.acknowledge import Ack, outcomes
from oban_sqla.statements.acknowledge import acknowledge as acknowledgement
from oban_sqla.statements.claim import FRONT, claim_of_queue
from oban_sqla.statements.give_back import give_back
from oban_sqla.statements.move_apart import make_available
from oban_sqla.statements.rescue import rescue
from oban_sqla.statements.stage import stage

Sessions = sessionmaker[Session]

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PRODUCER = "0b3c5d8e-0000-4000-8000-000000000000"
CLAIM = {"queue_name": "default", "limit": 1000, "node_name": "node", "producer": PRODUCER, **FRONT}


def one_of_each(session: Session) -> dict[int, JobState]:
    """Jobs in every state, with attempts left and without, due and not: their ids and states."""
    jobs = []
    for state, attempt, due_in in product(JobState, (0, 1, 20), (-60, 60)):
        job = Job("tests.Nobody", state=state, scheduled_at=NOW + timedelta(seconds=due_in))
        job.attempt = attempt
        job.attempted_at = NOW
        job.attempted_by = ["node", PRODUCER]
        jobs.append(job)
    session.add_all(jobs)
    session.flush()
    return {job.id: job.state for job in jobs}


def claim(session: Session) -> None:
    session.execute(claim_of_queue(), CLAIM)


def acknowledge(state: JobState) -> Callable[[Session], None]:
    """Send an outcome with this state for every job, as a late or wrong worker would."""

    def acknowledge(session: Session) -> None:
        acks = [
            Ack(job.id, job.attempt, NOW, state, delay=60.0, spent=job.attempt == 0)
            for job in session.scalars(select(Job))
        ]
        session.execute(acknowledgement(), outcomes(acks))

    return acknowledge


def give_all_back(session: Session) -> None:
    parameters = {"queue_name": "default", "producer": PRODUCER, "running": []}
    session.execute(give_back(), parameters)


def rescue_from_the_dead(session: Session) -> None:
    now = NOW + timedelta(hours=1)
    meta = {"expiry": 60.0, "unbroken_since": NOW.timestamp()}
    session.add(ProducerRow(uuid=uuid4(), node="n", queue="q", meta=meta, updated_at=now))
    session.flush()
    parameters = {"batch": 1000, "expiry": 60.0, "settled": 30.0, "rescue_after": 1.0}
    session.execute(rescue(now=now), parameters)


def once_cancelled(move: Callable[[Session], None]) -> Callable[[Session], None]:
    """`acknowledge` for jobs that were cancelled while they ran."""

    def move_the_marked(session: Session) -> None:
        session.execute(update(Job).values(meta={"cancel_attempted_at": "2026-11-01T12:00:00"}))
        move(session)

    return move_the_marked


def every_id(session: Session) -> list[int]:
    return list(session.scalars(select(Job.id)))


def cancel_all(session: Session) -> None:
    session.execute(cancel(), {"ids": every_id(session)})


def retry_all(session: Session) -> None:
    session.execute(retry(), {"ids": every_id(session)})


def put_off(seconds: int) -> Callable[[Session], None]:
    def put_off(session: Session) -> None:
        at = NOW + timedelta(seconds=seconds)
        statement = update_module.update(frozenset({"scheduled_at"}), now=NOW)
        changes = [(every_id(session), {"scheduled_at": at})]
        session.execute(statement, update_module.update_parameters(changes))

    return put_off


def stage_what_is_due(session: Session) -> None:
    session.execute(stage(now=NOW), {"batch": 1000})


def make_all_available(session: Session) -> None:
    session.execute(make_available(*STAGEABLE), {"ids": every_id(session)})


def replace_time(at: datetime) -> Callable[[Session], None]:
    """Enqueue a duplicate of every job, which replaces its time in any state."""
    rules = {state: ["scheduled_at"] for state in JobState}
    unique = Unique(fields=["args"], states="all", replace=rules)

    def replace_time(session: Session) -> None:
        duplicates = [
            Job("w", {"id": id}, unique=unique, scheduled_at=at) for id in every_id(session)
        ]
        for duplicate in duplicates:
            hold_key(duplicate)
            statement = update(Job).where(Job.id == duplicate.args["id"])
            session.execute(statement.values(meta=duplicate.meta))
        session.execute(unique_module.settle(), unique_module.duplicates(duplicates))

    return replace_time


# The calls of each module of statements/, and the moves that must happen.
MOVERS: dict[str, dict[Callable[[Session], None], set[tuple[str, str]]]] = {
    "claim": {claim: {("available", "executing"), ("available", "discarded")}},
    "acknowledge": {
        acknowledge(JobState.COMPLETED): {("executing", "completed")},
        acknowledge(JobState.CANCELLED): {("executing", "cancelled")},
        acknowledge(JobState.DISCARDED): {("executing", "discarded")},
        acknowledge(JobState.RETRYABLE): {("executing", "retryable")},
        acknowledge(JobState.SCHEDULED): {("executing", "scheduled")},
        once_cancelled(acknowledge(JobState.RETRYABLE)): {("executing", "cancelled")},
    },
    "cancel": {
        cancel_all: {
            (state, "cancelled") for state in ("available", "scheduled", "suspended", "retryable")
        }
    },
    "give_back": {
        give_all_back: {("executing", "available")},
        once_cancelled(give_all_back): {("executing", "cancelled")},
    },
    "rescue": {
        rescue_from_the_dead: {("executing", "available"), ("executing", "discarded")},
        once_cancelled(rescue_from_the_dead): {("executing", "cancelled")},
    },
    "retry": {
        retry_all: {
            (state, "available")
            for state in JobState
            if state not in (JobState.AVAILABLE, JobState.EXECUTING)
        }
    },
    "move_apart": {
        make_all_available: {(state, "available") for state in ("scheduled", "retryable")},
    },
    "stage": {stage_what_is_due: {("scheduled", "available"), ("retryable", "available")}},
    "update": {
        put_off(1): {("available", "scheduled")},
        put_off(0): {("scheduled", "available")},
    },
    "unique": {
        replace_time(datetime(2040, 1, 1)): {("available", "scheduled")},
        replace_time(datetime(2020, 1, 1)): {("scheduled", "available")},
    },
}
STILL = {
    "announce",
    "available",
    "claimed",
    "orders",
    "counts",
    "cron",
    "elect",
    "execute",
    "finished",
    "heartbeat",
    "ids",
    "insert",
    "insert_few",
    "insert_one",
    "inspect",
    "on_discard",
    "cancel_mark",
    "custom_plan",
    "presence",
    "prune",
    "states",
    "tables",
}
"""Modules that move no job."""

moves = [
    pytest.param(move, seen, id=f"{module}-{'-'.join(sorted(to for _, to in seen))}")
    for module, movers in MOVERS.items()
    for move, seen in movers.items()
]


@pytest.mark.parametrize(("move", "seen"), moves)
def test_a_statement_makes_its_legal_moves(
    session_factory: Sessions, move: Callable[[Session], None], seen: set[Any]
) -> None:
    with session_factory() as session:
        before = one_of_each(session)
        move(session)
        session.expire_all()
        after = {job.id: job.state for job in session.scalars(select(Job))}
    made = {(before[id], after[id]) for id in before if before[id] is not after[id]}
    assert made == seen
    assert all(to in LEGAL_MOVES[was] for was, to in made)


def test_every_module_of_statements_is_listed_here() -> None:
    modules = {module.name for module in pkgutil.iter_modules(statements.__path__)}
    unknown = modules - STILL - MOVERS.keys()
    assert not unknown, f"add to MOVERS what moves jobs, and to STILL what does not: {unknown}"


def test_every_state_has_its_moves_and_none_moves_to_itself() -> None:
    assert LEGAL_MOVES.keys() == set(JobState)
    assert all(targets and state not in targets for state, targets in LEGAL_MOVES.items())


def test_waiting_jobs_can_be_staged_and_finished_jobs_only_retried() -> None:
    assert all(JobState.AVAILABLE in LEGAL_MOVES[state] for state in STAGEABLE)
    assert all(LEGAL_MOVES[state] == {JobState.AVAILABLE} for state in FINISHED)


def test_the_states_are_those_of_the_database_in_its_order(session_factory: Sessions) -> None:
    with session_factory() as session:
        query = text("SELECT unnest(enum_range(NULL::oban_job_state))::text")
        schema = session.connection().get_execution_options()["schema_translate_map"][None]
        session.execute(text("SELECT set_config('search_path', :schema, true)"), {"schema": schema})
        assert session.scalars(query).all() == list(JobState)
