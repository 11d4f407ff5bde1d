"""`oban_sqla_controls`: the last orders to the queues, for nodes that did not hear them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .metadata import Base
from .types import UTCDateTime


class QueueOrder(Base):
    """The last order of one kind, to one queue or all, on one node or all. The newest wins."""

    __tablename__ = "oban_sqla_controls"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    """The instance."""
    node: Mapped[str] = mapped_column(Text, primary_key=True)
    """`*` for every node."""
    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    """`*` for every queue."""
    setting: Mapped[str] = mapped_column(Text, primary_key=True)
    """The kind of the order: `paused`, `limit` or `running`."""
    value: Mapped[Any] = mapped_column(JSONB)
    """The order as it was sent: `{"action": "pause", "queue": "*", ...}`."""
    changed_at: Mapped[datetime] = mapped_column(UTCDateTime)
