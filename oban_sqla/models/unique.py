"""`Unique`: when a job is a duplicate of an existing job, and which fields it replaces there.

The unique key of a job is in its meta, under `ENTRY`, where a constraint of the table reads it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from ..clock import LONGEST_INTERVAL
from . import deadline, validation
from .notation import Reference, to_table
from .state import FINISHED, JobState

ENTRY = "oban_sqla_unique"
"""The key in a job's meta that stores its unique key."""

TRACE = ("traceparent", "tracestate", "baggage", "sentry-trace")
"""Keys of a job's meta that trace the caller. They differ for equal jobs."""

COUNTED_BY = ("partition_key", "oban_sqla_limits")
"""Keys of a job's meta that say what its limits count it by."""

CONSTRAINT = "oban_sqla_unique"
"""The exclusion constraint: no two jobs hold the same unique key at the same time."""

FIELDS = ("args", "meta", "queue", "worker")
"""The fields by which jobs may be compared."""

REPLACEABLE = (
    "args",
    "max_attempts",
    "meta",
    "priority",
    "queue",
    "scheduled_at",
    "tags",
    "worker",
)
"""The fields that a duplicate may replace in the existing job."""

WAITING = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED, JobState.RETRYABLE)

GROUPS: Mapping[str, tuple[JobState, ...]] = {
    "all": tuple(JobState),
    "incomplete": tuple(state for state in JobState if state not in FINISHED),
    "scheduled": (JobState.SCHEDULED,),
    "successful": tuple(
        state for state in JobState if state not in (JobState.DISCARDED, JobState.CANCELLED)
    ),
}
"""Oban's names for sets of states."""

States: TypeAlias = str | Iterable[JobState | str]
Replace: TypeAlias = Iterable[str] | Mapping[JobState | str, Iterable[str]]


@dataclass(frozen=True, slots=True, init=False)
class Unique:
    """A job is a duplicate if an existing job holds the same unique key: the values of `fields`.

    A job holds its key while it is in one of `states`, for `period` after it was inserted. A
    duplicate is not inserted: it becomes the existing job, with `conflict` true.
    """

    period: float | None
    """Seconds; `None` for as long as the job is in the table."""
    fields: tuple[str, ...]
    """The compared fields, of args, meta, queue and worker."""
    keys: tuple[str, ...]
    """The keys of args and meta that are compared; all keys if empty."""
    states: tuple[JobState, ...]
    replace: Mapping[JobState, tuple[str, ...]] = field(hash=False)
    """The fields that the existing job takes over from a duplicate, by the job's state."""

    def __init__(
        self,
        *,
        period: float | timedelta | None = None,
        fields: Iterable[str] = ("args", "queue", "worker"),
        keys: Iterable[str] = (),
        states: States = "successful",
        replace: Replace = (),
    ) -> None:
        """All options have their names from Oban.

        period: seconds or a `timedelta`, more than 0; `None` for ever.
        fields: compare these of `args`, `meta`, `queue` and `worker`.
        keys: compare only these keys of args and meta.
        states: any states, or a group of states: `"all"`, `"incomplete"`, `"scheduled"`, or
            `"successful"` (all but cancelled and discarded).
        replace: the fields that a duplicate replaces, by the state of the existing job:
            `{"scheduled": ["args", "scheduled_at"]}`. A plain list applies to each state in which
            a job waits. The fields may be args, max_attempts, meta, priority, queue, scheduled_at,
            tags and worker.

        Other input raises a `TypeError` or `ValueError` that names the field and the value.
        """
        set_ = object.__setattr__
        set_(self, "period", None if period is None else _period(period))
        set_(self, "fields", _of("fields", fields, FIELDS))
        set_(self, "keys", _texts("keys", keys))
        set_(self, "states", _states("states", states))
        set_(self, "replace", _replace(replace))
        if not self.fields:
            raise ValueError(f"fields must name at least one of {', '.join(FIELDS)}")
        if not self.states:
            raise ValueError("states must name at least one state, or a group of states")
        if self.keys and not {"args", "meta"} & {*self.fields}:
            raise ValueError(
                f"keys {self.keys!r} are keys of args or meta, so fields must name one of both"
            )

    def entry(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The unique key of a job with these columns, as its meta stores it."""
        compared = {name: self._compared(name, values[name]) for name in self.fields}
        text = json.dumps(compared, sort_keys=True, separators=(",", ":"))
        return {
            "key": hashlib.sha256(text.encode()).hexdigest(),
            "states": [state.value for state in self.states],
            "period": self.period,
        }

    def _compared(self, name: str, value: Any) -> Any:
        if name not in ("args", "meta"):
            return value
        # Checked again: the user may have put a value into it that is not JSON.
        plain = validation.json_object(name, value, _reference)
        if name == "meta":
            for key in (ENTRY, deadline.ENTRY, *COUNTED_BY, *TRACE):
                plain.pop(key, None)
        if self.keys:
            plain = {key: plain[key] for key in self.keys if key in plain}
        return to_table(plain) if name == "args" else plain


class UniqueMeta(dict[str, Any]):
    """The meta of a new unique job. Where columns are copied, the `Unique` is copied with it."""

    __slots__ = ("unique",)

    def __init__(self, meta: Mapping[str, Any], unique: Unique) -> None:
        super().__init__(meta)
        self.unique = unique


def unique_option(value: object) -> Unique | None:
    """Check an option `unique`: `True` means `Unique()`; `False` and `None` mean not unique."""
    if value is True:
        return Unique()
    if value is None or value is False:
        return None
    if not isinstance(value, Unique):
        raise TypeError(f"unique must be a Unique, True or False, not {validation.show(value)}")
    return value


def _reference(value: object) -> Reference | None:
    return value if isinstance(value, Reference) else None


def _period(value: object) -> float:
    seconds = validation.delay("period", value).total_seconds()
    if not 0 < seconds <= LONGEST_INTERVAL:
        raise ValueError(
            f"period must be more than 0 and at most {LONGEST_INTERVAL:g} seconds, or None for"
            f" unlimited, not {validation.show(value)}"
        )
    return seconds


def _states(option: str, value: object) -> tuple[JobState, ...]:
    if isinstance(value, JobState) or (isinstance(value, str) and value not in GROUPS):
        raise ValueError(
            f"{option} must be one of the groups {', '.join(GROUPS)}, or a list of states, not"
            f" {validation.show(value)}"
        )
    if isinstance(value, str):
        return GROUPS[value]
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(
            f"{option} must be a group or a list of states, not {validation.show(value)}"
        )
    given = {validation.state(state) for state in value}
    return tuple(state for state in JobState if state in given)


def _replace(value: object) -> dict[JobState, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        fields = _of("replace", value, REPLACEABLE)
        return dict.fromkeys(WAITING, fields) if fields else {}
    rules = {
        validation.state(state): _of("replace", fields, REPLACEABLE)
        for state, fields in value.items()
    }
    return {state: fields for state, fields in rules.items() if fields}


def _of(option: str, value: object, known: tuple[str, ...]) -> tuple[str, ...]:
    given = _texts(option, value)
    for name in given:
        if name not in known:
            raise ValueError(
                f"{option} must be of {', '.join(known)}; {validation.show(name)} is unknown"
            )
    return given


def _texts(option: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{option} must be a list of strings, not {validation.show(value)}")
    given = list(value)
    for text in given:
        if not isinstance(text, str):
            raise TypeError(f"{option} must be strings, not {validation.show(text)}")
    return tuple(sorted(set(given)))
