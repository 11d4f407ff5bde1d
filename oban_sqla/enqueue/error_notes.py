"""Add notes with remedies to errors of SQLAlchemy about our tables."""

import re

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import MissingGreenlet

from ..errors import sqlstate
from .read_only import READ_ONLY

# SQLSTATEs: a relation, type or schema does not exist; the role lacks a privilege.
_NOT_THERE = ("42P01", "42704", "3F000")
_FORBIDDEN = "42501"
_READ_ONLY = "25006"

MISSING = (
    "oban_sqla: install the tables with `oban-sqla schema upgrade --dsn ...`, or with"
    " op.upgrade_oban() in an Alembic migration. If the tables are in another schema, name it:"
    ' Oban(..., prefix="jobs"), and execution_options={"schema_translate_map": {None: "jobs"}} of'
    " the engine whose sessions enqueue"
)
FORBIDDEN = (
    "oban_sqla: a role that enqueues needs the privileges of op.grant_oban(enqueue=...). A role"
    " that runs or manages jobs, or replaces unique jobs, needs op.grant_oban(run=...)."
    " `oban-sqla schema grant` grants the same"
)
EXPIRED = (
    "oban_sqla: the job's attributes expired when its session committed, and reading one needs I/O:"
    " make sessions with expire_on_commit=False, or read the attribute before the commit, or after"
    " `await session.refresh(job)`"
)


def attach() -> None:
    """Attach the listener to all engines. Importing `oban_sqla` calls this."""
    if not event.contains(Engine, "handle_error", advise):
        event.listen(Engine, "handle_error", advise)


def detach() -> None:
    """Detach the listener."""
    if event.contains(Engine, "handle_error", advise):
        event.remove(Engine, "handle_error", advise)


def advise(context: ExceptionContext) -> None:
    """Add a note to an error about our tables."""
    original = context.original_exception
    note = None
    if isinstance(original, MissingGreenlet):
        if re.search(r"\bFROM (\S+\.)?oban_jobs\b", context.statement or ""):
            note = EXPIRED
    elif sqlstate(original) == _FORBIDDEN:
        # The message may only name the schema, so look at the statement.
        note = FORBIDDEN if "oban_" in (context.statement or "") else None
    elif sqlstate(original) == _READ_ONLY:
        note = f"oban_sqla: {READ_ONLY}" if "oban_jobs" in (context.statement or "") else None
    elif sqlstate(original) in _NOT_THERE and "oban_" in str(original).partition("\n")[0]:
        note = MISSING
    if note is not None:
        (context.sqlalchemy_exception or original).add_note(note)
