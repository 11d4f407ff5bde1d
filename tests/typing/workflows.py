"""Checked by type checkers, not run: workflows, their steps and their values."""

from datetime import timedelta
from typing import Annotated, Any, assert_type

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from oban_sqla import Batch, Chain, From, Job, Oban, Record, Worker, Workflow, current_workflow, job
from oban_sqla.workflows.blocked_chains import BlockedChain


@job()
def extract(path: str) -> Record:
    return Record([path])


@job()
def load(n: int, rows: Annotated[list[str], From("extract")] = []) -> int:  # noqa: B006
    return len(rows) + n


class Report(Worker, chain=Chain("account", on_discard="hold")):
    async def process(self, job: Job) -> None:
        assert_type(await job.results(), dict[str, Any])


flow = Workflow("import", meta={"file": "a.csv"}, unique=True, schedule_in=timedelta(hours=1))
rows = assert_type(flow.add("extract", extract.new("a.csv")), Job)
assert_type(load.new(3), Job)
parts = [flow.add(f"load-{n}", load.new(n), deps=[rows], after=60) for n in range(3)]
flow.add("report", load.new(0), deps=parts, on_failure="run", ignore_cancelled=True)
flow.add("mixed", load.new(0), deps=["report", rows, flow])
flow.add("never", load.new(0), on_failure="explode")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
assert_type(flow.add_last("cleanup", load.new(0)), Job)
assert_type(flow.add_workflow("inner", Workflow(), deps=rows), Workflow)
assert_type(flow.steps, dict[str, Job])
assert_type(flow.jobs, list[Job])
assert_type(flow.progress, tuple[int, int])
assert_type(flow.state, str)
assert_type(rows.workflow, Any)
assert_type(select(Workflow).options(selectinload(Workflow.jobs)), Select[Workflow])
select(Job).options(selectinload(Job.workflow))
current_workflow().add("more", load.new(1))


async def enqueue(oban: Oban, session: AsyncSession) -> None:
    assert_type(await oban.enqueue(flow, conn=session), Workflow)
    assert_type(await oban.enqueue(Batch([load.new(1)], on_completed=load.new(2))), Workflow)
    assert_type(await oban.wait(flow, timeout=timedelta(minutes=1)), Workflow)
    assert_type(await oban.cancel(flow), int)
    assert_type(await oban.retry(flow.id, conn=session), int)
    assert_type(await oban.blocked_chains(), list[BlockedChain])
