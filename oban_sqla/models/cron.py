"""`oban_sqla_cron`: up to which tick each cron entry was enqueued, so that none is twice."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from .metadata import Base
from .types import UTCDateTime


class CronEntry(Base):
    """The last tick of one entry of an instance."""

    __tablename__ = "oban_sqla_cron"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    """The instance."""
    entry: Mapped[str] = mapped_column(Text, primary_key=True)
    """What `cron_name` is in the meta of its jobs."""
    ticked_at: Mapped[datetime] = mapped_column(UTCDateTime)
