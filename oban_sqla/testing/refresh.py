"""Have a session see what workers did to the rows of its instances."""

from sqlalchemy import inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from ..enqueue.chosen import BIND, identity
from ..models import Job
from ..statements.choose import one_of


def refresh(session: Session) -> None:
    """Read the loaded columns of a session's clean instances again.

    An instance whose row is gone leaves the session. Relationships stay as they were loaded, and
    what is not loaded stays so: nothing of it would await anything later.
    """
    held = [instance for instance in session if inspect(instance).persistent]
    jobs = [instance for instance in held if isinstance(instance, Job)]
    with session.no_autoflush:
        _refresh_jobs(session, jobs)
        for instance in held:
            if not isinstance(instance, Job) and instance not in session.dirty:
                _refresh(session, instance)


def _refresh_jobs(session: Session, jobs: list[Job]) -> None:
    # Jobs may be many, and their columns are always loaded together.
    ids = {id: job for job in jobs if (id := identity(job)) is not None}
    if not ids:
        return
    found = session.scalars(
        select(Job).where(one_of([*ids])),
        execution_options={"populate_existing": True},
        bind_arguments=BIND,
    )
    there = {job.id for job in found.unique()}
    for id, job in ids.items():
        if id not in there:
            session.expunge(job)


def _refresh(session: Session, instance: object) -> None:
    state = inspect(instance)
    columns = state.mapper.column_attrs.keys()
    loaded = {key: value for key, value in state.dict.items() if key in columns}
    if not loaded:
        return
    try:
        session.refresh(instance, attribute_names=[*loaded])
    except InvalidRequestError:
        session.expunge(instance)
        # As one keeps them that the session itself has deleted.
        for key, value in loaded.items():
            set_committed_value(instance, key, value)
