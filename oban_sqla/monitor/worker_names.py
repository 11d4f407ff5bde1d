"""Names of workers, as jobs have them: found by their last part, or guessed."""

from dataclasses import dataclass
from difflib import get_close_matches

from ..runtime.database import Database
from .job_queries import worker_exists, workers


@dataclass(frozen=True, slots=True)
class FoundWorker:
    """What a name led to."""

    name: str | None
    """The full name; `None` if no job has a worker of that name."""
    close: str | None = None
    """A name that may be meant instead."""


async def find_worker(database: Database, name: str) -> FoundWorker:
    """The worker of some job, by its full name or by the end of it: `SendMail`, `mail.SendMail`.

    `ValueError` that lists the full names if several workers match.
    """
    if await database.fetch(worker_exists(name)):
        return FoundWorker(name)
    known = [known for (known,) in await database.fetch(workers())]
    ending = [full for full in known if full.endswith(f".{name}")]
    if len(ending) > 1:
        raise ValueError(f"several workers are named {name!r}: {', '.join(ending)}; name one")
    if ending:
        return FoundWorker(ending[0])
    # The end of a name may be misspelt, or the whole of it.
    ends = {full.rpartition(".")[2].lower(): full for full in known}
    last = name.rpartition(".")[2].lower()
    close = get_close_matches(name, known, 1, 0.75) or get_close_matches(last, ends, 1, 0.6)
    return FoundWorker(None, ends.get(close[0], close[0]) if close else None)
