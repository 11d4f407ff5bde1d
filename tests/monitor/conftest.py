"""The fixtures that the tests of the monitor share with those of the node and the statements."""

from tests.runtime.conftest import workers
from tests.statements.conftest import connection, find, run, with_meta

__all__ = ["connection", "find", "run", "with_meta", "workers"]
