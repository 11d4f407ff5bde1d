"""Enqueue a workflow in the transaction of whatever the caller holds."""

from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, make_transient

from .. import wakeups
from ..enqueue.batch import wakeup
from ..enqueue.enqueue import Conn
from ..enqueue.from_rows import make_new
from ..enqueue.session_of import unscoped
from ..runtime.database import Database
from .insertion import insert_through
from .workflow import Workflow, growing


async def enqueue_workflow(workflow: Workflow, conn: Conn | None, database: Database) -> None:
    """Enqueue a workflow, or what was added to one that runs.

    A session has it added, and its next flush inserts it. Any other connection inserts it now.
    `ValueError` for a graph that can't be, before anything is sent.
    """
    if conn is None:
        try:
            async with database.transaction() as connection:
                await insert_through(workflow, connection, database.prefix)
        except BaseException:
            _forget(workflow)
            raise
        jobs = [draft.job for draft in workflow.graph.drafts.values()]
        wakeups.publish(database.address, database.prefix, wakeup(jobs))
        return
    session = unscoped(conn)
    if isinstance(session, AsyncSession):
        session = session.sync_session
    if isinstance(session, Session):
        session.add(workflow)
    else:
        await insert_through(workflow, conn, database.prefix)


def _forget(workflow: Workflow) -> None:
    """Make what was rolled back new again."""
    for draft in workflow.graph.drafts.values():
        if draft.is_stored:
            make_new(draft.job)
    if inspect(workflow).has_identity and workflow not in growing:
        make_transient(workflow)
