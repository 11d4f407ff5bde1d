"""Run attempts of small workers through the executor alone, without a database."""

import asyncio
from collections.abc import Callable
from typing import Any

from oban_sqla import Job, Worker
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.executor import Executor
from oban_sqla.statements.acknowledge import Ack, outcomes
from tests.claimed import CLAIMED_AT, claimed

Emitted = list[tuple[str, Any]]
Behaviour = Callable[[Job], Any]

NOWHERE = Database("postgresql://nowhere", None)
"""The sessions of workers that take no session."""

behaviours: dict[str, Behaviour] = {}


class Async(Worker):
    """A worker that calls a function of the test on the event loop."""

    async def process(self, job: Job) -> Any:
        result = behaviours["process"](job)
        return await result if asyncio.iscoroutine(result) else result


class Sync(Worker):
    """A worker that calls a function of the test in a thread."""

    def process(self, job: Job) -> Any:
        return behaviours["process"](job)


class Stubborn(Worker):
    """A worker that fails, with a backoff that the test chooses."""

    async def process(self, job: Job) -> None:
        raise ValueError("boom")

    def backoff(self, job: Job) -> Any:
        return behaviours["backoff"](job)


async def perform(
    kind: type[Worker], process: Behaviour, emitted: Emitted | None = None, **columns: Any
) -> Ack:
    """Run one attempt of a worker with this `process`, and return its outcome."""
    behaviours["process"] = process
    ack = await execute(claimed(kind.new().worker, **columns), emitted)
    # Every outcome must be encodable for the database.
    assert outcomes([ack])
    return ack


async def execute(job: Job, emitted: Emitted | None = None) -> Ack:
    heard: Emitted = [] if emitted is None else emitted
    executor = Executor(NOWHERE, lambda *data: heard.append(data))
    # From here on, the worker may change the job.
    id, attempt = job.id, job.attempt
    ack = await executor.execute(job, lambda: False)
    assert isinstance(ack, Ack)
    assert (ack.id, ack.attempt, ack.attempted_at) == (id, attempt, CLAIMED_AT)
    return ack


def raising(error: BaseException) -> Behaviour:
    def process(job: Job) -> None:
        raise error

    return process


def backs_off(ack: Ack) -> bool:
    """Whether the delay is Oban's default after a first attempt."""
    return ack.delay is not None and 17.0 <= ack.delay <= 17.0 * 1.1
