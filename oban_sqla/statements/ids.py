"""Find jobs by their ids."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY

from ..models import Job


def one_of(ids: Sequence[int]) -> ColumnElement[bool]:
    """Whether a job has one of these ids."""
    return Job.id == any_(literal(list(ids), ARRAY(BigInteger)))
