"""`LimitQuestions`, a part of `Oban`: why a job waits, and the permits of rates."""

from ..errors import JobNotFoundError
from ..models import Job
from ..runtime.database import Database
from .named_rate import NamedRate
from .why import why


class LimitQuestions:
    """Explain why jobs wait, and give access to rates."""

    _database: Database

    def rate(self, name: str, /, *, key: object = None) -> NamedRate:
        """The rate that a worker declares, by its name, or by the worker's name.

        key: the key, for a rate that counts by keys. A mapped instance stands for its primary key.

        `LookupError` if no imported worker declares the rate; `TypeError` for an invalid key.
        """
        return NamedRate(self._database, name, key)

    async def why(self, job: Job | int, /) -> str:
        """Why a job waits, in one sentence: "2 of 2 executing for account_id 42 (jobs 5, 9)".

        For a job that does not wait, the sentence says when it ran or ended. `JobNotFoundError` if
        there is no such job; `ValueError` for a job without an id.
        """
        id = job if isinstance(job, int) else job.id
        if id is None:
            raise ValueError(f"{job!r} has no id: it was not enqueued, or not flushed yet")
        sentence = await why(self._database, id)
        if sentence is None:
            raise JobNotFoundError(f"there is no job {id}")
        return sentence
