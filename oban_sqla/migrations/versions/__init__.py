"""The versions of the schema. A released version never changes: each change is a new version."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from alembic.operations import Operations

from . import v1, v2, v3, v4, v5, v6, v7, v8


class Version(Protocol):
    """One version of the schema, in a module of its own."""

    @property
    def TABLES(self) -> tuple[str, ...]:  # noqa: N802 - a constant of the module
        """The tables that this version creates."""

    def upgrade(self, op: Operations, prefix: str | None) -> None:
        """Upgrade the schema from the version before. Objects that exist already stay."""

    def downgrade(self, op: Operations, prefix: str | None) -> None:
        """Downgrade the schema to the version before."""


VERSIONS: Mapping[int, Version] = MappingProxyType(
    {1: v1, 2: v2, 3: v3, 4: v4, 5: v5, 6: v6, 7: v7, 8: v8}
)

LATEST = max(VERSIONS)

TABLES = tuple(table for version in VERSIONS.values() for table in version.TABLES)
"""The tables of all versions."""
