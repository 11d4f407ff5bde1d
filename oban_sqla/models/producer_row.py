"""`oban_producers`: one row for each queue that a node runs, updated by its heartbeat."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from .metadata import Base
from .types import UTCDateTime


class ProducerRow(Base):
    """A running queue of a node. As in Oban, the table is unlogged: empty after a server crash."""

    __tablename__ = "oban_producers"
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 - declarative reads it

    uuid: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Text, server_default="oban")
    node: Mapped[str] = mapped_column(Text)
    queue: Mapped[str] = mapped_column(Text)
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    started_at: Mapped[datetime] = mapped_column(
        UTCDateTime, server_default=func.timezone("UTC", func.now())
    )
    updated_at: Mapped[datetime] = mapped_column(
        UTCDateTime, server_default=func.timezone("UTC", func.now())
    )
