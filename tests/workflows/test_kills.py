"""Workflows under `kill -9`: no step is lost or early, and none with a session happens twice."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import selectinload

from oban_sqla import Batch, Job, JobState, Workflow
from tests.failures.conftest import (  # noqa: F401 - the fixtures
    Runs,
    Spawn,
    ended,
    proxy,
    runs,
    spawn,
)

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]

FLOWS, BATCHES, KILLS, ACCOUNTS = 200, 40, 40, 500
STEPS = FLOWS * 20 + BATCHES * 11


def transfer() -> Job:
    source, target = random.sample(range(1, ACCOUNTS + 1), 2)
    return Job("failures.transfer", {"transfer": [source, target, 1]}, max_attempts=50)


def note() -> Job:
    return Job("failures.note", max_attempts=50)


def flow_of_twenty() -> Workflow:
    """Two fans, half of whose steps take a session, and a step that cleans up."""
    flow = Workflow("torture")
    flow.add("first", transfer())
    parts = [flow.add(f"part-{n}", (note if n % 2 else transfer)(), deps="first") for n in range(8)]
    flow.add("middle", transfer(), deps=parts)
    more = [flow.add(f"more-{n}", (note if n % 2 else transfer)(), deps="middle") for n in range(8)]
    flow.add("end", transfer(), deps=more)
    flow.add_last("cleanup", transfer())
    return flow


def batch_of_eight() -> Batch:
    """With three callbacks, each of which moves money once."""
    return Batch(
        [transfer() for _ in range(8)],
        name="batch",
        on_completed=transfer(),
        on_exhausted=transfer(),
        on_attempted=transfer(),
    )


def deps_of(flow: Workflow, name: str) -> list[str]:
    """The steps that end before a step, or a callback, runs."""
    others = [one for one in flow.steps if one != name and not one.startswith("on_")]
    if name in ("cleanup", "on_completed", "on_exhausted"):
        return others
    deps: list[str] = flow.steps[name].meta["deps"]
    return deps


async def test_every_step_runs_when_its_deps_allow_while_processes_are_killed(
    runs: Runs,  # noqa: F811
    spawn: Spawn,  # noqa: F811
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    runs.open_accounts(ACCOUNTS, balance=1_000)
    async with sessions.begin() as session:
        session.add_all(flow_of_twenty() for _ in range(FLOWS))
        session.add_all(batch_of_eight() for _ in range(BATCHES))
    nodes = [await spawn(limit=10, heartbeat_expiry=1.0) for _ in range(3)]
    for goal in sorted(random.sample(range(20, STEPS - 200), KILLS)):
        await runs.until(lambda goal=goal: runs.completed() >= goal)
        victim = nodes.pop(0)
        victim.kill()
        await ended(victim)
        nodes.append(await spawn(limit=10, heartbeat_expiry=1.0))
    await runs.all_completed(STEPS)

    moves: Counter[int] = Counter()
    async with sessions() as session:
        query = select(Workflow).options(selectinload(Workflow.jobs))
        flows = (await session.scalars(query)).all()
    assert Counter(flow.name for flow in flows) == {"torture": FLOWS, "batch": BATCHES}
    for flow in flows:
        steps, count = flow.steps, 20 if flow.name == "torture" else 8
        assert (flow.state, flow.progress) == ("completed", (count, count))
        for name, job in steps.items():
            assert job.state is JobState.COMPLETED
            ends = [steps[dep].completed_at for dep in deps_of(flow, name)]
            assert all(job.attempted_at >= end for end in ends), (flow.id, name)
            moves.update(job.args.get("transfer", [])[:2])
    assert {id: count for id, (_, count) in runs.accounts().items() if count} == moves
    assert runs.rescued()


async def test_chains_run_in_order_while_processes_are_killed(
    runs: Runs,  # noqa: F811
    spawn: Spawn,  # noqa: F811
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    chains, length, kills = 40, 25, 10
    runs.open_accounts(ACCOUNTS, balance=1_000)
    async with sessions.begin() as session:
        for number in range(length):
            jobs = [(note if number % 2 else transfer)() for _ in range(chains)]
            for chain, job in enumerate(jobs):
                job.meta = {"chain_id": f"torture:[{chain}]", "chain": "go_on"}
            session.add_all(jobs)
            await session.flush()
    nodes = [await spawn(limit=10, heartbeat_expiry=1.0) for _ in range(3)]
    for goal in sorted(random.sample(range(20, chains * length - 100), kills)):
        await runs.until(lambda goal=goal: runs.completed() >= goal)
        victim = nodes.pop(0)
        victim.kill()
        await ended(victim)
        nodes.append(await spawn(limit=10, heartbeat_expiry=1.0))
    await runs.all_completed(chains * length)

    moves: Counter[int] = Counter()
    by_chain: dict[str, list[Job]] = {}
    async with sessions() as session:
        for job in await session.scalars(select(Job).order_by(Job.id)):
            by_chain.setdefault(job.meta["chain_id"], []).append(job)
            moves.update(job.args.get("transfer", [])[:2])
    assert [len(jobs) for jobs in by_chain.values()] == [length] * chains
    for jobs in by_chain.values():
        for job, following in pairwise(jobs):
            assert job.completed_at <= following.attempted_at, (job.id, following.id)
    assert {id: count for id, (_, count) in runs.accounts().items() if count} == moves
    assert runs.rescued()
