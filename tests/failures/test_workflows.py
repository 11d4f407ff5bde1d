"""Workflows, batches and chains while processes are killed, wires are cut and the server crashes.

The log shows the order of all attempts: no step and no job of a chain begins early, and the end of
each is logged once.
"""

import asyncio
import random
import tempfile
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import selectinload

from oban_sqla import Batch, Job, JobState, Workflow
from oban_sqla.embedded import embedded_postgres
from tests.databases import async_engine
from tests.failures.conftest import Runs, Spawn, ended
from tests.failures.steps import LOG, METADATA, InChain, Logged, LoggedPlainly
from tests.failures.test_server_crash import kill_postmaster, shut_down_immediately
from tests.failures.test_wires import installed
from tests.proxy import Proxy

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]

FLOWS, BATCHES, CHAINS, LENGTH = 20, 10, 10, 10
FAULTS = ["kill", "cut"] * 6
FINISHED = {"completed", "discarded", "cancelled"}
LAST = ("cleanup", "on_completed", "on_exhausted", "on_attempted", "on_discarded")


def step(number: int = 0, **args: object) -> Job:
    """The job of a step: each third one has no session, each fifth one fails once or snoozes."""
    if number % 3 == 2:
        return LoggedPlainly.new()
    if number % 5 == 3:
        return Logged.new({"fails": 1, "snoozes": number % 2 == 0})
    return Logged.new(args)


def flow_of_many() -> Workflow:
    """Two fans, a workflow within, a step that adds steps, and a step that fails for ever."""
    flow, part = Workflow("flow"), Workflow("part")
    flow.add("first", step())
    fan = [flow.add(f"fan-{n}", step(n), deps="first") for n in range(6)]
    flow.add("grow", step(grows=True), deps=fan)
    part.add("inner", step(3))
    part.add("inner-next", step(), deps="inner")
    flow.add_workflow("part", part, deps=fan[:2])
    flow.add("bad", Logged.new({"fails": 50}, max_attempts=2), deps=fan[2:])
    flow.add("doomed", step(), deps=["bad", "grow"])
    flow.add("nevertheless", step(), deps=["bad", "part"], on_failure="run")
    flow.add_last("cleanup", step())
    return flow


FLOW_OUTCOMES = Counter(completed=12, discarded=1, cancelled=1)
"""The outcomes of the steps of a flow, without those of the workflows within it."""


def batch_of_six(*, fails: bool) -> Batch:
    jobs = [step(n) for n in range(6)]
    if fails:
        jobs.append(Logged.new({"fails": 50}, max_attempts=2))
    return Batch(
        jobs,
        name="batch",
        on_completed=step(),
        on_exhausted=step(),
        on_attempted=step(),
        on_discarded=step(),
    )


def round_of_chains(number: int) -> list[Job]:
    """A job for each chain, in any order; some fail or snooze once."""
    how = {"fails": number % 4 == 1, "snoozes": number % 4 == 2}
    return [InChain.new({"chain": n, **how}) for n in random.sample(range(CHAINS), CHAINS)]


class Nodes:
    """Three nodes, whose wires lead through a proxy."""

    def __init__(self, spawn: Spawn, proxy: Proxy, runs: Runs) -> None:
        self._spawn, self._proxy, self._runs = spawn, proxy, runs
        self.processes: list[Process] = []

    async def start(self) -> None:
        runs = self._runs
        options = {"runs_dsn": runs.dsn, "schema": runs.prefix, "heartbeat_expiry": 3.0}
        self.processes.append(await self._spawn(self._proxy.dsn, limit=8, **options))

    async def disturb(self, fault: str) -> None:
        """Kill a node and replace it, or cut all wires."""
        if fault == "cut":
            self._proxy.cut()
            return
        victim = self.processes.pop(0)
        victim.kill()
        await ended(victim)
        await self.start()


