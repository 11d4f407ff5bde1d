"""Search: parse the search in the address of a page, and turn it into SQL conditions."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, or_

from ..clock import LONGEST_INTERVAL
from ..models import Job, JobState
from ..models.job_id import LARGEST_ID
from ..monitor.job_queries import Filters

WORDS: Mapping[str, str] = {
    "worker:Mail": "jobs of a worker, by its full name or the end of it",
    "queue:mailers": "jobs of a queue",
    "tag:vip": "jobs with a tag",
    "args.user.id:7": "jobs with an argument",
    "error:timed out": "text in the last error",
    "older:1h": "enqueued longer ago than 30s, 15m, 2h, 7d",
    "newer:1h": "enqueued less than 30s, 15m, 2h, 7d ago",
    "4711": "the job with an id",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TOKEN = re.compile(r'(?:[^\s"]|"[^"]*(?:"|$))+')
# The most characters and words of a search, so that no statement becomes too long.
LONGEST_TEXT, MOST_WORDS = 1000, 20


class SearchError(ValueError):
    """A search that can't be understood. Its message is shown to the user."""


@dataclass(frozen=True, slots=True)
class Search:
    """The conditions that a job must match, all of them."""

    state: JobState | None = None
    queue: str | None = None
    ids: tuple[int, ...] = ()
    workers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    args: tuple[tuple[tuple[str, ...], str], ...] = ()
    """Paths, and the expected value at each."""
    errors: tuple[str, ...] = ()
    older_than: float | None = None
    newer_than: float | None = None
    text: str = field(default="", compare=False)
    """The text that the user typed."""

    @property
    def is_private(self) -> bool:
        """Whether the search needs the right `args`."""
        return bool(self.args or self.errors)

    @property
    def scans(self) -> bool:
        """Whether no index finds the jobs, so that many must be read."""
        return not self.ids and bool(
            self.workers or self.tags or self.args or self.errors or self.older_than
        )

    @property
    def is_empty(self) -> bool:
        """Whether all jobs match."""
        return self == Search()

    def filters(self, *states: JobState, before: int | None = None, first: int = 0) -> Filters:
        """The filters for a statement; the ids are below `before` and at least `first`."""
        where = [*self._conditions()]
        if before is not None:
            where.append(Job.id < before)
        if first:
            where.append(Job.id >= first)
        return Filters(
            ids=self.ids,
            states=states or ((self.state,) if self.state else ()),
            queue=self.queue,
            older_than=self.older_than,
            newer_than=self.newer_than,
            tags=self.tags,
            where=tuple(where),
        )

    def _conditions(self) -> Iterator[ColumnElement[bool]]:
        for worker in self.workers:
            yield or_(Job.worker == worker, Job.worker.endswith(f".{worker}", autoescape=True))
        for path, value in self.args:
            yield or_(*(Job.args_contain(nested(path, one)) for one in _readings(value)))
        for text in self.errors:
            last = func.coalesce(Job.errors[-1]["error"].astext, cast(Job.errors, Text))
            yield last.icontains(text, autoescape=True)


def parse(text: str, *, state: str = "", queue: str = "") -> Search:
    """Parse the search in the address of a page; `SearchError` for an invalid word."""
    if len(text) > LONGEST_TEXT or "\0" in text + queue:
        raise SearchError(f"a search has up to {LONGEST_TEXT} characters, and no NUL")
    search = Search(_state(state), queue or None, text=text.strip())
    tokens = [token.replace('"', "") for token in _TOKEN.findall(text)]
    if len(tokens) > MOST_WORDS:
        raise SearchError(f"a search has up to {MOST_WORDS} words")
    for token in tokens:
        search = _with(search, token)
    return search


def _with(search: Search, token: str) -> Search:
    if token.isascii() and token.isdigit():
        if (id := id_of(token)) is None:
            raise SearchError(f"no job has the id {token[:20]}")
        return replace(search, ids=(*search.ids, id))
    key, colon, value = token.partition(":")
    if not colon:
        # The most likely meaning of a word alone.
        key, value = "worker", token
    if not value:
        raise SearchError(f"{key}: needs a value")
    if key == "queue":
        return replace(search, queue=value)
    if key == "worker":
        return replace(search, workers=(*search.workers, value))
    if key == "tag":
        return replace(search, tags=(*search.tags, value))
    if key == "error":
        return replace(search, errors=(*search.errors, value))
    if key == "older":
        return replace(search, older_than=_seconds(value))
    if key == "newer":
        return replace(search, newer_than=_seconds(value))
    if key == "state":
        return replace(search, state=_state(value))
    path = tuple(key.split("."))
    if path[0] == "args" and len(path) > 1 and all(path):
        return replace(search, args=(*search.args, (path[1:], value)))
    raise SearchError(f"there is no word {key!r}; use worker:, queue:, tag:, args.NAME:, error:, "
                      "older: or newer:")  # fmt: skip


def id_of(text: str) -> int | None:
    """The id in a text; `None` if no job can have it. Python refuses to parse very long numbers."""
    id = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    return id if 0 < id <= LARGEST_ID else None


def _state(name: str) -> JobState | None:
    try:
        return JobState(name) if name else None
    except ValueError:
        raise SearchError(f"there is no state {name!r}") from None


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text, re.ASCII)
    length = float(found[1]) * _UNITS[found[2]] if found else LONGEST_INTERVAL
    if length >= LONGEST_INTERVAL:
        raise SearchError(f"{text!r} is no duration, like 30s, 15m, 2h or 7d")
    return length


def _readings(value: str) -> list[Any]:
    """The JSON values that a text may mean: the text itself, or a number or constant."""
    try:
        read = json.loads(value, parse_constant=str)
    except (ValueError, RecursionError):
        return [value]
    return [value] if isinstance(read, str | dict | list) else [value, read]


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Arguments that only have a value at a path."""
    name, *rest = path
    return {name: nested(tuple(rest), value) if rest else value}
