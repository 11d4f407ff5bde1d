"""States as SQL constants: with a bound parameter, the planner can't use a partial index."""

from sqlalchemy import ColumnElement, cast, literal_column

from ..models import JobState
from ..models.types import job_state
from .tables import JOB


def constant(state: JobState) -> ColumnElement[JobState]:
    """The state as a literal in the statement."""
    return cast(literal_column(f"'{state.value}'"), job_state)


def state_in(*states: JobState) -> ColumnElement[bool]:
    """Whether a job is in one of the states."""
    if len(states) == 1:
        one: ColumnElement[bool] = JOB.state == constant(states[0])
        return one
    some: ColumnElement[bool] = JOB.state.in_([constant(state) for state in states])
    return some
