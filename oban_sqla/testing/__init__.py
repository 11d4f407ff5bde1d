"""For your own tests: what is enqueued, and running it, in the transaction of the test.

All take the session of the test, of any kind, and see what it has not committed; or an `Oban`, and
see what is committed. As in SQLAlchemy, what is given an `AsyncSession` (or an `Oban`) is awaited,
and what is given a `Session` returns at once::

    await assert_enqueued(session, worker=WelcomeEmail, args={"email": "ann@shop.test"})
    counts = await drain_queue(session)
    assert counts["completed"] == 1

pytest has the fixtures `oban_postgres`, `oban_schema` and `oban`, of the module `pytest_oban_sqla`;
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
