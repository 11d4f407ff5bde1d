"""Put the keys by which a job's limit and rate count it into its meta.

The keys are fixed when the job is made. If a key is the primary key of a pending row, the job gets
it after the flush of the row.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState

from ..limiting import By, Limit, Rate, count
from . import validation
from .instrumentation import values_of
from .job import Job
from .keys import key_to_json
from .notation import KEY, Reference
from .references import InstanceReference, to_instances
from .unique import COUNTED_BY

ENTRY, LIMITS = COUNTED_BY
"""The keys of two entries in a job's meta. The first, named as in Oban Pro, is a text that all jobs
with the same keys share. The second has the terms of the job's limit and rate."""

_ROW = "self"
"""The argument of a model's job that refers to its row. Attributes of the row may be the key."""

LONGEST_KEY = 200
"""The most characters of a key. A longer key is replaced by its beginning and a digest."""

_PENDING = "_limits_pending"
"""The key in `values_of(job)` of a new job's limits, while a key waits for a flush."""


class _Pending(Exception):  # noqa: N818 - not an error: a flush will give the key
    """The key of a job is the primary key of a row that has none yet."""


def partition(job: Job, worker: str, limit: Limit | None, rate: Rate | None) -> None:
    """Put the keys of a new job, for its worker's limit and rate, into its meta.

    If a key is not a scalar, a `TypeError` or `ValueError` names the field and the value.
    """
    limits: dict[str, Any] = {}
    meta = values_of(job)["meta"]
    try:
        if limit is not None:
            limits["limit"] = _limit_entry(job, worker, limit)
        if rate is not None:
            limits["rate"] = _rate_entry(job, worker, rate)
    except _Pending:
        if all(reference.resolve() for reference in to_instances(values_of(job)["args"])):
            raise ValueError(
                f"by of {worker} returns an instance that has no key yet: flush it first, or pass"
                " it as an argument of the job"
            ) from None
        # Kept even after the insert: after a rollback, the row may get another key.
        values_of(job)[_PENDING] = worker, limit, rate
        return
    # Jobs with a limit, and others with a rate of the same name, must not share a key.
    kind = ["rate"] if limit is None else []
    meta[ENTRY] = " ".join([*kind, *(entry["id"] for entry in limits.values())])
    meta[LIMITS] = limits


def complete(job: Job) -> bool:
    """Put the keys into the meta of a job that waited for the key of a row, if it did.

    Returns whether the job waited.
    """
    pending = values_of(job).get(_PENDING)
    if pending is None:
        return False
    partition(job, *pending)
    return True


def rate_id(name: str, rate: Rate, key: object) -> str:
    """The name under which the starts of a rate, or of one of its keys, are counted.

    `TypeError` for a key that is not a scalar, and for a key of a rate without keys.
    """
    if rate.by is None and key is not None:
        raise TypeError(f"{rate!r} counts all jobs together: leave key out")
    found: str = _entry(name, rate, _scalar("key", key))["id"]
    return found


def _limit_entry(job: Job, worker: str, limit: Limit) -> dict[str, Any]:
    key = _key(job, limit.by)
    allowed = limit.allowed
    if callable(allowed):
        allowed = count(f"the limit of {worker} for the key {key!r}", allowed(key))
    entry = _entry(worker, limit, key)
    entry["allowed"] = allowed
    if limit.burst:
        entry["burst"] = True
    return entry


def _rate_entry(job: Job, worker: str, rate: Rate) -> dict[str, Any]:
    entry = _entry(worker, rate, _key(job, rate.by))
    weight = rate.weighed(rate.weight(job)) if callable(rate.weight) else rate.weight
    terms = {"allowed": rate.allowed, "period": rate.per, "burst": rate.burst, "weight": weight}
    return {**entry, **terms}


def _entry(worker: str, limit: Limit | Rate, key: object) -> dict[str, Any]:
    name = limit.name or worker
    if limit.by is None:
        return {"id": name}
    by = limit.by if isinstance(limit.by, str) else "key"
    text = json.dumps(key, ensure_ascii=False)
    if len(text) > LONGEST_KEY:
        text = f"{text[: LONGEST_KEY // 2]}... {hashlib.sha256(text.encode()).hexdigest()}"
    return {"id": f"{name}={text}", "by": by, "key": text}


def _key(job: Job, by: By) -> Any:
    """The key of a job: a string, a number, a boolean or `None`; a list for several columns."""
    if by is None:
        return None
    if callable(by):
        return _scalar("by", by(job))
    found: Any = values_of(job)["args"]
    first, *_ = by.split(".")
    if first not in found and _ROW in found:
        found = found[_ROW]
    for name in by.split("."):
        found = _inside(found, name)
    return _scalar(f"the argument {by!r}", found)


def _inside(value: Any, name: str) -> Any:
    if isinstance(value, InstanceReference):
        return _attribute(value.instance, name)
    if isinstance(value, Reference):
        key = value[KEY]
        if not isinstance(key, dict) or name not in key:
            raise ValueError(
                f"by names {name!r} of a row of which the job has only the primary key: pass the"
                " instance, or its value as another argument"
            )
        return key[name]
    return value.get(name) if isinstance(value, dict) else None


def _attribute(instance: object, name: str) -> Any:
    """A loaded attribute of a mapped instance. Reading a key must not send a statement."""
    state = inspect(instance)
    if name not in state.mapper.attrs:
        raise ValueError(f"by names {name!r}, but {type(instance).__name__} has no such attribute")
    if name in state.dict and state.dict[name] is not None:
        return state.dict[name]
    if state.key is None and state.mapper.primary_key:
        columns = {state.mapper.get_property_by_column(c).key for c in state.mapper.primary_key}
        if name in columns:
            raise _Pending
    if name not in state.dict and state.key is not None:
        raise ValueError(
            f"by names {name!r} of a {type(instance).__name__} that is not loaded: refresh it first"
        )
    return state.dict.get(name)


def _scalar(what: str, value: Any) -> Any:
    if isinstance(value, InstanceReference):
        if not value.resolve():
            raise _Pending
        return _primary(value[KEY])
    if isinstance(value, Reference):
        return _primary(value[KEY])
    state: Any = inspect(value, raiseerr=False) if value is not None else None
    if isinstance(state, InstanceState):
        if state.identity is None:
            raise _Pending
        return _primary(key_to_json(type(value), state.identity))
    if value is None or isinstance(value, str | int | float):
        return validation.json_value(what, value)
    raise TypeError(
        f"{what} is a {type(value).__name__}, which is no key to count by: it must be a string, a"
        f" number, a boolean, None, or a mapped instance, not {validation.show(value)}"
    )


def _primary(key: Any) -> Any:
    values = list(key.values()) if isinstance(key, dict) else [key]
    return values[0] if len(values) == 1 else values
