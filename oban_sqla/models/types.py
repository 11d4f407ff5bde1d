"""Column types that the tables share."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect
from sqlalchemy.dialects.postgresql import ENUM, JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from ..errors import ObanError
from .metadata import metadata
from .notation import from_table, references, to_table
from .state import JobState
from .unique import ENTRY, UniqueMeta

_WAY_OUT = "add the job to a session, or use enqueue(), instead of bulk_save_objects() or insert()"


class UTCDateTime(TypeDecorator[datetime]):
    """`timestamp without time zone` in UTC, as in Oban.

    Aware values are converted, naive values are taken as UTC. Loaded values are aware.
    """

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is None:
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Arguments(TypeDecorator[Any]):
    """`jsonb` of a job's arguments, in the notation that marks references to rows.

    `ObanError` for a reference to an instance without a key, if the statement can't add the key.
    """

    impl = JSONB
    cache_ok = True
    hashable = False

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if any(reference.is_unknown for reference in references(value)):
            raise ObanError(f"a job refers to an instance that has no key yet; {_WAY_OUT}")
        return to_table(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return from_table(value)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        # `@>` and `=` compare with arguments; other operators take a key or a path.
        if isinstance(value, dict | list):
            return self
        return self.impl_instance.coerce_compared_value(op, value)

    def compare_values(self, x: Any, y: Any) -> bool:
        # A reference equals a dict with the same items, but the table stores them differently.
        return bool(to_table(x) == to_table(y))


class Meta(TypeDecorator[Any]):
    """`jsonb` of a job's meta.

    `ObanError` for the meta of a unique job, if the statement does not look for duplicates.
    """

    impl = JSONB
    cache_ok = True
    hashable = False

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if isinstance(value, UniqueMeta) and ENTRY not in value:
            raise ObanError(f"a job is unique, but this statement ignores that; {_WAY_OUT}")
        return value

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        return self.impl_instance.coerce_compared_value(op, value)


job_state = ENUM(
    JobState,
    name="oban_job_state",
    metadata=metadata,
    values_callable=lambda states: [state.value for state in states],
)
