"""The actions on jobs, in the words of the command line."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..manage.cancel import CANCELLABLE
from ..manage.delete import DELETABLE
from ..manage.retry import RETRYABLE
from ..models import JobState
from .access import Right


@dataclass(frozen=True, slots=True)
class Verb:
    """The words and the icon of an action."""

    name: Right
    done: str
    """The past participle."""
    icon: str
    warning: str


@dataclass(frozen=True, slots=True)
class JobVerb(Verb):
    """The words of an action on jobs, and the states that it concerns."""

    states: tuple[JobState, ...]
    """The states in which it is possible."""
    default: tuple[JobState, ...]
    """The states of the jobs that a search finds, if it names no state."""


JOB_VERBS: Mapping[str, JobVerb] = {
    verb.name: verb
    for verb in (
        JobVerb(
            "retry",
            "retried",
            "retry",
            "The jobs run again as soon as their queues have free slots.",
            RETRYABLE,
            (JobState.RETRYABLE, JobState.DISCARDED, JobState.CANCELLED),
        ),
        JobVerb(
            "cancel",
            "cancelled",
            "cancelled",
            "Waiting jobs will not run. Executing jobs are told to stop.",
            CANCELLABLE,
            CANCELLABLE,
        ),
        JobVerb(
            "delete",
            "deleted",
            "trash",
            "The jobs are gone for good, with their arguments and errors.",
            DELETABLE,
            DELETABLE,
        ),
    )
}
