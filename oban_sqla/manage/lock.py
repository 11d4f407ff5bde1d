"""Lock jobs in the order of their ids, so that two transactions can't deadlock."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, any_, bindparam, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from ..models import Job, JobState
from ..statements.ids import one_of
from ..statements.states import state_in

_IDS = ARRAY(BigInteger)


def lock(chosen: Select[Any], *states: JobState) -> Select[Any]:
    """Lock the jobs that a SELECT finds, if they are in one of the states. Returns the ids.

    While the statement waits for a lock, the job may change, so the caller must look `again`.
    """
    found = select(chosen.subquery().c.id).scalar_subquery()
    return _in_order(Job.id == any_(func.array(found, type_=_IDS)), states)


def again(chosen: Select[Any], ids: Sequence[int]) -> Select[Any]:
    """The same SELECT, restricted to these ids."""
    (described,) = chosen.column_descriptions
    # Without the OFFSET, since the ids do not include the skipped jobs.
    return chosen.where(described["entity"].id == any_(literal(list(ids), _IDS))).offset(None)


def load(ids: Sequence[int]) -> Select[Any]:
    """Lock and select jobs in any state."""
    chosen = select(Job).where(one_of(ids))
    return chosen.order_by(Job.id).with_for_update()


def locked(*states: JobState) -> ColumnElement[bool]:
    """Whether a job is one of `ids`, and in one of the states after it was locked."""
    first = _in_order(Job.id == any_(bindparam("ids", type_=_IDS)), states)
    # An array instead of a join: for a join, the planner would expect a tenth of the table.
    return Job.id == any_(func.array(first.scalar_subquery(), type_=_IDS))


def _in_order(chosen: ColumnElement[bool], states: Sequence[JobState]) -> Select[Any]:
    return select(Job.id).where(chosen, state_in(*states)).order_by(Job.id).with_for_update()
