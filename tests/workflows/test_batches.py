"""Batches: each callback runs once, whichever node runs the last jobs."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import update

from oban_sqla import Batch, Job, JobState, Oban, Worker
from tests.conftest import StartOban
from tests.listening import hear
from tests.workflows.conftest import Sessions, loaded, states
from tests.workflows.workers import Step, ran

pytestmark = pytest.mark.usefixtures("expect_errors")  # some jobs are discarded

EVENTS = ("on_completed", "on_exhausted", "on_attempted", "on_discarded", "on_cancelled")


class Callback(Worker, name="batches.callback"):
    """A worker that notes its name."""

    async def process(self, job: Job) -> None:
        ran.append(job.meta["name"])


class Retried(Worker, name="batches.retried", max_attempts=2):
    """A worker that fails at the first attempt."""

    async def process(self, job: Job) -> None:
        if job.attempt == 1:
            raise ValueError("again")

    def backoff(self, job: Job) -> float:
        return 3600


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def batch_of(*jobs: Job) -> Batch:
    return Batch(jobs, **{event: Callback.new() for event in EVENTS})


@pytest.mark.parametrize(
    ("how", "called"),
    [
        ([{}, {}], {"on_completed", "on_exhausted", "on_attempted"}),
        ([{}, {"fail": True}], {"on_exhausted", "on_attempted", "on_discarded"}),
        ([{"cancel": True}, {}], {"on_exhausted", "on_attempted", "on_cancelled"}),
    ],
)
async def test_a_batch_enqueues_its_callbacks(
    start: StartOban, sessions: Sessions, how: list[dict[str, bool]], called: set[str]
) -> None:
    oban = await start(queues={"default": 10})
    batch = batch_of(*(Step.new(args) for args in how))
    await oban.enqueue(batch)
    await oban.wait(batch, timeout=20)
    await oban.wait_many([batch.steps[event] for event in EVENTS], timeout=20)
    done = await loaded(sessions, batch.id)
    assert {event: states(done)[event] for event in EVENTS} == {
        event: "completed" if event in called else "cancelled" for event in EVENTS
    }
    assert Counter(name for name in ran if name in EVENTS) == dict.fromkeys(called, 1)
    assert done.total == 2


async def test_on_attempted_runs_when_each_job_was_tried(
    start: StartOban, sessions: Sessions
) -> None:
    oban = await start(queues={"default": 10})
    batch = batch_of(Retried.new(), Step.new())
    with hear(oban, "job_stop") as stops:
        await oban.enqueue(batch)
        await stops.until(lambda events: any(e.job.worker == "batches.callback" for e in events))
    assert "on_attempted" in ran
    assert "on_exhausted" not in ran


async def test_a_callback_runs_once_whichever_node_runs_the_last_jobs(
    start: StartOban, sessions: Sessions
) -> None:
    """Four nodes share the jobs of many batches."""
    nodes = [
        await start(queues={"default": 5}, name=f"batches-{n}", node=f"node-{n}", claim_ahead=0)
        for n in range(4)
    ]
    batches = [
        Batch(
            [Step.new() for _ in range(8)], on_exhausted=Callback.new(), on_completed=Callback.new()
        )
        for _ in range(25)
    ]
    with hear(Oban, "job_stop") as stops:
        async with sessions.begin() as session:
            session.add_all(batches)
        await stops.until(
            lambda events: sum(e.job.worker == "batches.callback" for e in events) >= 50
        )
    await asyncio.gather(*(nodes[0].wait(batch, timeout=20) for batch in batches))
    assert Counter(name for name in ran if name.startswith("on_")) == {
        "on_exhausted": 25,
        "on_completed": 25,
    }


async def test_jobs_that_other_programs_finish_are_counted(
    start: StartOban, sessions: Sessions
) -> None:
    batch = batch_of(Step.new(schedule_in=60), Step.new(schedule_in=60))
    async with sessions.begin() as session:
        session.add(batch)
    async with sessions.begin() as session:
        finished = {"state": JobState.COMPLETED, "attempt": 1}
        await session.execute(update(Job).where(Job.worker == "flows.step").values(finished))
    with hear(Oban, "job_stop") as stops:
        await start(queues={"default": 10})
        await stops.wait(3)
    assert {"on_completed", "on_exhausted", "on_attempted"} == {*ran}


def test_an_object_that_is_not_a_job_is_refused() -> None:
    with pytest.raises(TypeError, match="step '1' needs a Job"):
        Batch([None])  # type: ignore[list-item]
