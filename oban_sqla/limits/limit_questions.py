"""`LimitQuestions`, a part of `Oban`: why a job waits."""

from ..errors import JobNotFoundError
from ..models import Job
from ..runtime.database import Database
from .why import why


class LimitQuestions:
    """Ask about jobs that wait."""

    _database: Database

    async def why(self, job: Job | int, /) -> str:
        """Why a job waits, in one sentence: "2 of 2 executing for account_id 42 (jobs 5, 9)".

        For a job that does not wait, it says what became of it. `JobNotFoundError` if there is no
        such job; `ValueError` for a job without an id.
        """
        id = job if isinstance(job, int) else job.id
        if id is None:
            raise ValueError(f"{job!r} has no id: it was not enqueued, or not flushed yet")
        sentence = await why(self._database, id)
        if sentence is None:
            raise JobNotFoundError(f"there is no job {id}")
        return sentence
