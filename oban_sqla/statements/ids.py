"""Find jobs by their ids."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY, array

from ..models import Job


def one_of(ids: Sequence[int]) -> ColumnElement[bool]:
    """Whether a job has one of these ids."""
    return Job.id == any_(literal(list(ids), ARRAY(BigInteger)))


def looked_up(id: Any, other: Any) -> ColumnElement[bool]:
    """Whether `id`, the primary key of a table, is the `other` one: for the condition of a join.

    The planner may expect a single row in a table of many: ANALYZE does not count the rows of
    open transactions. With `id = other` it would then read the whole table again for each row of
    the other side. This form leaves it the index.
    """
    found: ColumnElement[bool] = id == any_(array([other]))
    return found
