"""A trigger or constraint that refuses to move one job: the other jobs go on, and it is named."""

import asyncio

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Limit, Oban, job
from oban_sqla.config import Config
from oban_sqla.doctor.examination import examine
from oban_sqla.events import MoveRefused
from oban_sqla.migrations import LATEST
from oban_sqla.runtime import refused_jobs as refused_module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.lifeline import Lifeline
from oban_sqla.runtime.refused_jobs import RefusedJobs
from oban_sqla.statements.claim import claim
from oban_sqla.statements.move_apart import claim_move
from tests.blocking import pid_of, until_blocked
from tests.conftest import Add, StartOban, Tune
from tests.databases import async_engine
from tests.factories import JobFactory
from tests.listening import PATIENCE, hear
from tests.runtime.conftest import Refuse, Rows, of_rows
from tests.runtime.workers import Held, Quick
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

S = JobState
DONE = (S.COMPLETED, 1)
WAITS = (S.AVAILABLE, 0)
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


@job(name="refused_jobs.limited", limit=Limit(2, by="key"))
async def limited(key: int) -> None: ...


@pytest.fixture(autouse=True)
def soon(tune: Tune) -> None:
    tune(refused_module, FIRST_DELAY=0.01, LONGEST_DELAY=0.01)


def becomes(state: str, id: int) -> str:
    return of_rows(f"new.id = {id} AND new.state = '{state}' AND old.state <> '{state}'")


def deferred(when: str) -> str:
    after = when.replace("BEFORE", "AFTER").replace(
        "FOR EACH", "DEFERRABLE INITIALLY DEFERRED FOR EACH"
    )
    return f"CONSTRAINT {after}"


@pytest.mark.parametrize("made", [Quick.new, lambda: limited.new(1)], ids=["plain", "keyed"])
@pytest.mark.parametrize(
    "queue", [{"limit": 5}, {"limit": 5, "global_limit": 5}], ids=["queue", "limited queue"]
)
async def test_other_jobs_are_claimed(
    start: StartOban, add: Add, refuse: Refuse, rows: Rows, made, queue: dict[str, int]
) -> None:
    ids = await add(*(made() for _ in range(30)))
    await refuse(becomes("executing", ids[7]))
    with hear(Oban, "move_refused") as refusals, hear(Oban, "ack_stop") as acks:
        await start(queues={"default": queue}, **NEVER)
        await acks.counted(29)
    assert [(one.id, one.move) for one in refusals.events] == [(ids[7], "claim")]
    assert "not this one" in str(refusals.events[0].error)
    assert await rows() == [DONE] * 7 + [WAITS] + [DONE] * 22


async def test_other_jobs_are_claimed_with_a_pool_of_one_connection(
    start: StartOban, add: Add, refuse: Refuse, postgres_dsn: str, prefix: str
) -> None:
    """The transaction that hides the refused job does not wait for the statement's connection."""
    ids = await add(*(Quick.new() for _ in range(30)))
    await refuse(becomes("executing", ids[7]))
    engine = async_engine(
        postgres_dsn, prefix, pool_size=1, max_overflow=0, pool_timeout=2 * PATIENCE
    )
    with hear(Oban, "ack_stop") as acks:
        oban = await start(engine, queues={"default": 5}, leadership=False, **NEVER)
        await acks.counted(29)
    await oban.stop()
    await engine.dispose()


async def test_a_deferred_constraint_refuses_one_job(
    start: StartOban, add: Add, refuse: Refuse, engine: AsyncEngine, prefix: str, rows: Rows
) -> None:
    ids = await add(*(Quick.new() for _ in range(5)))
    trigger = becomes("executing", ids[0])
    async with engine.begin() as connection:
        await connection.execute(text(f'SET LOCAL search_path = "{prefix}", public'))
        await connection.execute(
            text(
                "CREATE FUNCTION refusal() RETURNS trigger LANGUAGE plpgsql"
                " AS 'BEGIN RAISE EXCEPTION ''not this one''; END'"
            )
        )
        await connection.execute(
            text(
                f"CREATE {deferred(trigger)} EXECUTE FUNCTION refusal()".replace(
                    "CONSTRAINT AFTER", "CONSTRAINT TRIGGER refusal AFTER"
                )
            )
        )
    with hear(Oban, "ack_stop") as acks:
        await start(queues={"default": 5}, **NEVER)
        await acks.counted(4)
    assert await rows() == [WAITS] + [DONE] * 4


