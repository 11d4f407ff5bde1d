"""The data of an event, as attributes of a log record and as words in its message."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache, cached_property
from typing import Any

from ..dsn import hide_passwords
from ..models import Job
from ..oban import Oban


class Facts(Mapping[str, Any]):
    """The data of an event and the name of its instance, computed when a record reads them."""

    def __init__(self, oban: Oban, data: Any) -> None:
        self._oban = oban
        self._data = data

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"event": _name(type(self._data).__name__)}
        facts |= {"instance": self._oban.name, "node": self._oban.node}
        for field in fields(self._data):
            value = getattr(self._data, field.name)
            if isinstance(value, Job):
                facts |= {"job_id": value.id, "worker": value.worker, "queue": value.queue}
                facts |= {"attempt": value.attempt, "max_attempts": value.max_attempts}
            elif isinstance(value, BaseException):
                facts["error"] = f"{type(value).__name__}: {shorten(value)}"
            else:
                facts[field.name] = value
        return facts

    def __getitem__(self, name: str) -> Any:
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


@cache
def _name(event: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event).lower()


def job_in_words(job: Job) -> str:
    """A job and its attempt in words."""
    return f"job {job.id} ({job.worker}, attempt {job.attempt} of {job.max_attempts})"


def ids_in_words(ids: tuple[int, ...], most: int = 20) -> str:
    """The first ids, and the number of the rest."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(map(str, ids[:most])) + more


def shorten(error: BaseException, longest: int = 500) -> str:
    """The message of an error without passwords, cut if it is long."""
    try:
        text = str(error) or type(error).__name__
    except Exception:
        text = f"{type(error).__name__}, which can't be printed"
    text = hide_passwords(text)
    return text if len(text) <= longest else f"{text[:longest]}..."


def cause(error: BaseException) -> str:
    """The first line of the driver's message, without the statement."""
    found = getattr(error, "orig", None) or error
    return next(iter(shorten(found).splitlines()), type(found).__name__)
