"""`Finding`: a result of a check; `Check`: a check, and what it says if it finds nothing."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A result of a check, and the remedy if there is one."""

    check: str
    level: Level
    text: str
    remedy: str | None = None


class Result(NamedTuple):
    """A `Finding` without the name of its check."""

    level: Level
    text: str
    remedy: str | None = None


def ok(text: str) -> Result:
    """All is well."""
    return Result("ok", text)


def note(text: str, remedy: str) -> Result:
    """Worth knowing: jobs run, but something may be wrong."""
    return Result("note", text, remedy)


def problem(text: str, remedy: str | None) -> Result:
    """Jobs don't run, or will stop running."""
    return Result("problem", text, remedy)


@dataclass(frozen=True, slots=True)
class Check:
    """A check, which yields its results."""

    results: Callable[[], AsyncIterator[Result]]
    otherwise: str | None = None
    """The text of the finding if `results` yields none."""

    async def findings(self, name: str) -> AsyncIterator[Finding]:
        """The results, as findings of the check with this name."""
        found = False
        async for result in self.results():
            found = True
            yield Finding(name, *result)
        if not found and self.otherwise is not None:
            yield Finding(name, *ok(self.otherwise))
