"""`oban_leaders`: the lease of the node that runs the cluster-wide services."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from .metadata import Base
from .types import UTCDateTime


class LeaderLease(Base):
    """The lease of one instance name. As in Oban, the table is unlogged: empty after a crash."""

    __tablename__ = "oban_leaders"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 - declarative reads it

    name: Mapped[str] = mapped_column(Text, primary_key=True, server_default="oban")
    node: Mapped[str] = mapped_column(Text)
    elected_at: Mapped[datetime] = mapped_column(UTCDateTime)
    expires_at: Mapped[datetime] = mapped_column(UTCDateTime)