async def test_workflows_batches_and_chains_survive_all_faults(spawn: Spawn) -> None:
    with tempfile.TemporaryDirectory(prefix="oban-") as directory:
        server = embedded_postgres(directory)
        async with server as dsn:
            runs = installed(dsn)
            engine = async_engine(dsn, runs.prefix)
            await enqueue_all(engine)
            await engine.dispose()
            total = sum(runs.states().values())
        async with Proxy(dsn) as proxy:
            nodes = Nodes(spawn, proxy, runs)
            goals = sorted(random.sample(range(total // 20, total * 9 // 10), len(FAULTS)))
            faults = iter(zip(goals, random.sample(FAULTS, len(FAULTS)), strict=True))
            for crash in (kill_postmaster, shut_down_immediately, None):
                async with server:
                    while len(nodes.processes) < 3:
                        await nodes.start()
                    for goal, fault in islice(faults, len(FAULTS) // 3):
                        await runs.until(lambda goal=goal: runs.completed() >= goal)
                        await nodes.disturb(fault)
                        await add_to_chains(proxy, runs)
                    if crash is not None:
                        await asyncio.to_thread(crash, dsn)
                        continue
                    await runs.until(lambda: set(runs.states()) <= FINISHED, "not all ended:")
                    await runs.until(lambda: runs.running_workflows() == 0, "workflows run:")
                    engine = async_engine(dsn, runs.prefix)
                    await check(engine)
                    await engine.dispose()
                    for node in nodes.processes:
                        node.terminate()
                        assert await ended(node) == 0


async def enqueue_all(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    async with async_sessionmaker(engine).begin() as session:
        session.add_all(flow_of_many() for _ in range(FLOWS))
        session.add_all(batch_of_six(fails=n % 2 == 0) for n in range(BATCHES))
        for number in range(LENGTH):
            session.add_all(round_of_chains(number))
            await session.flush()


async def add_to_chains(proxy: Proxy, runs: Runs) -> None:
    """Enqueue a job of each chain through wires that are cut at the same time."""
    engine = async_engine(proxy.dsn, runs.prefix)
    cut = asyncio.get_running_loop().call_later(random.uniform(0, 0.05), proxy.cut)
    try:
        async with async_sessionmaker(engine).begin() as session:
            session.add_all(round_of_chains(random.randrange(LENGTH)))
    except (DBAPIError, OSError):
        pass  # committed or not
    finally:
        cut.cancel()
        await engine.dispose()


async def check(engine: AsyncEngine) -> None:
    log = Log()
    async with async_sessionmaker(engine)() as session:
        for row in await session.execute(select(LOG)):
            log.add(row.job_id, row.ended, row.id)
        query = select(Workflow).options(selectinload(Workflow.jobs))
        flows = {flow.id: flow for flow in await session.scalars(query)}
        query = select(Job).where(Job.worker == "failures.in_chain").order_by(Job.id)
        in_chains = (await session.scalars(query)).all()
    names = Counter(flow.name for flow in flows.values())
    assert names == {"flow": FLOWS, "part": FLOWS, "within": FLOWS, "batch": BATCHES}
    for flow in flows.values():
        check_flow(flow, flows, log)
    check_chains(in_chains, log)
    jobs = [job for flow in flows.values() for job in flow.jobs] + [*in_chains]
    log.check_ends(jobs)
    # The faults, and the failures of the jobs themselves, have happened.
    assert any(job.meta.get("rescued") for job in jobs)
    assert any(job.meta.get("snoozed") for job in in_chains)


class Log:
    """The log of the workers."""

    def __init__(self) -> None:
        self.begins: dict[int, list[int]] = {}
        self.ends: dict[int, list[int]] = {}

    def add(self, job_id: int, has_ended: bool, id: int) -> None:
        (self.ends if has_ended else self.begins).setdefault(job_id, []).append(id)

    def check_order(self, job: Job, others: Iterable[Job]) -> None:
        """No attempt of a job began before the others had ended, or had begun to fail."""
        first = min(self.begins.get(job.id, ()), default=None)
        for other in others:
            is_completed = other.state is JobState.COMPLETED
            ids = self.ends[other.id] if is_completed else self.begins.get(other.id, [0])
            assert first is None or min(ids) < first, (job, other)

    def check_ends(self, jobs: Iterable[Job]) -> None:
        """A completed job has ended, once if it has a session. No other job has."""
        for job in jobs:
            count, is_completed = len(self.ends.get(job.id, ())), job.state is JobState.COMPLETED
            if job.worker == "failures.logged_plainly":
                assert (count > 0) == is_completed, job
            else:
                assert count == is_completed, job


def check_flow(flow: Workflow, flows: dict[str, Workflow], log: Log) -> None:
    steps = flow.steps
    done, total = flow.progress
    assert done == total, flow
    if flow.name == "batch":
        fails = len(steps) == 11
        called = {name for name in LAST[1:] if steps[name].state.value == "completed"}
        depending = "on_discarded" if fails else "on_completed"
        assert called == {"on_exhausted", "on_attempted", depending}, flow
    else:
        fails = flow.name == "flow"
        states = Counter(job.state.value for job in flow.jobs)
        assert states == (FLOW_OUTCOMES if fails else Counter(completed=len(steps))), flow
    assert flow.state == ("discarded" if fails else "completed")
    ordinary = [job for name, job in steps.items() if name not in LAST]
    for name, job in steps.items():
        log.check_order(job, deps_of(job, flow, flows))
        if name in ("cleanup", "on_completed", "on_exhausted"):
            log.check_order(job, ordinary)


def deps_of(job: Job, flow: Workflow, flows: dict[str, Workflow]) -> Iterator[Job]:
    for dep in job.meta.get("deps", ()):
        of, name = (flow.id, dep) if isinstance(dep, str) else dep
        yield flows[of].steps[name]


def check_chains(jobs: Iterable[Job], log: Log) -> None:
    """The jobs of a chain have the order of their ids, also those that failed or snoozed."""
    chains: dict[int, list[Job]] = {}
    for job in jobs:
        chains.setdefault(job.args["chain"], []).append(job)
    assert len(chains) == CHAINS
    for chain in chains.values():
        assert len(chain) >= LENGTH
        for job, following in pairwise(chain):
            log.check_order(following, [job])
