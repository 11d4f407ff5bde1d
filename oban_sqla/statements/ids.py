"""Jobs by their ids, in SQL."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY

from ..models import Job


def one_of(ids: Sequence[int]) -> ColumnElement[bool]:
    """Whether a job is one of these."""
    return Job.id == any_(literal(list(ids), ARRAY(BigInteger)))
