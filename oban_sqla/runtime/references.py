"""Load the instances to which the arguments of a job refer."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence, Set
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import Select, Table, inspect, select, update
from sqlalchemy.orm import Mapper, Session

from ..errors import RowMissingError
from ..models import Job
from ..models.keys import having
from ..models.notation import Reference, references
from ..models.references import identity, model, replaced, show
from ..workers.model_worker import SELF
from ..workers.outcomes import Cancel, Snooze
from ..workers.registry import Registration

Wanted = Sequence[Reference]
Load = Callable[[Session], Cancel | Snooze | None]

LOCKED = 1.0
"""Seconds until a job is tried again whose row somebody else has locked."""

_LOCKED = object()

_Place: TypeAlias = tuple[type, tuple[Any, ...]]
"""Where a row is: its class and its primary key."""


def loader(registration: Registration, job: Job) -> Load | None:
    """What has the job's `args` hold the instances, loaded in a session; `None` if it needs none.

    It sends one SELECT for each class, and one for the row of a worker that is a model. When a row
    is gone, what the worker's `missing` says: it returns `Cancel`, raises `RowMissingError`, or
    leaves `None` in place of the instance; when the row is locked, and to be skipped, `Snooze`.
    `UnknownModelError` or `ValueError` for what refers to nothing.
    """
    args: Any = job.args
    wanted = list(references(args))
    if registration.is_model:
        if not (isinstance(args, dict) and isinstance(args.get(SELF), Reference)):
            raise ValueError(f"args[{SELF!r}] of a job of {job.worker} must refer to its row")
        wanted = [reference for reference in wanted if reference is not args[SELF]]
    elif not wanted:
        return None
    return partial(_load, registration, job, args, wanted)


def _load(
    registration: Registration, job: Job, args: Any, wanted: Wanted, session: Session
) -> Cancel | Snooze | None:
    options = registration.options
    # Keyed by `id()`: each reference appears once in the arguments.
    located = {id(reference): _locate(reference) for reference in wanted}
    rows = _rows(session, {*located.values()})

    def instance(reference: Reference) -> object:
        return rows.get(located[id(reference)])

    gone = [reference for reference in wanted if instance(reference) is None]
    row: Any = None
    if registration.is_model:
        row = _row(session, registration, args[SELF])
        if row is _LOCKED:
            return Snooze(LOCKED)
        if row is None:
            gone.insert(0, args[SELF])
    if gone and options.missing != "none":
        message = f"row not found: {', '.join(dict.fromkeys(map(show, gone)))}"
        if options.missing == "raise":
            raise RowMissingError(message)
        return Cancel(message)
    if row is not None:
        args = {**args, SELF: None}
    loaded = replaced(args, instance)
    if row is not None:
        loaded[SELF] = row
    # Past the rules of what a job may hold: it is what the worker sees, and not to be written.
    vars(job)["args"] = loaded
    return None


def _locate(reference: Reference) -> _Place:
    cls = model(reference)
    return cls, identity(reference, cls)


def _row(session: Session, registration: Registration, reference: Reference) -> object:
    # As the class of the worker, whatever the base is that all rows are referred to as.
    cls: Any = registration.create
    _, key = _locate(reference)
    chosen = having(cls, [key])
    query = select(cls).where(chosen)
    lock = registration.options.lock
    if lock is not None:
        query = query.with_for_update(of=cls, skip_locked=lock == "skip")
    found = _loaded(session, cls, query)
    if not found and lock == "skip":
        there: Select[Any] = select(cls).where(chosen)
        if _loaded(session, cls, there):
            return _LOCKED
    return found[0] if found else None


def _rows(session: Session, wanted: Set[_Place]) -> dict[_Place, object]:
    keys: defaultdict[type, list[tuple[Any, ...]]] = defaultdict(list)
    for cls, key in wanted:
        keys[cls].append(key)
    found: dict[_Place, object] = {}
    for cls, chosen in keys.items():
        for row in _select(session, cls, chosen):
            found[cls, inspect(row).identity] = row
    # The database may find a key equal that Python does not: of `char(n)`, or of a user's type.
    for cls, key in wanted - found.keys():
        for row in _select(session, cls, [key]):
            found[cls, key] = row
    return found


def _select(session: Session, cls: type, keys: Collection[tuple[Any, ...]]) -> Sequence[Any]:
    statement: Select[Any] = select(cls).where(having(cls, keys))
    return _loaded(session, cls, statement)


def _loaded(session: Session, cls: type, statement: Select[Any]) -> Sequence[Any]:
    """The instances that a SELECT finds where the session writes the rows of their class."""
    mapper: Mapper[Any] = inspect(cls)
    table = mapper.local_table
    reads: dict[str, Any] = {"mapper": mapper, "clause": statement}
    writes = {**reads, "clause": update(table)} if isinstance(table, Table) else reads
    if session.connection_callable or session.get_bind(**reads) is session.get_bind(**writes):
        return session.scalars(statement).unique().all()
    # The session routes its reads elsewhere, to a replica that may be behind, and locks nothing.
    with Session(session.connection(bind_arguments=writes)) as writer:
        return [session.merge(row, load=False) for row in writer.scalars(statement).unique()]