async def test_a_refused_job_runs_as_soon_as_the_database_accepts_it(
    start: StartOban, add: Add, refuse: Refuse, engine: AsyncEngine, prefix: str, rows: Rows
) -> None:
    ids = await add(*(Quick.new() for _ in range(3)))
    await refuse(becomes("executing", ids[0]))
    with hear(Oban, "ack_stop") as acks:
        await start(queues={"default": 5}, poll_interval=0.05, fallback_interval=0.05)
        await acks.counted(2)
        async with engine.begin() as connection:
            await connection.execute(text(f'DROP TRIGGER refusal ON "{prefix}".oban_jobs'))
        await acks.counted(3)
    assert await rows() == [DONE] * 3


async def test_two_nodes_skip_the_same_refused_job(
    start: StartOban, add: Add, refuse: Refuse, rows: Rows
) -> None:
    ids = await add(*(Quick.new() for _ in range(200)))
    await refuse(becomes("executing", ids[0]))
    with hear(Oban, "ack_stop") as acks, hear(Oban, "service_failed") as failures:
        for number in range(2):
            name = {"name": f"node{number}", "node": f"node{number}"}
            await start(queues={"default": 5}, claim_ahead=0, **name, **NEVER)
        await acks.counted(199)
    assert failures.events == []
    assert await rows() == [WAITS] + [DONE] * 199


async def test_the_doctor_names_the_refused_job(
    start: StartOban, add: Add, refuse: Refuse, engine: AsyncEngine, prefix: str
) -> None:
    (id,) = await add(Quick.new())
    await refuse(becomes("executing", id))
    with hear(Oban, "move_refused") as refusals:
        oban = await start(queues={"default": 5}, **NEVER)
        await refusals.wait()
    await services(oban).queues.report()
    findings = examine(Database(engine, prefix), Config.check(), latest=LATEST)
    found = [finding async for finding in findings if finding.check == "outcomes"]
    assert [finding.level for finding in found] == ["problem"]
    assert f"can't claim job {id} of queue default" in found[0].text


async def test_other_jobs_are_staged(
    start: StartOban, sessions: Sessions, refuse: Refuse, rows: Rows
) -> None:
    async with sessions.begin() as session:
        jobs = [Quick.new(schedule_in=3600.0, queue=f"q{n % 2}") for n in range(20)]
        session.add_all(jobs)
    await refuse(becomes("available", jobs[5].id))
    with hear(Oban, "move_refused") as refusals, hear(Oban, "ack_stop") as acks:
        await start(queues={"q0": 5, "q1": 5}, poll_interval=0.05, fallback_interval=0.05)
        async with sessions.begin() as session:
            await session.execute(update(Job).values(scheduled_at=func.timezone("UTC", func.now())))
        await acks.counted(19)
    assert [(one.id, one.move) for one in refusals.events] == [(jobs[5].id, "stage")]
    assert await rows() == [DONE] * 5 + [(S.SCHEDULED, 0)] + [DONE] * 14


async def test_other_jobs_are_given_back(
    start: StartOban, add: Add, refuse: Refuse, rows: Rows
) -> None:
    ids = await add(*(Held.new() for _ in range(3)))
    with hear(Oban, "move_refused") as refusals, hear(Oban, "give_back_stop") as returns:
        oban = await start(queues={"default": 3}, shutdown_grace_period=0.01)
        for _ in range(3):
            await Held.begun()
        await refuse(becomes("available", ids[1]))
        await oban.stop()
    assert [(one.id, one.move) for one in refusals.events] == [(ids[1], "give back")]
    assert [stop.ids for stop in returns.events] == [(ids[0], ids[2])]
    assert await rows() == [WAITS, (S.EXECUTING, 1), WAITS]


