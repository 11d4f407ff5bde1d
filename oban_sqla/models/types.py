"""Column types that the tables share."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.types import TypeDecorator

from .metadata import metadata
from .state import JobState


class UTCDateTime(TypeDecorator[datetime]):
    """`timestamp without time zone` that holds UTC, as Oban keeps it.

    Aware values are converted, naive ones are taken as UTC; what comes back is aware.
    """

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is None:
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


job_state = ENUM(
    JobState,
    name="oban_job_state",
    metadata=metadata,
    values_callable=lambda states: [state.value for state in states],
)
