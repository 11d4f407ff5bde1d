"""Give new jobs their unique keys, and turn a duplicate into the existing job and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import make_transient, make_transient_to_detached

from .instrumentation import values_of
from .job import BY_ROW, COLUMNS, GIVEN, Job
from .new_values import UNIQUE
from .state import JobState
from .unique import ENTRY, Unique, UniqueMeta


def may_hold_key(job: Job) -> bool:
    """Whether a new job is unique, or has the meta of a unique job."""
    values = values_of(job)
    return UNIQUE in values or ENTRY in (values.get("meta") or ())


def hold_key(job: Job) -> bool:
    """Put the unique key of a new job into its meta. Returns whether the job holds a key.

    A job in a state that is not in its `Unique.states` holds no key. `ValueError` or `TypeError`
    if args or meta were changed in place, and are not JSON any more.
    """
    values = values_of(job)
    rules: Unique | None = values.get(UNIQUE)
    meta = {key: value for key, value in values["meta"].items() if key != ENTRY}
    own = rules.entry(values) if rules and values["state"] in rules.states else None
    values["meta"] = UniqueMeta({**meta, ENTRY: own}, rules) if rules and own else meta
    return own is not None


def unique_key(job: Job) -> str:
    """The unique key that a job holds."""
    key: str = values_of(job)["meta"][ENTRY]["key"]
    return key


def replaces(job: Job) -> Mapping[JobState, Sequence[str]]:
    """The fields that a duplicate replaces in the existing job, by the state of that job."""
    rules: Unique | None = values_of(job).get(UNIQUE)
    return rules.replace if rules else {}


def become(job: Job, values: Mapping[str, Any]) -> None:
    """Turn a duplicate into the existing job, in no session, and set its `conflict` to true."""
    kept = {*COLUMNS}.difference(BY_ROW)
    given = {key: value for key, value in values_of(job).items() if key in kept}
    if inspect(job).key is not None:
        make_transient(job)
    values_of(job).update(values)
    values_of(job)[GIVEN] = given
    make_transient_to_detached(job)


def restore(job: Job) -> None:
    """Turn a duplicate, in any session or none, into the new job again that it was before."""
    make_transient(job)
    given = values_of(job).pop(GIVEN)
    for column in COLUMNS:
        values_of(job).pop(column, None)
    values_of(job).update(given)
