"""Load the instances to which the arguments of a job refer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, inspect, select, tuple_
from sqlalchemy.orm import Mapper, Session

from ..errors import RowMissingError
from ..models import Job
from ..models.references import identity, model, replaced, show, stored
from ..workers.options import Missing
from ..workers.outcomes import Cancel
from ..workers.registry import Registration

Load = Callable[[Session], Cancel | None]


def loader(registration: Registration, job: Job) -> Load | None:
    """What has the job's `args` hold the instances, loaded in a session; `None` if it needs none.

    It sends one SELECT for each class. When a row is gone, what the worker's `missing` says: it
    returns `Cancel`, raises `RowMissingError`, or leaves `None` in place of the instance.
    `UnknownModelError` or `ValueError` for what refers to nothing.
    """
    args: Any = job.args
    wanted = list(stored(args))
    return partial(_load, job, args, wanted, registration.options.missing) if wanted else None


def _load(
    job: Job,
    args: Any,
    wanted: Sequence[Mapping[str, Any]],
    missing: Missing,
    session: Session,
) -> Cancel | None:
    keys: dict[type, set[tuple[Any, ...]]] = {}
    for reference in wanted:
        cls = model(reference)
        keys.setdefault(cls, set()).add(identity(reference, cls))
    loaded = {cls: _rows(session, cls, chosen) for cls, chosen in keys.items()}

    def instance(reference: Mapping[str, Any]) -> object:
        cls = model(reference)
        return loaded[cls].get(identity(reference, cls))

    gone = dict.fromkeys(show(reference) for reference in wanted if instance(reference) is None)
    if gone and missing != "none":
        message = f"an argument is gone: {', '.join(gone)}"
        if missing == "raise":
            raise RowMissingError(message)
        return Cancel(message)
    # Past the rules of what a job may hold: it is what the worker sees, and not to be written.
    vars(job)["args"] = replaced(args, instance)
    return None


def _rows(session: Session, cls: type, keys: set[tuple[Any, ...]]) -> dict[Any, object]:
    mapper: Mapper[Any] = inspect(cls)
    columns = mapper.primary_key
    chosen: ColumnElement[bool] = (
        columns[0].in_([key for (key,) in keys])
        if len(columns) == 1
        else tuple_(*columns).in_(list(keys))
    )
    rows: Iterable[Any] = session.scalars(select(cls).where(chosen)).unique()
    return {inspect(row).identity: row for row in rows}
