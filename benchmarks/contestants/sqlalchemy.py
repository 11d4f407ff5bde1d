"""SQLAlchemy alone: a plain model of the same table, and a transaction without jobs."""

from datetime import datetime
from typing import Any, Self

from sqlalchemy import BigInteger, DateTime, Identity, SmallInteger, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, ENUM, JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from benchmarks.contestant import TakesSession
from benchmarks.contestants.oban_table import ObanTable
from benchmarks.contestants.users import Base, User
from oban_sqla.dsn import database_url
from oban_sqla.models import JobState

NOW = func.timezone("UTC", func.now())
EMPTY = text("ARRAY[]::text[]")


class Plain(Base):
    """The columns of a job, with the defaults of the table, without code of oban_sqla."""

    __tablename__ = "oban_jobs"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    state: Mapped[str] = mapped_column(
        ENUM(*JobState, name="oban_job_state", create_type=False), server_default="available"
    )
    queue: Mapped[str] = mapped_column(Text, server_default="default")
    worker: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("20"))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    args: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=EMPTY)
    errors: Mapped[list[Any]] = mapped_column(JSONB, server_default="[]")
    attempted_by: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=EMPTY)
    inserted_at: Mapped[datetime] = mapped_column(DateTime, server_default=NOW)
    scheduled_at: Mapped[datetime] = mapped_column(DateTime, server_default=NOW)
    attempted_at: Mapped[datetime | None] = mapped_column(DateTime)
    cancelled_at: Mapped[datetime | None] = mapped_column(DateTime)
    completed_at: Mapped[datetime | None] = mapped_column(DateTime)
    discarded_at: Mapped[datetime | None] = mapped_column(DateTime)


class Entrant(ObanTable, TakesSession):
    jobs_each = 0

    async def __aenter__(self) -> Self:
        self.engine = create_async_engine(database_url(self.dsn))
        async with self.engine.connect():
            pass
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.engine.dispose()

    async def unit_of_work(self, count: int) -> None:
        async with AsyncSession(self.engine) as session, session.begin():
            rows = [Plain(worker="benchmarks.nothing", args={"number": n}) for n in range(count)]
            for row in rows:
                session.add(row)
            await session.flush()
            assert all(row.id for row in rows)

    async def ride_along(self, count: int) -> None:
        for number in range(count):
            async with AsyncSession(self.engine) as session, session.begin():
                session.add(User(name=f"user {number}"))
