"""The workers of the steps in tests."""

from sqlalchemy.ext.asyncio import AsyncSession

from oban_sqla import Cancel, Job, Worker

ran: list[str] = []


class Step(Worker, name="flows.step", max_attempts=1):
    """Notes its name, and follows its arguments."""

    async def process(self, job: Job) -> object:
        ran.append(job.meta["name"])
        if job.args.get("fail"):
            raise ValueError("no luck")
        return Cancel("not today") if job.args.get("cancel") else None


class InTransaction(Worker, name="flows.in_transaction", max_attempts=1):
    """`Step` with a session, which it uses."""

    async def process(self, job: Job, session: AsyncSession) -> object:
        await session.connection()
        return await Step().process(job)
