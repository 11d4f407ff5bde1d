"""Which of the awaited jobs have ended."""

from functools import lru_cache

from sqlalchemy import BigInteger, Executable, bindparam, column, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from ..models.state import FINISHED
from .claimed import claimed_columns
from .ids import looked_up
from .states import state_in
from .tables import JOB, JOBS


@lru_cache(maxsize=1)
def finished() -> Executable:
    """Select the jobs of `ids` that have ended, and the ids without a job.

    Returns the id, whether the job exists, and its `claimed_columns`. Jobs that have not ended
    return no row: usually few of the awaited jobs have ended.
    """
    given = (
        func.unnest(bindparam("ids", type_=ARRAY(BigInteger)))
        .table_valued(column("id", BigInteger))
        .render_derived(name="given")
    )
    exists = JOB.id.is_not(None)
    return (
        select(given.c.id, exists, *claimed_columns(JOB))
        .select_from(given.outerjoin(JOBS, looked_up(JOB.id, given.c.id)))
        .where(or_(~exists, state_in(*FINISHED)))
        .order_by(given.c.id)
    )
