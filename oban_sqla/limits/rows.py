"""The tables of rates, and the index of limited jobs."""

from datetime import datetime

from sqlalchemy import Double, Index, Text
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from ..models import Base, Job
from ..models.types import UTCDateTime


class RateRow(Base):
    """What is known of a rate, or of a key, beside its starts."""

    __tablename__ = "oban_sqla_rates"

    rate: Mapped[str] = mapped_column(Text, primary_key=True)
    tokens: Mapped[float | None] = mapped_column(Double)
    """How many may start at `counted_at`, of a rate with a burst."""
    counted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    held_until: Mapped[datetime | None] = mapped_column(UTCDateTime)
    """Nothing of it starts before."""


class StartRow(Base):
    """How many jobs of a rate started up to an instant, and after the one before."""

    __tablename__ = "oban_sqla_starts"

    rate: Mapped[str] = mapped_column(Text, primary_key=True)
    at: Mapped[datetime] = mapped_column(UTCDateTime, primary_key=True)
    starts: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
    """When they count no more."""

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
