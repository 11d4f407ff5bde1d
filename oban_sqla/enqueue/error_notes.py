"""What to do about errors of SQLAlchemy that don't say it: a note that ends their tracebacks."""

import re

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import MissingGreenlet

from ..errors import sqlstate

# SQLSTATEs: there is no such relation, type or schema; the role lacks a privilege.
_NOT_THERE = ("42P01", "42704", "3F000")
_FORBIDDEN = "42501"

MISSING = (
    "oban_sqla: install the tables with `oban-sqla schema upgrade --dsn ...`, or with"
    " op.upgrade_oban() in an Alembic migration. If they are there, in another schema, name it:"
    ' Oban(..., prefix="jobs"), and execution_options={"schema_translate_map": {None: "jobs"}} of'
    " the engine whose sessions enqueue"
)
FORBIDDEN = (
    "oban_sqla: a role that enqueues needs the privileges of op.grant_oban(enqueue=...), and one"
    " that runs or manages jobs, or replaces unique ones, those of op.grant_oban(run=...);"
    " `oban-sqla schema grant` grants the same"
)
EXPIRED = (
    "oban_sqla: the job's attributes expired when its session committed, and reading one is I/O:"
    " make sessions with expire_on_commit=False, or read it before the commit, or after"
    " `await session.refresh(job)`"
)


def attach() -> None:
    """Hook the listener to every engine; importing `oban_sqla` does so."""
    if not event.contains(Engine, "handle_error", advise):
        event.listen(Engine, "handle_error", advise)


def detach() -> None:
    """Take it off."""
    if event.contains(Engine, "handle_error", advise):
        event.remove(Engine, "handle_error", advise)


def advise(context: ExceptionContext) -> None:
    """Add the note to an error that is about our tables."""
    original = context.original_exception
    note = None
    if isinstance(original, MissingGreenlet):
        if re.search(r"\bFROM (\S+\.)?oban_jobs\b", context.statement or ""):
            note = EXPIRED
    elif sqlstate(original) == _FORBIDDEN:
        # The message may name the schema alone.
        note = FORBIDDEN if "oban_" in (context.statement or "") else None
    elif sqlstate(original) in _NOT_THERE and "oban_" in str(original).partition("\n")[0]:
        note = MISSING
    if note is not None:
        (context.sqlalchemy_exception or original).add_note(note)
