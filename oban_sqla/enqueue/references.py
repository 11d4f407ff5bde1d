"""Jobs that refer to mapped instances: each reference has its key before it is stored.

A pending instance gets its key in the flush. Its jobs are held back for that time, and inserted by
the same flush, behind its rows. A job that can't be held back, since rows of the flush refer to it
or others listen to its mapper, is inserted at once, and its arguments are completed at the end of
the flush.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cache
from operator import attrgetter
from typing import TypeAlias

from sqlalchemy import Connection, inspect
from sqlalchemy.orm import Mapper, Session, object_session

from ..models import Job, partition
from ..models.instrumentation import values_of
from ..models.references import InstanceReference, to_instances
from ..statements.update import parameters, update
from .pending import to_jobs

_Deleted: TypeAlias = Callable[[Session], Container[object]]

_HELD = "oban_sqla_held"
_IDENTITIES = "oban_sqla_held_identities"
_INCOMPLETE = "oban_sqla_incomplete"


def refuse_without_key(jobs: Iterable[Job]) -> None:
    """`ValueError` for a job that refers to an instance without a key, where no flush gives one."""
    if not (referring := [job for job in jobs if _of(job)]):
        return
    deleted = _deleted()
    for job in referring:
        for reference in _of(job):
            if not _resolved(job, reference, deleted):
                raise ValueError(
                    f"{job!r} refers to {_shown(reference)}, which has no key yet: flush it first,"
                    " or enqueue with the session that it is in"
                )
        partition.complete(job)


def waiting(session: Session, jobs: Iterable[Job]) -> list[Job]:
    """Those that refer to an instance that is pending in their session.

    `ValueError` for one that refers to an instance that is neither in the table nor in the session.
    """
    deleted = _deleted()
    waiting = []
    for job in jobs:
        # A list of booleans: each reference has to be resolved, and checked.
        if _of(job) and not all([_ready(session, job, r, deleted) for r in _of(job)]):
            waiting.append(job)
        else:
            partition.complete(job)
    return waiting


def may_wait(session: Session, jobs: Iterable[Job]) -> bool:
    """Whether nothing in the flush may need these jobs to be there, nor they another job."""
    # Without other rows there is nothing to flush, behind which they could be inserted.
    if any(isinstance(reference.instance, Job) for job in jobs for reference in _of(job)):
        return False
    kinds = {type(one) for one in (*session.new, *session.dirty)}
    mappers: Iterable[Mapper[object]] = map(inspect, kinds)
    return not any([*to_jobs(mapper)] for mapper in mappers)


def hold(session: Session, jobs: Sequence[Job]) -> None:
    """Take jobs out of the flush that begins."""
    if jobs:
        session.info[_IDENTITIES] = session.identity_map
    for job in jobs:
        session.expunge(job)
        session.info.setdefault(_HELD, []).append(job)


def refuse_expunged(session: Session, instance: object) -> None:
    """`ValueError` if a listener takes an instance out of the flush to which a held job refers."""
    # A rollback takes out whatever is pending, the held jobs too; and none refers to a job.
    if isinstance(instance, Job) or not session.is_active:
        return
    # close() and expunge_all() begin a new identity map, and then take out every instance.
    if session.identity_map is not session.info.get(_IDENTITIES):
        return
    for job in session.info.get(_HELD, ()):
        for reference in _of(job):
            if reference.instance is instance:
                raise ValueError(
                    f"{job!r} refers to {_shown(reference)}, which was taken out of the session"
                    " while its flush began: take the job out before, with expunge()"
                )


def take_back(session: Session) -> None:
    """Add the jobs held back for an earlier flush, which a listener kept from beginning."""
    session.add_all(session.info.pop(_HELD, ()))


def release(session: Session) -> list[Job]:
    """The jobs that were held back, when the flush has done its work: with their keys."""
    session.info.pop(_IDENTITIES, None)
    held: list[Job] = session.info.pop(_HELD, [])
    refuse_without_key(held)
    return held


def note_incomplete(connection: Connection, job: Job) -> None:
    """Note a job that the unit of work stores before it has all keys."""
    session = object_session(job)
    assert session is not None
    if waiting(session, [job]):
        for reference in _of(job):
            reference.awaited = True
        session.info.setdefault(_INCOMPLETE, defaultdict(list))[connection].append(job)


def complete_arguments(session: Session) -> None:
    """Complete the arguments of jobs that were stored without a key."""
    incomplete: dict[Connection, list[Job]] = session.info.pop(_INCOMPLETE, {})
    for connection, jobs in incomplete.items():
        refuse_without_key(jobs)
        # The key of a row may be what a job is counted by, too.
        limited = [job for job in jobs if partition.complete(job)]
        others = [job for job in jobs if job not in limited]
        for fields, some in (({"args"}, others), ({"args", "meta"}, limited)):
            changes = [([job.id], {name: values_of(job)[name] for name in fields}) for job in some]
            if changes:
                connection.execute(update(frozenset(fields)), parameters(changes))


def forget_held(session: Session) -> None:
    """When the flush has failed."""
    session.info.pop(_IDENTITIES, None)
    session.info.pop(_HELD, None)
    session.info.pop(_INCOMPLETE, None)


def _of(job: Job) -> Sequence[InstanceReference]:
    return to_instances(values_of(job).get("args"))


def _deleted() -> _Deleted:
    # A session makes its `deleted` anew each time that it is asked.
    return cache(attrgetter("deleted"))


def _ready(session: Session, job: Job, reference: InstanceReference, deleted: _Deleted) -> bool:
    if _resolved(job, reference, deleted):
        return True
    state = inspect(reference.instance)
    if state.pending and state.session is session:
        return False
    where = (
        "is pending in another session" if state.pending else "is in no session, and in no table"
    )
    raise ValueError(
        f"{job!r} refers to {_shown(reference)}, which {where}: add it to the session of the job,"
        " or take the job out of it with expunge()"
    )


def _resolved(job: Job, reference: InstanceReference, deleted: _Deleted) -> bool:
    instance = reference.instance
    state = inspect(instance)
    session = state.session
    if state.was_deleted or state.deleted or (session is not None and instance in deleted(session)):
        raise ValueError(
            f"{job!r} refers to {_shown(reference)}, which is deleted, so that no worker could load"
            " it: pass what the worker needs of it"
        )
    return reference.resolve()


def _shown(reference: InstanceReference) -> str:
    # Not its repr: it may load what has expired.
    return f"a {type(reference.instance).__qualname__}"
