"""Refresh the instances of a session after workers changed their rows."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstanceState, RelationshipProperty, Session
from sqlalchemy.orm.attributes import set_committed_value

from ..enqueue.session_of import BIND
from ..models import Job
from ..models.job_id import identity
from ..statements.ids import one_of

# Kinds of relationships that hold no instances: they query at each access, or never.
_QUERYING = ("dynamic", "noload", "write_only")


def refresh(session: Session) -> None:
    """Read the clean instances of a session again: their columns and their loaded relationships.

    Deferred columns and relationships that are not loaded stay unloaded. An instance whose row is
    gone leaves the session, and keeps its last values.
    """
    held = [instance for instance in session if inspect(instance).persistent]
    jobs = [instance for instance in held if isinstance(instance, Job)]
    with session.no_autoflush:
        _refresh_jobs(session, jobs)
        others = [
            instance
            for instance in held
            if not isinstance(instance, Job) and instance not in session.dirty
        ]
        # Columns first: relationships are loaded by the keys in them.
        gone = {id(one): values for one in others if (values := _refresh(session, one)) is not None}
        left = [one for one in others if id(one) not in gone]
        for instance in left:
            if loaded := list(_loaded_relationships(inspect(instance))):
                session.refresh(instance, attribute_names=loaded)
        for instance in others:
            if id(instance) in gone:
                _part_with(session, instance, gone[id(instance)])
        # Expunging an instance also expunged related instances whose rows still exist.
        session.add_all(one for one in left if one not in session)


def _refresh_jobs(session: Session, jobs: list[Job]) -> None:
    # One statement reads all jobs, since there may be many.
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


def _refresh(session: Session, instance: object) -> dict[str, Any] | None:
    """Read the columns of an instance again. Returns its last values if its row is gone."""
    state = inspect(instance)
    before = dict(state.dict)
    # All columns are named: SQLAlchemy would not load a column that was never set.
    columns = [
        column.key
        for column in state.mapper.column_attrs
        if column.key in before or not column.deferred
    ]
    try:
        session.refresh(instance, attribute_names=columns)
    except InvalidRequestError:
        return {key: value for key, value in before.items() if key in state.mapper.attrs}
    return None


def _loaded_relationships(state: InstanceState[Any]) -> Iterator[str]:
    for relationship in state.mapper.relationships:
        if relationship.key in state.dict and not _queries(relationship):
            yield relationship.key


def _queries(relationship: RelationshipProperty[Any]) -> bool:
    return relationship.lazy in _QUERYING


def _part_with(session: Session, instance: object, values: dict[str, Any]) -> None:
    """Remove an instance from the session, as if the session had deleted it."""
    if instance in session:
        session.expunge(instance)
    for key, value in values.items():
        set_committed_value(instance, key, value)
