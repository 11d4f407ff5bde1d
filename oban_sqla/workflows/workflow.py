"""`Workflow`: a graph of jobs, as an object of a session."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, Text, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from ..models import Base, Job
from ..models.types import UTCDateTime

_NONE = sql("0")


class Workflow(Base):
    """A graph of jobs."""

    __tablename__ = "oban_workflows"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str | None] = mapped_column(Text)
    parent_id: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text, server_default="executing")
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    suspended: Mapped[int] = mapped_column(server_default=_NONE)
    available: Mapped[int] = mapped_column(server_default=_NONE)
    scheduled: Mapped[int] = mapped_column(server_default=_NONE)
    executing: Mapped[int] = mapped_column(server_default=_NONE)
    retryable: Mapped[int] = mapped_column(server_default=_NONE)
    completed: Mapped[int] = mapped_column(server_default=_NONE)
    cancelled: Mapped[int] = mapped_column(server_default=_NONE)
    discarded: Mapped[int] = mapped_column(server_default=_NONE)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    inserted_at: Mapped[datetime] = mapped_column(
        UTCDateTime, server_default=func.timezone("UTC", func.now())
    )
    total: Mapped[int] = mapped_column(server_default=_NONE)
    """How many steps it has."""
    open: Mapped[int] = mapped_column(server_default=_NONE)
    """How many steps have not ended, without those of `add_last`."""
    lasts: Mapped[int] = mapped_column(server_default=_NONE)
    """How many steps of `add_last` have not ended."""
    untried: Mapped[int] = mapped_column(server_default=_NONE)
    """How many jobs of a batch have not ended their first attempt."""
    unique_key: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index(
            "oban_sqla_workflows_unique_index",
            unique_key,
            unique=True,
            postgresql_where=sql("unique_key IS NOT NULL"),
        ),
    )


Index(
    "oban_sqla_jobs_workflow_index",
    Job.meta["workflow_id"].astext,
    postgresql_where=sql("meta ? 'workflow_id'"),
)
Index(
    "oban_sqla_jobs_chain_index",
    Job.meta["chain_id"].astext,
    Job.id,
    postgresql_where=sql("meta ? 'chain_id' AND state NOT IN ('completed', 'cancelled')"),
)
