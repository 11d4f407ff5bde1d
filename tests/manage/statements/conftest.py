"""The fixtures of the tests of statements."""

from tests.statements.conftest import connection, find, run, with_meta

__all__ = ["connection", "find", "run", "with_meta"]