async def test_other_orphans_are_rescued(
    sessions: Sessions, refuse: Refuse, rows: Rows, engine: AsyncEngine, prefix: str
) -> None:
    async with sessions.begin() as session:
        jobs = [
            JobFactory.build(
                state=S.EXECUTING, attempt=1, attempted_by=["gone", "gone", "oban_sqla"]
            )
            for _ in range(5)
        ]
        session.add_all(jobs)
    await refuse(becomes("available", jobs[2].id))
    refused: list[MoveRefused] = []

    def emit(name: str, data: object) -> None:
        if isinstance(data, MoveRefused):
            refused.append(data)

    lifeline = Lifeline(
        Database(engine, prefix),
        emit,
        is_leader=lambda: True,
        heartbeat_expiry=60.0,
        rescue_after=3600.0,
    )
    # A node that has been beating for long, so that rescues have begun.
    async with sessions.begin() as session:
        await session.execute(
            text(
                f'INSERT INTO "{prefix}".oban_producers'
                " (uuid, name, node, queue, meta, started_at, updated_at)"
                " VALUES (gen_random_uuid(), 'n', 'n', 'default', jsonb_build_object("
                " 'expiry', 60, 'unbroken_since', extract(epoch FROM now()) - 1000),"
                " timezone('UTC', now()), timezone('UTC', now()))"
            )
        )
    await lifeline.run_once()
    assert [(one.id, one.move) for one in refused] == [(jobs[2].id, "rescue")]
    rescued = (S.AVAILABLE, 1)
    assert await rows() == [rescued, rescued, (S.EXECUTING, 1), rescued, rescued]


async def test_a_change_of_the_table_does_not_wait(
    add: Add, refuse: Refuse, engine: AsyncEngine, prefix: str
) -> None:
    """The trigger, for example, is dropped while a refused job is hidden."""
    (id,) = await add(Quick.new())
    await refuse(becomes("executing", id))
    database = Database(engine, prefix)
    await database.verify()
    refused = RefusedJobs(database, lambda *event: None, claim_move)
    params = {"queue_name": "default", "node_name": "", "producer": "", "limit": 10}
    changes: list[asyncio.Task[None]] = []

    async def change(pid: asyncio.Future[int]) -> None:
        async with engine.begin() as connection:
            pid.set_result(await pid_of(connection))
            await connection.execute(text(f'LOCK TABLE "{prefix}".oban_jobs'))

    async def send() -> int | None:
        if not refused.ids:
            await database.fetch(claim(), params | {"ids": [id]})
        pid = asyncio.get_running_loop().create_future()
        changes.append(asyncio.create_task(change(pid)))
        await until_blocked(engine, await pid)
        async with engine.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(Job))

    assert await asyncio.wait_for(refused.passing(send, params), 20) == 1
    assert len(changes) == 1
    await changes[0]


async def test_an_error_of_every_row_sets_no_job_apart(
    add: Add, refuse: Refuse, engine: AsyncEngine, prefix: str
) -> None:
    """For example, a trigger uses a column that does not exist: the statement fails as before."""
    await add(Quick.new(), Quick.new())
    await refuse(of_rows("true"), "PERFORM gone FROM pg_class;")
    database = Database(engine, prefix)
    await database.verify()
    refused = RefusedJobs(database, lambda *event: None, claim_move)
    params = {"queue_name": "default", "node_name": "", "producer": "", "limit": 10}

    async def send() -> object:
        async with engine.begin() as connection:
            return await connection.execute(
                claim(), params | {"ids": list((await connection.scalars(select(Job.id))).all())}
            )

    with pytest.raises(Exception, match="gone"):
        await refused.passing(send, params)
    assert refused.ids == []
