"""Find the jobs whose move the database refuses, and make other statements skip them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Integer,
    Select,
    Text,
    TextClause,
    all_,
    any_,
    bindparam,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ..clock import database_now
from ..models import Job, JobState
from ..models.state import STAGEABLE
from .claim import claim, claim_order, of_queue
from .states import constant, state_in

CHECK_NOW: TextClause = text("SET CONSTRAINTS ALL IMMEDIATE")
"""Checks the deferred constraints of a transaction before its end."""

LONGEST_IDLE = "500ms"
"""How long a transaction that hides jobs may wait for the statement."""

_QUEUE = Job.queue == bindparam("queue_name", type_=Text)
_PRODUCER = Job.attempted_by[2] == bindparam("producer", type_=Text)


class Move(NamedTuple):
    """What a statement does with many jobs, for the search for a job that the database refuses."""

    name: str
    """What happens to a job, for the event."""
    states: Sequence[JobState]
    """The states from which the statement moves jobs."""
    candidates: Executable
    """Selects the ids of jobs that the statement may move."""
    trial: Executable
    """Moves the jobs with some `ids`, except locked ones, and returns their ids."""


def claim_move() -> Move:
    return Move("claim", [JobState.AVAILABLE], claimable(), claim())


def stage_move() -> Move:
    return Move("stage", STAGEABLE, stageable(), make_available(*STAGEABLE))


def give_back_move() -> Move:
    executing = JobState.EXECUTING
    return Move("give back", [executing], returnable(), make_available(executing))


def rescue_move() -> Move:
    executing = JobState.EXECUTING
    return Move("rescue", [executing], rescuable(), make_available(executing))


@lru_cache(maxsize=1)
def limit_idle_time() -> Executable:
    """Let the server end this transaction if it sends nothing for `LONGEST_IDLE`."""
    return select(
        func.set_config("idle_in_transaction_session_timeout", LONGEST_IDLE, literal(True))
    )


@lru_cache(maxsize=4)
def hide(*states: JobState) -> Executable:
    """Lock the jobs with these `ids` in one of the states, so that other statements skip them.

    Several nodes may hold this lock at once.
    """
    return unmoved(*states).with_for_update(read=True, skip_locked=True)


@lru_cache(maxsize=4)
def unmoved(*states: JobState) -> Select[int]:
    """Select the jobs with these `ids` that are in one of the states."""
    return select(Job.id).where(_with_ids(), state_in(*states)).order_by(Job.id)


@lru_cache(maxsize=1)
def claimable() -> Executable:
    """The first `most` ids that a claim of `queue_name` may move, except `known` ones."""
    return _first(state_in(JobState.AVAILABLE), of_queue(), order=claim_order(Job))


@lru_cache(maxsize=1)
def stageable() -> Executable:
    """The first `most` ids of due jobs, except `known` ones."""
    due = Job.scheduled_at <= database_now(None)
    return _first(state_in(*STAGEABLE), due, order=(Job.scheduled_at, Job.id))


@lru_cache(maxsize=1)
def returnable() -> Executable:
    """The first `most` ids that `producer` may give back in `queue_name`, except `known` ones."""
    return _first(state_in(JobState.EXECUTING), _QUEUE, _PRODUCER, order=(Job.id,))


@lru_cache(maxsize=1)
def rescuable() -> Executable:
    """The first `most` ids of executing jobs, except `known` ones. The oldest jobs come first."""
    return _first(state_in(JobState.EXECUTING), order=(Job.attempted_at, Job.id))


@lru_cache(maxsize=4)
def make_available(*states: JobState) -> Executable:
    """Move the jobs with these `ids` from one of the states to `available`; returns their ids."""
    unlocked = unmoved(*states).with_for_update(key_share=True, skip_locked=True)
    return (
        update(Job)
        .where(Job.id.in_(unlocked))
        .values(state=constant(JobState.AVAILABLE))
        .returning(Job.id)
    )


def _first(*which: ColumnElement[bool], order: Sequence[Any]) -> Select[int]:
    known = all_(bindparam("known", type_=ARRAY(BigInteger)))
    most = bindparam("most", type_=Integer)
    return select(Job.id).where(*which, Job.id != known).order_by(*order).limit(most)


def _with_ids() -> ColumnElement[bool]:
    found: ColumnElement[bool] = Job.id == any_(bindparam("ids", type_=ARRAY(BigInteger)))
    return found
