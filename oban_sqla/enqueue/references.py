"""Jobs that refer to mapped instances: get the key of each instance before its job is stored.

A pending instance gets its key in the flush. The flush holds back the jobs that refer to it, and
inserts them after its rows. Some jobs can't be held back, because rows of the flush refer to them
or other code listens to their mapper. These are inserted at once, and the end of the flush updates
their arguments.
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
from ..statements.update import update, update_parameters
from .pending import to_jobs

_Deleted: TypeAlias = Callable[[Session], Container[object]]

_HELD = "oban_sqla_held"
_IDENTITIES = "oban_sqla_held_identities"
_INCOMPLETE = "oban_sqla_incomplete"


def refuse_without_key(jobs: Iterable[Job]) -> None:
    """`ValueError` for a job that refers to an instance without a key."""
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
    """The jobs that refer to a pending instance of their session.

    `ValueError` for a job that refers to an instance that is neither stored nor in the session.
    """
    deleted = None
    waiting = []
    for job in jobs:
        if references := _of(job):
            deleted = deleted or _deleted()
            # A list, not a generator: each reference must be resolved and checked.
            if not all([_ready(session, job, one, deleted) for one in references]):
                waiting.append(job)
                continue
        partition.complete(job)
    return waiting


def may_wait(session: Session, jobs: Iterable[Job]) -> bool:
    """Whether these jobs can be inserted after the rows of the flush.

    They can't if a row of the flush may refer to a job, or if they refer to another job.
    """
    if any(isinstance(reference.instance, Job) for job in jobs for reference in _of(job)):
        return False
    kinds = {type(one) for one in (*session.new, *session.dirty)}
    mappers: Iterable[Mapper[object]] = map(inspect, kinds)
    return not any([*to_jobs(mapper)] for mapper in mappers)


def hold(session: Session, jobs: Sequence[Job]) -> None:
    """Hold jobs back from the flush that begins."""
    if jobs:
        session.info[_IDENTITIES] = session.identity_map
    for job in jobs:
        session.expunge(job)
        session.info.setdefault(_HELD, []).append(job)


def refuse_expunged(session: Session, instance: object) -> None:
    """`ValueError` if a listener expunges an instance to which a held job refers."""
    # A rollback expunges all pending objects. Held jobs do not refer to jobs.
    if isinstance(instance, Job) or not session.is_active:
        return
    # close() and expunge_all() replace the identity map, and then expunge all instances.
    if session.identity_map is not session.info.get(_IDENTITIES):
        return
    for job in session.info.get(_HELD, ()):
        for reference in _of(job):
            if reference.instance is instance:
                raise ValueError(
                    f"{job!r} refers to {_shown(reference)}, which was expunged from the session"
                    " while its flush began: expunge the job first"
                )


def take_back(session: Session) -> None:
    """Add the jobs again that were held back from an earlier flush, which a listener refused."""
    session.add_all(session.info.pop(_HELD, ()))


def release(session: Session) -> list[Job]:
    """The jobs that were held back, with the keys that the flush gave their instances."""
    session.info.pop(_IDENTITIES, None)
    held: list[Job] = session.info.pop(_HELD, [])
    refuse_without_key(held)
    return held


def note_incomplete(connection: Connection, job: Job) -> None:
    """Note a job that the unit of work inserts before all its instances have keys."""
    session = object_session(job)
    assert session is not None
    if waiting(session, [job]):
        for reference in _of(job):
            reference.awaited = True
        session.info.setdefault(_INCOMPLETE, defaultdict(list))[connection].append(job)


def complete_arguments(session: Session) -> None:
    """Update the arguments of jobs that were stored without a key."""
    incomplete: dict[Connection, list[Job]] = session.info.pop(_INCOMPLETE, {})
    for connection, jobs in incomplete.items():
        refuse_without_key(jobs)
        # A limit may count jobs by the key of a row, which is stored in meta.
        limited = [job for job in jobs if partition.complete(job)]
        others = [job for job in jobs if job not in limited]
        for fields, some in (({"args"}, others), ({"args", "meta"}, limited)):
            changes = [([job.id], {name: values_of(job)[name] for name in fields}) for job in some]
            if changes:
                connection.execute(update(frozenset(fields)), update_parameters(changes))


def forget_held(session: Session) -> None:
    """Drop the held jobs of a failed flush."""
    session.info.pop(_IDENTITIES, None)
    session.info.pop(_HELD, None)
    session.info.pop(_INCOMPLETE, None)


def _of(job: Job) -> Sequence[InstanceReference]:
    return to_instances(values_of(job).get("args"))


def _deleted() -> _Deleted:
    # Cached, since a session computes its `deleted` at each access.
    return cache(attrgetter("deleted"))


def _ready(session: Session, job: Job, reference: InstanceReference, deleted: _Deleted) -> bool:
    if _resolved(job, reference, deleted):
        return True
    state = inspect(reference.instance)
    if state.pending and state.session is session:
        return False
    where = "is pending in another session" if state.pending else "is in no session and not stored"
    raise ValueError(
        f"{job!r} refers to {_shown(reference)}, which {where}: add the instance to the session of"
        " the job, or expunge the job"
    )


def _resolved(job: Job, reference: InstanceReference, deleted: _Deleted) -> bool:
    instance = reference.instance
    state = inspect(instance)
    session = state.session
    if state.was_deleted or state.deleted or (session is not None and instance in deleted(session)):
        raise ValueError(
            f"{job!r} refers to {_shown(reference)}, which is deleted, so a worker could not load"
            " it: pass the values that the worker needs instead"
        )
    return reference.resolve()


def _shown(reference: InstanceReference) -> str:
    # The class only: a repr may load expired attributes.
    return f"a {type(reference.instance).__qualname__}"
