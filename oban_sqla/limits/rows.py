"""The tables of rates, and the index of limited jobs."""

from datetime import datetime

from sqlalchemy import Double, Index, Text
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from ..models import Base, Job
from ..models.types import UTCDateTime


class RateRow(Base):
    """The saved permits and the hold of a rate or a key. Its starts are other rows."""

    __tablename__ = "oban_sqla_rates"

    rate: Mapped[str] = mapped_column(Text, primary_key=True)
    tokens: Mapped[float | None] = mapped_column(Double)
    """The number of jobs that may start at `counted_at`, for a rate with a burst."""
    counted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    held_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """No job of the rate or key starts before this time."""


class StartRow(Base):
    """The number of jobs of a rate that started in a slice of time, which ends at `at`."""

    __tablename__ = "oban_sqla_starts"

    rate: Mapped[str] = mapped_column(Text, primary_key=True)
    at: Mapped[datetime] = mapped_column(UTCDateTime, primary_key=True)
    starts: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
    """When the starts no longer count."""

    __table_args__ = (Index("oban_sqla_starts_at_index", expires_at),)


Index(
    "oban_sqla_jobs_partition_index",
    Job.queue,
    Job.priority,
    Job.meta["partition_key"].astext,
    Job.scheduled_at,
    Job.id,
    postgresql_where=sql("state = 'available' AND meta ? 'partition_key'"),
)
