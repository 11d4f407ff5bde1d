"""Say for which steps a suspended step waits, and for which job a job of a chain waits."""

from collections.abc import Sequence

from sqlalchemy import Executable, Text, cast, func, select, true
from sqlalchemy.orm import aliased

from ..models import Job, JobState
from ..runtime.following import Fetches
from .chains import blocks_chain, chain_of, in_chain
from .step import Step
from .workflow_queries import deps_of

MOST_NAMED = 10


async def step_reason(database: Fetches, id: int) -> str | None:
    """Why a step waits, in a sentence; `None` for a job that is not a step."""
    rows = await database.fetch(select(Step.kind).where(Step.job_id == id))
    if not rows:
        return None
    kind = rows[0].kind
    if kind == "last":
        return "it waits until all other steps of its workflow have ended"
    if kind != "step":
        return f"it waits for {kind} of its workflow"
    deps = await database.fetch(deps_of(Job.id == id))
    waits_for = [dep.name for dep in deps if dep.ended is None]
    if waits_for:
        return f"it waits for {_steps(waits_for)}"
    failed = [dep.name for dep in deps if dep.ended != "completed"]
    if failed:
        succeed = "succeeds" if len(failed) == 1 else "succeed"
        return f"it is held until {_steps(failed)} {succeed}: retry what failed"
    return "the steps that it waited for have ended: the leader makes it available"


async def chain_reason(database: Fetches, id: int) -> str | None:
    """Why a job of a chain waits, in a sentence; `None` for a job that is in no chain."""
    rows = await database.fetch(_before(id))
    if not rows:
        return None
    chain, first, state, suspended = rows[0]
    if first is None:
        return f"no job of its chain {chain} runs: the leader makes the next one available"
    remedy = ": retry it or delete it" if state == "discarded" else ""
    more = f"; {suspended} more job{'s are' if suspended > 1 else ' is'} before it"
    sentence = f"it waits for job {first} of its chain {chain}, which is {state}{remedy}"
    return sentence + more if suspended else sentence


def _before(id: int) -> Executable:
    """The chain of a job, the job that keeps the chain, and how many suspended jobs come before."""
    other, first = aliased(Job, name="other"), aliased(Job, name="first")
    keeping = (
        select(first.id, cast(first.state, Text).label("state"))
        .where(in_chain(first), chain_of(first) == chain_of(Job), blocks_chain(first))
        .order_by(first.id)
        .limit(1)
        .lateral("keeping")
    )
    suspended = (
        select(func.count())
        .where(in_chain(other), chain_of(other) == chain_of(Job), other.id < Job.id)
        .where(cast(other.state, Text) == JobState.SUSPENDED.value)
        .scalar_subquery()
    )
    return (
        select(chain_of(Job), keeping.c.id, keeping.c.state, suspended)
        .outerjoin_from(Job, keeping, onclause=true())
        .where(Job.id == id, in_chain(Job))
    )


def _steps(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    named = ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"step{'s' if len(names) > 1 else ''} {named}"
