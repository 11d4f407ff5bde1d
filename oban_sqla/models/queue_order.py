"""`oban_sqla_controls`: the last orders to queues, for nodes that missed the notification."""

from datetime import datetime
from typing import Any

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .metadata import Base
from .types import UTCDateTime


class QueueOrder(Base):
    """The last order of a kind, to one or all queues, on one or all nodes. The newest one wins."""

    __tablename__ = "oban_sqla_controls"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    """The name of the instance."""
    node: Mapped[str] = mapped_column(Text, primary_key=True)
    """The name of the node; `*` for every node."""
    queue: Mapped[str] = mapped_column(Text, primary_key=True)
    """The name of the queue; `*` for every queue."""
    setting: Mapped[str] = mapped_column(Text, primary_key=True)
    """The kind of the order: `paused`, `limit` or `running`."""
    value: Mapped[Any] = mapped_column(JSONB)
    """The order as it was sent: `{"action": "pause", "queue": "*", ...}`."""
    changed_at: Mapped[datetime] = mapped_column(UTCDateTime)
