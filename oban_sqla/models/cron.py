"""`oban_sqla_cron`: the last enqueued tick of each cron entry, so that none is enqueued twice."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from .metadata import Base
from .types import UTCDateTime


class CronEntry(Base):
    """The last tick of one cron entry of an instance."""

    __tablename__ = "oban_sqla_cron"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    """The name of the instance."""
    entry: Mapped[str] = mapped_column(Text, primary_key=True)
    """The name of the entry: `cron_name` in the meta of its jobs."""
    ticked_at: Mapped[datetime] = mapped_column(UTCDateTime)
