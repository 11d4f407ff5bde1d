"""Checked by type checkers, not run: properties and conditions of jobs."""

from datetime import timedelta
from typing import assert_type

from sqlalchemy import select

from oban_sqla import Job, Oban

assert_type(Job("w").is_finished, bool)
assert_type(Job("w").is_due, bool)
assert_type(Job("w").failing, bool)
assert_type(Job("w").waited, timedelta | None)
assert_type(Job("w").duration, timedelta | None)
select(Job).where(Job.is_due, ~Job.failing, Job.for_worker("w")).order_by(Job.waited)
Job.args_contain(["user"])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def wait(oban: Oban) -> None:
    assert_type(await oban.wait(5, timeout=1.5), Job)
    assert_type(await oban.wait_many([Job("w"), 7]), list[Job])
