"""Start and stop a real PostgreSQL from Python, for scripts and tests (extra `embedded`)."""

from .cluster import EmbeddedPostgresError
from .postgres import EmbeddedPostgres, embedded_postgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "embedded_postgres"]
