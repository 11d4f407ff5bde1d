"""Listeners that raise errors, for every event, under load."""

from inspect import isfunction

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Cancel, Job, Oban, ObanEvents, Snooze, Worker
from tests.failures.conftest import Runs

pytestmark = pytest.mark.torture


class Varied(Worker, name="failures.varied", max_attempts=2):
    """A worker with each kind of outcome."""

    async def process(self, job: Job) -> Cancel | Snooze | None:
        match job.args["n"] % 4:
            case 0 if job.attempt == 1:
                raise ValueError("the first time")
            case 1 if "snoozed" not in job.meta:
                return Snooze(0.01)
            case 2:
                return Cancel("not wanted")
        return None

    def backoff(self, job: Job) -> float:
        return 0.01


@pytest.mark.parametrize("error", [ValueError, SystemExit])
async def test_failing_listeners_disturb_nothing(
    error: type[BaseException], engine: AsyncEngine, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    heard: set[str] = set()

    def raising(name: str) -> None:
        def listener(oban: Oban, data: object) -> None:
            heard.add(name)
            raise error(name)

        event.listen(oban, name, listener)

    oban = Oban(engine, queues={"default": 10}, poll_interval=0.1)
    for name, member in vars(ObanEvents).items():
        if isfunction(member):
            raising(name)
    async with oban:
        await oban.enqueue_many(Varied.new({"n": n}) for n in range(400))
        await runs.until(lambda: runs.states() == {"completed": 300, "cancelled": 100})
    assert heard >= {"job_start", "job_stop", "job_exception", "claim_stop", "ack_stop"}
    assert heard >= {"stage_stop", "elect_stop"}
    logged = {record.name for record in caplog.records if record.levelname == "ERROR"}
    assert logged == {"oban_sqla.events"}
    caplog.clear()
