"""Workers of steps and of jobs in chains, which log the beginnings of attempts and the ends."""

from sqlalchemy import BigInteger, Boolean, Column, Identity, MetaData, Table, insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban_sqla import Job, Snooze, Worker, Workflow, current_workflow
from tests.databases import async_engine

METADATA = MetaData()
LOG = Table(
    "log",
    METADATA,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("job_id", BigInteger, nullable=False),
    Column("ended", Boolean, nullable=False),
)
"""The ids have the order of time: a row gets its id when it is inserted."""


class Logged(Worker, name="failures.logged", max_attempts=50):
    """Logs the beginning of each attempt at once, and the end in the transaction of its session."""

    engine: AsyncEngine

    @classmethod
    def connect(cls, dsn: str, prefix: str) -> None:
        cls.engine = async_engine(dsn, prefix)

    async def process(self, job: Job, session: AsyncSession) -> object:
        async with self.engine.begin() as connection:
            await connection.execute(insert(LOG), {"job_id": job.id, "ended": False})
        if job.args.get("snoozes") and not job.meta.get("snoozed"):
            return Snooze(0.1)
        if job.attempt <= job.args.get("fails", 0):
            raise ValueError("again")
        await session.execute(insert(LOG), {"job_id": job.id, "ended": True})
        if job.args.get("grows"):
            session.add(grown(current_workflow()))
        return None

    def backoff(self, job: Job) -> float:
        return 0.1


class LoggedPlainly(Logged, name="failures.logged_plainly", max_attempts=50):
    """`Logged` without a session: an end may be logged more than once."""

    async def process(self, job: Job) -> None:  # type: ignore[override]
        rows = [{"job_id": job.id, "ended": False}, {"job_id": job.id, "ended": True}]
        async with self.engine.begin() as connection:
            await connection.execute(insert(LOG), rows)


class InChain(Logged, name="failures.in_chain", chain="chain", max_attempts=50):
    """`Logged` in a chain."""


def grown(flow: Workflow) -> Workflow:
    """The workflow with two more steps, and a workflow within it."""
    within = Workflow("within")
    within.add("deep", Logged.new())
    flow.add("more", Logged.new(), deps="grow")
    flow.add("most", LoggedPlainly.new(), deps=["more", "first"])
    flow.add_workflow("within", within, deps="more")
    return flow
