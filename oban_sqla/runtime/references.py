"""Load the instances to which the arguments of a job refer."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence, Set
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import Select, Table, inspect, select, update
from sqlalchemy.orm import Mapper, Session

from ..errors import RowMissingError
from ..models.instrumentation import routes_by_row, values_of
from ..models.keys import having
from ..models.notation import Reference, references
from ..models.references import model, primary_key, replaced, show_reference
from ..workers.model_worker import SELF
from ..workers.outcomes import Cancel, Snooze
from ..workers.registry import Registration
from .attempt import Attempt

Load = Callable[[Session], Cancel | Snooze | None]

LOCKED = 1.0
"""Seconds until a job is tried again whose row another transaction has locked."""

_LOCKED = object()

_Key: TypeAlias = tuple[type, tuple[Any, ...]]
"""The class and the primary key of a row."""


def loader(attempt: Attempt) -> Load | None:
    """A function that loads the instances of a job's `args` in a session; `None` if it has none.

    The function sends one SELECT for each class, and one for the row of a model. If a row does not
    exist any more, the worker's `missing` decides: the function returns `Cancel`, raises
    `RowMissingError`, or puts `None` in place of the instance. If the row of the job is locked, and
    the worker has `lock="skip"`, it returns `Snooze`. `UnknownModelError` or `ValueError` for an
    invalid reference.
    """
    args: Any = attempt.own.args
    wanted = list(references(args))
    if attempt.registration.is_model:
        if not (isinstance(args, dict) and isinstance(args.get(SELF), Reference)):
            raise ValueError(
                f"args[{SELF!r}] of a job of {attempt.own.worker} must refer to its row"
            )
        wanted = [reference for reference in wanted if reference is not args[SELF]]
    elif not wanted:
        return None
    return partial(_load, attempt, args, wanted)


def _load(
    attempt: Attempt, args: Any, wanted: Sequence[Reference], session: Session
) -> Cancel | Snooze | None:
    # Keyed by `id()`: each reference appears once in the arguments.
    keys = {id(reference): _locate(reference) for reference in wanted}
    rows = _rows(session, {*keys.values()})
    loaded = {one: rows.get(key) for one, key in keys.items()}
    if attempt.registration.is_model:
        row = _row(session, attempt.registration, args[SELF])
        if row is _LOCKED:
            return Snooze(LOCKED)
        loaded[id(args[SELF])] = row
        wanted = [args[SELF], *wanted]
    gone = [reference for reference in wanted if loaded[id(reference)] is None]
    if gone and attempt.registration.declaration.missing != "none":
        return _missing(attempt.registration, gone)
    # Bypasses the checks of `args`: the worker gets instances, which are never stored.
    values_of(attempt.own)["args"] = replaced(args, lambda reference: loaded[id(reference)])
    return None


def _missing(registration: Registration, gone: Sequence[Reference]) -> Cancel:
    message = f"row not found: {', '.join(dict.fromkeys(map(show_reference, gone)))}"
    if registration.declaration.missing == "raise":
        raise RowMissingError(message)
    return Cancel(message)


def _locate(reference: Reference) -> _Key:
    cls = model(reference)
    return cls, primary_key(reference, cls)


def _row(session: Session, registration: Registration, reference: Reference) -> object:
    # Loaded as the class of the worker, although the reference names the root of its inheritance.
    cls: Any = registration.create
    _, key = _locate(reference)
    chosen = having(cls, [key])
    query = select(cls).where(chosen)
    lock = registration.declaration.lock
    if lock is not None:
        query = query.with_for_update(of=cls, skip_locked=lock == "skip")
    found = _loaded(session, cls, query)
    if not found and lock == "skip":
        there: Select[Any] = select(cls).where(chosen)
        if _loaded(session, cls, there):
            return _LOCKED
    return found[0] if found else None


def _rows(session: Session, wanted: Set[_Key]) -> dict[_Key, object]:
    keys: defaultdict[type, list[tuple[Any, ...]]] = defaultdict(list)
    for cls, key in wanted:
        keys[cls].append(key)
    found: dict[_Key, object] = {}
    for cls, chosen in keys.items():
        for row in _select(session, cls, chosen):
            found[cls, inspect(row).identity] = row
    # The database may treat keys as equal that differ in Python: `char(n)`, or a custom type.
    for cls, key in wanted - found.keys():
        for row in _select(session, cls, [key]):
            found[cls, key] = row
    return found


def _select(session: Session, cls: type, keys: Collection[tuple[Any, ...]]) -> Sequence[Any]:
    statement: Select[Any] = select(cls).where(having(cls, keys))
    return _loaded(session, cls, statement)


def _loaded(session: Session, cls: type, statement: Select[Any]) -> Sequence[Any]:
    """The instances that a SELECT finds, read from the database to which the session writes."""
    mapper: Mapper[Any] = inspect(cls)
    table = mapper.local_table
    reads: dict[str, Any] = {"mapper": mapper, "clause": statement}
    writes = {**reads, "clause": update(table)} if isinstance(table, Table) else reads
    if routes_by_row(session) or session.get_bind(**reads) is session.get_bind(**writes):
        return session.scalars(statement).unique().all()
    # The session reads from a replica, which may be behind, and can't lock. So read through a
    # session on the connection for writes.
    with Session(session.connection(bind_arguments=writes)) as writer:
        return [session.merge(row, load=False) for row in writer.scalars(statement).unique()]
