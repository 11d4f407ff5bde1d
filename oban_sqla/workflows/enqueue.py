"""Enqueue a workflow in the transaction of the caller's session or connection."""

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
    """Enqueue a workflow, or the steps that were added to a running workflow.

    The workflow is added to a session, and its next flush inserts it. Any other connection inserts
    it now. `ValueError` for an invalid graph, before anything is sent.
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
    """Make the workflow and its jobs new again, after a rollback."""
    for draft in workflow.graph.drafts.values():
        if draft.is_stored:
            make_new(draft.job)
    if inspect(workflow).has_identity and workflow not in growing:
        make_transient(workflow)
