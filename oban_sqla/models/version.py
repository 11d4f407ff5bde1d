"""`oban_sqla_version`: the installed version of our schema, however it was installed."""

from datetime import datetime

from sqlalchemy import Integer, func
from sqlalchemy.orm import Mapped, mapped_column

from .metadata import Base
from .types import UTCDateTime


class SchemaVersion(Base):
    """One row for each version of the schema that was applied; the highest is the current one."""

    __tablename__ = "oban_sqla_version"

    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    upgraded_at: Mapped[datetime] = mapped_column(
        UTCDateTime, server_default=func.timezone("UTC", func.now())
    )
