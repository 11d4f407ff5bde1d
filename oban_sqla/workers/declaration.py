"""`Declaration`: the options that a worker declares. It makes the worker's jobs."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..clock import client_now
from ..import_path import origin
from ..models import Job, chain, deadline, on_discard, partition, validation
from ..models.job import RULES, new, new_alike
from ..models.new_values import AT_FIRST
from ..models.unique import COUNTED_BY
from .naming import worker_name
from .option import Option, checked, options_of, refuse_unknown
from .options import JobOptions

JOB_OPTIONS = options_of(JobOptions)

_HINT = "; arguments of the job are given in a mapping, like new({'id': 1})"


class Declaration:
    """The options of a worker, each as an attribute with the option's name."""

    name: str
    """The name of the worker, which its jobs store."""
    origin: str
    """`module.qualname` of the code, whatever the worker's name is."""

    if TYPE_CHECKING:

        def __getattr__(self, option: str) -> Any: ...

    def __init__(self, name: str, origin: str, values: Mapping[str, Any]) -> None:
        vars(self).update(values, name=name, origin=origin)
        features = (self.on_discard, self.unique, self.chain, self.limit, self.rate)
        is_plain = not self.meta and all(feature is None for feature in features)
        self._own = {
            "worker": name,
            "queue": self.queue,
            "priority": self.priority,
            "max_attempts": self.max_attempts,
        }
        # `None` if a new job needs more than these values.
        self._shared = {**AT_FIRST, **self._own} if is_plain else None

    def new_job(self, args: Mapping[str, Any] | None, options: JobOptions) -> Job:
        """A job of the worker, not enqueued."""
        if not options and self._shared is not None:
            return new_alike(self._shared, RULES["args"]({} if args is None else args), self.tags)
        given: Mapping[str, Any] = options
        if given:
            refuse_unknown(self.name, "option", given, JOB_OPTIONS, more=_HINT)
        values = {
            **self._own,
            "args": RULES["args"]({} if args is None else args),
            # Copied, since the user may change the tags and the meta of a job in place.
            "tags": [*self.tags],
            "meta": RULES["meta"](self.meta) if self.meta else {},
        }
        for option, value in given.items():
            if option in values:
                values[option] = RULES[option](value)
        if "meta" in given:
            for entry in (deadline.ENTRY, on_discard.ENTRY, chain.ENTRY, *COUNTED_BY):
                values["meta"].pop(entry, None)  # the meta may be copied from another job
        if self.on_discard is not None:
            values["meta"] |= self.on_discard
        if "deadline" in given:
            values["meta"] |= deadline.deadline_entry(
                JOB_OPTIONS["deadline"].check(given["deadline"])
            )
        unique = JOB_OPTIONS["unique"].check(given["unique"]) if "unique" in given else self.unique
        if self.chain is not None:
            values["meta"] |= self.chain.entry(self.name, values["args"])
        job = new(values, _scheduled_at(options) if given else None, unique)
        if self.limit is not None or self.rate is not None:
            partition.partition(job, self.name, self.limit, self.rate)
        return job


def declared(
    subject: type | Callable[..., Any],
    given: Mapping[str, Any],
    known: Mapping[str, Option],
    *,
    base: Declaration | None = None,
    own: Declaration | None = None,
) -> Declaration:
    """The declaration of a class or function; wrong options raise now, not when a job is made.

    Args:
        base: the declaration that the class inherits.
        own: an earlier declaration of the class itself. `given` is added to it.
    """
    refuse_unknown(subject.__qualname__, "option", given, known)
    values = _defaults(known)
    if own is not None:
        values |= vars(own)
    elif base is not None:
        values |= {name: vars(base)[name] for name, option in known.items() if option.inherited}
    values |= checked(given, known)
    name: str | None = given.get("name")
    if own is None:
        return Declaration(worker_name(subject, name), origin(subject), values)
    # A class that a decorator has created again has lost its qualified name.
    return Declaration(own.name if name is None else worker_name(subject, name), own.origin, values)


def undeclared(known: Mapping[str, Option]) -> Declaration:
    """The declaration of a base class that is not a worker itself."""
    return Declaration("", "", _defaults(known))


def _defaults(known: Mapping[str, Option]) -> dict[str, Any]:
    return {name: option.default for name, option in known.items()}


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
