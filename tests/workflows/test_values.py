"""Typed values flow from step to step."""

import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import From, Job, Oban, ObanError, Record, Worker, Workflow, job
from tests.workflows.conftest import Run


@dataclass
class Extract:
    day: date
    rows: list[int]


@pytest.fixture
def seen() -> list[object]:
    return []


async def test_a_parameter_takes_the_value_of_a_step(run: Run, seen: list[object]) -> None:
    @job(name="values.extract")
    def extract() -> Record:
        return Record({"day": "2026-11-30", "rows": [1, 2, 3]})

    @job(name="values.load")
    def load(factor: int, found: Annotated[Extract, From("extract")]) -> Record:
        seen.append(found)
        return Record(factor * sum(found.rows))

    @job(name="values.total")
    async def total(
        one: Annotated[int, From("load-1")], two: Annotated[int, From("load-2")]
    ) -> None:
        seen.append(one + two)

    flow = Workflow()
    flow.add("extract", extract.new())
    flow.add("load-1", load.new(1, queue="default"), deps="extract")
    flow.add("load-2", load.new(2, queue="default"), deps="extract")
    flow.add("total", total.new(queue="default"), deps=["load-1", "load-2"])
    done = await run(flow)
    assert done.state == "completed"
    assert seen == [Extract(date(2026, 11, 30), [1, 2, 3])] * 2 + [18]


async def test_a_class_reads_the_results(run: Run, seen: list[object]) -> None:
    class Number(Worker, name="values.number"):
        async def process(self, job: Job) -> object:
            return Record(job.args["n"]) if job.args["n"] else None

    class Sum(Worker, name="values.sum"):
        async def process(self, job: Job) -> None:
            seen.append(await job.results())

    flow = Workflow()
    numbers = [flow.add(f"n-{n}", Number.new({"n": n})) for n in range(3)]
    flow.add("sum", Sum.new(), deps=numbers)
    await run(flow)
    assert seen == [{"n-1": 1, "n-2": 2}]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_the_job_of_a_step_is_freed_without_the_garbage_collector(run: Run) -> None:
    jobs: list[weakref.ref[Job]] = []

    class Ask(Worker, name="values.ask"):
        async def process(self, job: Job) -> None:
            jobs.append(weakref.ref(job))

    flow = Workflow()
    for name in ("one", "two", "three"):
        flow.add(name, Ask.new())
    await run(flow)
    assert [found() for found in jobs] == [None] * 3


async def test_a_job_that_is_no_step_has_no_results() -> None:
    with pytest.raises(ObanError, match="has no results"):
        await Job("w").results()


async def test_a_value_of_a_step_that_is_no_dep_is_refused(engine: AsyncEngine) -> None:
    @job(name="values.taker")
    def taker(found: Annotated[int, From("other")]) -> None: ...

    flow = Workflow("import")
    flow.add("other", taker.new(queue="default"))
    flow.graph.drafts["other"].job.worker = "values.unknown"
    flow.add("taker", taker.new(queue="default"))
    refused = "step 'taker' takes 'found' from step 'other', for which it does not wait"
    with pytest.raises(ValueError, match=refused):
        await Oban(engine).enqueue(flow)
    with pytest.raises(TypeError, match="found"):
        taker.new(found=3)  # type: ignore[call-overload]


async def test_values_are_passed_between_workflows(run: Run, seen: list[object]) -> None:
    @job(name="values.number", queue="default")
    def number(n: int) -> Record:
        return Record(n)

    @job(name="values.both", queue="default")
    def both(one: Annotated[int, From("one")], two: Annotated[int, From("two")]) -> Record:
        seen.append((one, two))
        return Record(one + two)

    class Sum(Worker, name="values.sum"):
        async def process(self, job: Job) -> None:
            seen.append(await job.results())

    inner, flow = Workflow(), Workflow()
    inner.add("two", number.new(2))
    flow.add("one", number.new(1))
    flow.add_workflow("inner", inner, deps="one")
    flow.add("both", both.new(), deps=["one", "inner"])
    flow.add("sum", Sum.new(), deps=["both", "inner"])
    await run(flow)
    assert seen == [(1, 2), {"both": 3, "two": 2}]
