"""The options of a worker and of a single job, and the one way from both to a `Job`."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, get_args

from ..clock import client_now
from ..instances import DEFAULT_NAME
from ..models import Job, Unique, validation
from ..models.job import RULES, new
from ..models.unique import unique_option
from . import rows
from .cron import Cron, parse
from .rows import Lock

Timeout = float | timedelta | Callable[[Job], float | timedelta | None]
"""Seconds or a `timedelta`, or what says so of a job; `None` for no limit."""


Missing = Literal["cancel", "raise", "none"]
"""What becomes of a job when a row that its arguments refer to is gone."""


class JobOptions(TypedDict, total=False):
    """What a job may say of itself; what it leaves out, its worker says."""

    queue: str
    priority: int
    """From 0, which runs first, to 9."""
    max_attempts: int
    tags: Iterable[str]
    meta: Mapping[str, Any]
    schedule_in: timedelta | float
    """A delay from now, by the client's clock: a `timedelta` or seconds."""
    scheduled_at: datetime
    """An instant; a naive one is taken as UTC."""
    unique: Unique | bool
    """When the job is a duplicate of another one; `True` stands for `Unique()`."""


JOB_OPTIONS = tuple(JobOptions.__annotations__)

_ARGUMENTS = "; arguments of the job are given in a mapping, like new({'id': 1})"


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker says of all its jobs. Oban's defaults."""

    name: str = ""
    origin: str = ""
    """`module.qualname` of the code, whatever its name."""
    queue: str = "default"
    priority: int = 0
    max_attempts: int = 20
    tags: list[str] = field(default_factory=list)
    meta: Mapping[str, Any] = field(default_factory=dict)
    oban: str = DEFAULT_NAME
    """The name of the instance that `enqueue` uses when it is given no `conn`."""
    cron: Cron | None = None
    """When jobs are enqueued by themselves; not inherited."""
    timeout: Timeout | None = None
    """How long an attempt may take; a method `timeout(job)` of the worker goes before it."""
    interruptible: bool = False
    """Whether cancelling a job that runs cancels its task, too, if it is async."""
    missing: Missing = "cancel"
    """Whether a job is cancelled, fails, or gets `None`, when a row of its arguments is gone."""

    unique: Unique | None = None
    """When a job is a duplicate of another one."""

    lock: Lock | None = None
    """How the row of a worker that is a model is locked."""

    def declare(self, name: str, origin: str, changes: Mapping[str, Any]) -> "WorkerOptions":
        """These options under a name, with changes; wrong ones raise when declared, not later."""
        given = {key: value for key, value in changes.items() if value is not None}
        refuse_unknown(origin, "option", given, WORKER_OPTIONS)
        checked = {key: _WORKER_CHECKS[key](value) for key, value in given.items()}
        # A subclass that inherited the entry would double its jobs.
        return replace(self, name=name, origin=origin, **{"cron": None, **checked})

    def new_job(self, args: Mapping[str, Any] | None, options: JobOptions) -> Job:
        """A job of the worker, not enqueued."""
        refuse_unknown(self.name, "option", options, JOB_OPTIONS, more=_ARGUMENTS)
        values = {
            "worker": self.name,
            "args": RULES["args"]({} if args is None else args),
            "queue": self.queue,
            "priority": self.priority,
            "max_attempts": self.max_attempts,
            # Of its own, since they may be changed in place.
            "tags": [*self.tags],
            "meta": RULES["meta"](self.meta) if self.meta else {},
        }
        given: Mapping[str, Any] = options
        for option, value in given.items():
            if option in values:
                values[option] = RULES[option](value)
        unique = unique_option(given["unique"]) if "unique" in given else self.unique
        return new(values, _scheduled_at(options), unique)


def _scheduled_at(options: JobOptions) -> datetime | None:
    at, delay = options.get("scheduled_at"), options.get("schedule_in")
    if delay is None:
        return at
    if at is not None:
        raise ValueError(
            f"schedule_in ({validation.show(delay)}) and scheduled_at ({validation.show(at)})"
            " exclude each other: give one"
        )
    return validation.moment_after("schedule_in", client_now(), delay)


def refuse_unknown(
    subject: str, kind: str, given: Iterable[str], known: Sequence[str], more: str = ""
) -> None:
    """`TypeError` for the first that is not known; it names the one that was meant."""
    for option in given:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}{more}"
            raise TypeError(f"{subject} has no {kind} {option!r}; {hint}")


def _instance_name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"oban must be the name of an instance, not {validation.show(value)}")
    return value


def timeout_seconds(value: object, field: str = "timeout") -> float:
    """The seconds of a timeout; `TypeError` or `ValueError` for what is none."""
    seconds = validation.delay(field, value).total_seconds()
    if seconds <= 0:
        raise ValueError(f"{field} must be more than 0 seconds, not {validation.show(value)}")
    return seconds


def check_timeout(subject: str, function: Callable[..., object], *takes: object) -> None:
    """`TypeError` for a function that is async, or can't be called with what it takes."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"the timeout of {subject} is async; it has to return the seconds at once")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a builtin that does not tell
    try:
        signature.bind(*takes)
    except TypeError:
        raise TypeError(f"the timeout{signature} of {subject} can't be called with a job") from None


def _timeout(value: object) -> Timeout:
    if callable(value) and not isinstance(value, type):
        check_timeout("the worker", value, object())
        return value
    return timeout_seconds(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"interruptible must be True or False, not {validation.show(value)}")
    return value


def _missing(value: object) -> Missing:
    policies: tuple[Missing, ...] = get_args(Missing)
    for policy in policies:
        if value == policy:
            return policy
    choices = ", ".join(map(repr, policies))
    raise ValueError(f"missing must be one of {choices}, not {validation.show(value)}")


_WORKER_CHECKS: Mapping[str, Any] = {
    "queue": validation.queue_name,
    "priority": validation.priority,
    "max_attempts": validation.max_attempts,
    "tags": validation.tag_list,
    "meta": lambda value: validation.json_object("meta", value),
    "oban": _instance_name,
    "cron": parse,
    "timeout": _timeout,
    "interruptible": _flag,
    "missing": _missing,
    "unique": unique_option,
    "lock": rows.lock,
}

WORKER_OPTIONS = ("name", *_WORKER_CHECKS)
