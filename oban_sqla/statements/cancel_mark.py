"""The mark of a job that was cancelled while it runs: Oban's `cancel_attempted_at` in its meta.

Such a job stays `executing` until its attempt ends; the mark says that it must not run again.
Other programs may write any JSON into `meta`. No value there may fail a statement.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Text,
    any_,
    bindparam,
    case,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from ..models import JobState
from .states import state_in
from .tables import JOB

MARK = "cancel_attempted_at"


def marked() -> ColumnElement[bool]:
    """Whether a job carries the mark."""
    found: ColumnElement[bool] = JOB.meta[MARK].astext.is_not(None)
    return found


def with_mark(time: ColumnElement[Any]) -> ColumnElement[Any]:
    """The meta of a job with the mark."""
    return with_meta(func.jsonb_build_object(literal(MARK, Text), time))


def without_mark() -> ColumnElement[Any]:
    """The meta of a job that runs again: without the mark, and without Oban's unique states."""
    rest = JOB.meta.op("-")(literal(MARK, Text))
    none = func.jsonb_set(rest, array([literal("uniq_bmp", Text)]), func.jsonb_build_array(), False)
    return case((_is_object(), none), else_=JOB.meta)


def with_meta(more: ColumnElement[Any]) -> ColumnElement[Any]:
    """The meta of a job merged with `more`. A meta that is no object moves to the key `meta`."""
    kept = func.jsonb_build_object(literal("meta", Text), JOB.meta)
    return case((_is_object(), JOB.meta), else_=kept).op("||")(more)


def _is_object() -> ColumnElement[bool]:
    return func.jsonb_typeof(JOB.meta) == literal("object", Text)


def marked_among() -> Executable:
    """The ids of the jobs among `running` that were cancelled meanwhile."""
    return select(JOB.id).where(
        JOB.id == any_(bindparam("running", type_=ARRAY(BigInteger))),
        state_in(JobState.EXECUTING),
        marked(),
    )
