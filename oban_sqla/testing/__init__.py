"""Functions for your tests: check which jobs are enqueued, and run them, in the test's transaction.

All take the session of the test, and see its uncommitted jobs; or an `Oban`, and see committed
jobs. With an `AsyncSession` or an `Oban` they are awaited; with a `Session` they return at once::

    await assert_enqueued(session, worker=WelcomeEmail, args={"email": "ann@shop.test"})
    counts = await drain_queue(session)
    assert counts["completed"] == 1

The module `pytest_oban_sqla` gives pytest the fixtures `oban_postgres`, `oban_schema` and `oban`.
`JobFactory` is in `oban_sqla.testing.factory`. Both need the extra `testing`.
"""

from .drain import drain_queue
from .enqueued import all_enqueued, assert_enqueued, refute_enqueued
from .frozen_time import frozen_time
from .inline import inline
from .process_job import process_job

__all__ = [
    "all_enqueued",
    "assert_enqueued",
    "drain_queue",
    "frozen_time",
    "inline",
    "process_job",
    "refute_enqueued",
]
