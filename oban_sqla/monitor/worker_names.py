"""Find the workers of jobs by the last part of their names, or by a similar name."""

from dataclasses import dataclass
from difflib import get_close_matches

from ..runtime.database import Database
from .job_queries import worker_exists, workers


@dataclass(frozen=True, slots=True)
class FoundWorker:
    """The result of the search for a name."""

    name: str | None
    """The full name; `None` if no job has such a worker."""
    close: str | None = None
    """A similar name, if there is one."""


async def find_worker(database: Database, name: str) -> FoundWorker:
    """Find a worker of the jobs by its full name or its end, such as `SendMail`, `mail.SendMail`.

    If several workers match, a `ValueError` lists their full names.
    """
    if await database.fetch(worker_exists(name)):
        return FoundWorker(name)
    known = [known for (known,) in await database.fetch(workers())]
    ending = [full for full in known if full.endswith(f".{name}")]
    if len(ending) > 1:
        raise ValueError(
            f"several workers are named {name!r}: {', '.join(ending)}; use a full name"
        )
    if ending:
        return FoundWorker(ending[0])
    # The whole name may be misspelt, or its end.
    ends = {full.rpartition(".")[2].lower(): full for full in known}
    last = name.rpartition(".")[2].lower()
    close = get_close_matches(name, known, 1, 0.75) or get_close_matches(last, ends, 1, 0.6)
    return FoundWorker(None, ends.get(close[0], close[0]) if close else None)
