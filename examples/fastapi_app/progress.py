"""Load orders with their jobs, and describe the jobs: `receipt: executing, attempt 2`."""

from itertools import groupby

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from examples.fastapi_app.models import Order
from oban_sqla import Job, JobState

# The migration creates an index for this condition.
ITS_JOB = Job.args.contains(func.jsonb_build_object("order_id", Order.id))


async def load(
    session: AsyncSession, *conditions: ColumnElement[bool]
) -> list[tuple[Order, list[Job]]]:
    """The orders that meet the conditions, the newest first, each with its jobs."""
    query = (
        select(Order, Job)
        .outerjoin(Job, ITS_JOB)
        .where(*conditions)
        .options(joinedload(Order.product))
        .order_by(Order.id.desc(), Job.id)
    )
    rows = await session.execute(query)
    return [
        (order, [job for _, job in its if job is not None])
        for order, its in groupby(rows, lambda row: row[0])
    ]


def describe(job: Job) -> str:
    """The state of a job in a few words."""
    if job.state is JobState.SCHEDULED:
        return f"{job.worker}: scheduled for {job.scheduled_at:%Y-%m-%d %H:%M} UTC"
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    return f"{job.worker}: {job.state}{attempt}"
