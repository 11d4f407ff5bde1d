"""The producer: its claims, the jobs that it gives back, and lost connections."""

import asyncio
import logging
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import delete, event, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Job, JobState, Oban, job
from oban_sqla.events import GiveBackStop
from oban_sqla.runtime import lost_claims
from oban_sqla.runtime import outbox as outbox_module
from oban_sqla.runtime.producer import Producer
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.factories import JobFactory
from tests.listening import PATIENCE, hear
from tests.proxy import Proxy
from tests.runtime.conftest import NoteFetches, Rows, locked, until
from tests.runtime.workers import Blocking, Held, Quick, Unstorable
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]

S = JobState
PAUSED = {"default": {"limit": 5, "paused": True}}
# No test depends on a poll, unless it says so.
NEVER = {"poll_interval": 3600.0, "fallback_interval": 3600.0}


async def add(sessions: Sessions, *jobs: Job) -> list[int]:
    async with sessions.begin() as session:
        session.add_all(jobs)
    return [job.id for job in jobs]


def of(oban: Oban, queue: str = "default") -> Producer:
    return services(oban).producers[queue]


def resume(oban: Oban) -> None:
    """Resume a paused queue."""
    of(oban).paused = False
    of(oban).wake()


def claim_of(oban: Oban) -> bytes:
    """A text that only the first claim of a producer contains: its uuid as a parameter."""
    (uuid,) = (str(producer.uuid) for producer in services(oban).producers.values())
    return len(uuid).to_bytes(4) + uuid.encode()


async def test_a_job_begins_before_the_next_claim_is_made(
    start: StartOban, sessions: Sessions, note_fetches: NoteFetches
) -> None:
    """Also if the queue was woken in between, as by the notification of the job itself."""
    order = []
    await add(sessions, Quick.new())
    oban = await start(queues=PAUSED, **NEVER)
    note_fetches(lambda *_: order.append("claim"), of(oban).wake)
    with hear(oban, "job_start") as starts, hear(oban, "claim_stop") as claims:
        event.listen(oban, "job_start", lambda oban, start: order.append("job"))
        resume(oban)
        await starts.wait(1)
        await claims.wait(2)
    assert order[:3] == ["claim", "job", "claim"]


async def test_no_more_than_the_limit_run_at_once(
    start: StartOban, sessions: Sessions, rows: Rows
) -> None:
    ids = await add(sessions, *(Held.new() for _ in range(5)))
    oban = await start(queues={"default": 2}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        begun = [await Held.begun(), await Held.begun()]
        assert begun == ids[:2]
        assert of(oban).running == begun
        assert await rows() == [(S.EXECUTING, 1)] * 2 + [(S.AVAILABLE, 0)] * 3
        Held.release()
        await acks.counted(5)
    assert await rows() == [(S.COMPLETED, 1)] * 5


async def test_jobs_are_claimed_in_batches_until_none_is_left(
    start: StartOban, sessions: Sessions
) -> None:
    await add(sessions, *(Quick.new() for _ in range(30)))
    oban = Oban(sessions, queues={"default": 10}, claim_ahead=0, **NEVER)
    with hear(oban, "ack_stop") as acks, hear(oban, "claim_stop") as claims:
        async with oban:
            await acks.counted(30)
    counts = [claim.count for claim in claims.events]
    assert sum(counts) == 30
    assert counts[0] == 10
    # One claim behind the last job, and one from the front.
    assert counts.count(0) <= 2


async def test_a_paused_queue_claims_nothing(
    start: StartOban, sessions: Sessions, rows: Rows
) -> None:
    await add(sessions, Quick.new(), Quick.new(queue="other"))
    oban = Oban(sessions, queues={"default": {"limit": 5, "paused": True}, "other": 5})
    with hear(oban, "claim_stop") as claims, hear(oban, "ack_stop") as acks:
        async with oban:
            await acks.counted(1)
    assert {claim.queue for claim in claims.events} == {"other"}
    assert await rows() == [(S.AVAILABLE, 0), (S.COMPLETED, 1)]


async def test_jobs_with_no_attempt_left_do_not_delay_other_jobs(
    sessions: Sessions, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    spent = [JobFactory(attempt=20, queue="default") for _ in range(3)]
    await add(sessions, *spent, Quick.new())
    oban = Oban(sessions, queues={"default": 1}, **NEVER)
    with hear(oban, "ack_stop") as acks, caplog.at_level(logging.WARNING):
        async with oban:
            await acks.counted(1)
    assert await rows() == [(S.DISCARDED, 20)] * 3 + [(S.COMPLETED, 1)]
    assert "discarded jobs that were available but had no attempt left: 1" in caplog.text


async def test_many_outcomes_do_not_wait_for_a_poll(
    start: StartOban, sessions: Sessions, rows: Rows, tune: Tune
) -> None:
    tune(outbox_module, BATCH=2)
    await add(sessions, *(Held.new() for _ in range(7)))
    oban = await start(queues={"default": 7}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        for _ in range(7):
            await Held.begun()
        Held.release()
        await acks.counted(7)
    assert [ack.count for ack in acks.events] == [2, 2, 2, 1]


async def test_a_commit_between_a_claim_and_the_sleep_is_not_missed(
    start: StartOban, sessions: Sessions, engine: AsyncEngine
) -> None:
    """The claim has its snapshot and finds nothing. The wake-up comes before its end."""
    oban = await start(queues={"default": 1}, **NEVER)
    producer = of(oban)
    fetch = oban._database.fetch

    async def fetch_then_commit(*arguments: Any) -> Any:
        answer = await fetch(*arguments)
        oban._database.fetch = fetch  # type: ignore[method-assign]
        await add(sessions, Quick.new())
        return answer

    oban._database.fetch = fetch_then_commit  # type: ignore[method-assign]
    with hear(oban, "ack_stop") as acks:
        producer.wake()
        await acks.counted(1)


@pytest.fixture
def unescaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are sent as they are, so that the database refuses some of them."""
    monkeypatch.setattr("oban_sqla.runtime.outcome.storable", lambda text: text)


async def test_a_refused_outcome_delays_no_other(
    quick: None,
    start: StartOban,
    sessions: Sessions,
    rows: Rows,
    expect_errors: None,
    unescaped: None,
) -> None:
    oban = await start(queues={"default": 9}, **NEVER)
    with hear(oban, "ack_stop") as acks:
        await add(sessions, Held.new(), Held.new(), Unstorable.new(), Held.new())
        for _ in range(3):
            await Held.begun()
        Held.release()
        await acks.counted(4)
        await add(sessions, Quick.new())
        await acks.counted(5)
    done = (S.COMPLETED, 1)
    assert await rows() == [done, done, (S.RETRYABLE, 1), done, done]
    async with sessions() as session:
        (error,) = await session.scalar(select(Job.errors).where(Job.state == S.RETRYABLE))
    assert "the outcome could not be stored" in error["error"]


@pytest.mark.parametrize(
    "objection",
    [
        "ALTER TABLE oban_jobs ADD CHECK (state <> 'completed' OR NOT args ? 'odd')",
        """
        CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RAISE EXCEPTION ''not these''; END';
        CREATE TRIGGER object BEFORE UPDATE ON oban_jobs FOR EACH ROW
        WHEN (new.state = 'completed' AND new.args ? 'odd') EXECUTE FUNCTION object()
        """,
    ],
    ids=["constraint", "trigger"],
)
async def test_an_outcome_that_a_trigger_of_the_user_refuses_delays_no_other(
    quick: None,
    start: StartOban,
    sessions: Sessions,
    rows: Rows,
    prefix: str,
    expect_errors: None,
    objection: str,
) -> None:
    async with sessions.begin() as session:
        await session.execute(text(f'SET LOCAL search_path = "{prefix}", public'))
        for statement in objection.split(";\n"):
            await session.execute(text(statement))
    await add(sessions, Quick.new(), Quick.new({"odd": True}), Quick.new())
    with hear(Oban, "ack_stop") as acks:
        await start(queues={"default": 9}, **NEVER)
        await acks.counted(3)
    assert await rows() == [(S.COMPLETED, 1), (S.RETRYABLE, 1), (S.COMPLETED, 1)]


class TestStop:
    async def test_jobs_of_a_claim_during_a_stop_go_back(
        self, engine: AsyncEngine, prefix: str, sessions: Sessions, rows: Rows
    ) -> None:
        ids = await add(sessions, Quick.new(), Quick.new())
        oban = Oban(engine, queues={"default": 5}, leadership=False, **NEVER)
        with hear(oban, "give_back_stop") as returns:
            async with locked(engine, prefix, what="WITH claimed") as blocks:
                await oban.start()
                producer = of(oban)
                await blocks()
                stop = asyncio.create_task(oban.stop())
                await until(lambda: producer._draining)
            await stop
        assert returns.events == [GiveBackStop("default", tuple(ids), held=tuple(ids))]
        assert await rows() == [(S.AVAILABLE, 0)] * 2
        assert Quick.ran == []

    async def test_an_async_job_is_cancelled_after_the_grace_and_goes_back(
        self, sessions: Sessions, rows: Rows
    ) -> None:
        await add(sessions, Held.new())
        async with Oban(sessions, queues={"default": 5}, shutdown_grace_period=0.01):
            await Held.begun()
        assert await rows() == [(S.AVAILABLE, 0)]

    async def test_a_job_with_a_timeout_is_cancelled_after_the_grace_and_goes_back(
        self, sessions: Sessions, rows: Rows
    ) -> None:
        """Another task watches the timeout, and its cancellation must reach the worker."""
        begun, cancelled = asyncio.Event(), asyncio.Event()

        @job(name="producer.limited", timeout=3600)
        async def limited() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        await add(sessions, limited.new())
        async with Oban(sessions, queues={"default": 5}, shutdown_grace_period=0.01):
            await begun.wait()
        assert cancelled.is_set()
        assert await rows() == [(S.AVAILABLE, 0)]

    async def test_a_job_in_a_thread_goes_back(self, sessions: Sessions, rows: Rows) -> None:
        await add(sessions, Blocking.new())
        oban = Oban(sessions, queues={"default": 5}, shutdown_grace_period=0.01)
        with hear(oban, "job_start") as starts:
            async with oban:
                await starts.wait()
        assert await rows() == [(S.AVAILABLE, 0)]

    async def test_a_job_that_ignores_its_cancellation_goes_back(
        self, sessions: Sessions, rows: Rows, quick: None
    ) -> None:
        await add(sessions, Held.new({"stubborn": True}))
        async with Oban(sessions, queues={"default": 5}, shutdown_grace_period=0.01):
            await Held.begun()
        assert await rows() == [(S.AVAILABLE, 0)]
        Held.release()
        await asyncio.sleep(0)  # for its task to end

    @pytest.mark.skipif(sys.version_info >= (3, 12), reason="the first step runs at once")
    async def test_a_job_that_has_not_started_goes_back(
        self, sessions: Sessions, rows: Rows
    ) -> None:
        """Its task is cancelled before its first step, so none of its code runs."""
        await add(sessions, Quick.new())
        paused = {"default": {"limit": 5, "paused": True}}
        oban = Oban(sessions, queues=paused, **NEVER | {"notify": "poll", "poll_interval": 3600.0})
        await oban.start()
        producer = of(oban)
        # Its own pass claims nothing, and no other pass follows.
        for _ in range(3):
            await asyncio.sleep(0)
        producer.paused = False
        cancelled = []

        @event.listens_for(oban, "claim_stop")
        def cancel_soon(oban: Oban, stop: Any) -> None:
            # Before the steps of the tasks, which are created after this event.
            asyncio.get_running_loop().call_soon(
                lambda: cancelled.extend(task.cancel() for task in producer._running._tasks)
            )

        await producer.run_once()
        assert cancelled == [True]
        await oban.stop()
        assert producer.running == []
        assert await rows() == [(S.AVAILABLE, 0)]

    async def test_outcomes_are_written_during_the_grace(
        self, sessions: Sessions, rows: Rows
    ) -> None:
        await add(sessions, Held.new(), Blocking.new())
        oban = Oban(sessions, queues={"default": 5}, shutdown_grace_period=PATIENCE, **NEVER)
        with hear(oban, "ack_stop") as acks, hear(oban, "job_start") as starts:
            await oban.start()
            await starts.wait(2)
            stop = asyncio.create_task(oban.stop())
            Held.release()
            await acks.counted(1)
            assert await rows() == [(S.COMPLETED, 1), (S.EXECUTING, 1)]
            Blocking.released.set()
            await stop
        assert await rows() == [(S.COMPLETED, 1)] * 2

    async def test_a_refused_outcome_at_the_stop_loses_no_other(
        self,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
        unescaped: None,
    ) -> None:
        await add(sessions, Unstorable.new(), Held.new(), Held.new())
        oban = Oban(sessions, queues={"default": 9}, shutdown_grace_period=PATIENCE, **NEVER)
        with hear(oban, "job_start") as starts:
            await oban.start()
            await starts.wait(3)
            stop = asyncio.create_task(oban.stop())
            await until(lambda: of(oban)._draining)
            Held.release()
            await stop
        assert await rows() == [(S.RETRYABLE, 1), (S.COMPLETED, 1), (S.COMPLETED, 1)]

    async def test_outcomes_are_written_although_idle_connections_were_cut(
        self,
        proxy: Proxy,
        prefix: str,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
    ) -> None:
        await add(sessions, Held.new())
        engine = async_engine(proxy.dsn, prefix)
        # No other process finds it out.
        alone: dict[str, Any] = {"leadership": False, "notify": "poll", **NEVER}
        oban = Oban(engine, queues={"default": 9}, shutdown_grace_period=PATIENCE, **alone)
        await oban.start()
        await Held.begun()
        async with AsyncExitStack() as idle:
            for _ in range(5):
                await idle.enter_async_context(engine.connect())
        proxy.cut()
        stop = asyncio.create_task(oban.stop())
        await until(lambda: of(oban)._draining)
        Held.release()
        await stop
        await engine.dispose()
        assert await rows() == [(S.COMPLETED, 1)]

    async def test_a_stop_without_a_database_ends(
        self,
        proxy: Proxy,
        prefix: str,
        sessions: Sessions,
        rows: Rows,
        quick: None,
        expect_errors: None,
    ) -> None:
        await add(sessions, Held.new())
        async with Oban(
            proxy.dsn, prefix=prefix, queues={"default": 5}, shutdown_grace_period=0.01
        ):
            await Held.begun()
            await proxy.refuse()
            proxy.cut()
        assert await rows() == [(S.EXECUTING, 1)]  # for the rescue

    async def test_a_stop_with_a_silent_database_ends(
        self,
        proxy: Proxy,
        prefix: str,
        sessions: Sessions,
        rows: Rows,
        quick: None,
        expect_errors: None,
        tune: Tune,
    ) -> None:
        for module in ("producer", "leader", "heartbeat"):
            tune(f"oban_sqla.runtime.{module}", STOP_TIMEOUT=0.1)
        tune("oban_sqla.runtime.time_limits", CLOSING=0.1)
        await add(sessions, Held.new())
        async with Oban(
            proxy.dsn, prefix=prefix, queues={"default": 5}, shutdown_grace_period=0.01
        ):
            await Held.begun()
            proxy.silent = True
        assert (await rows())[0] in [
            (S.AVAILABLE, 0),
            (S.EXECUTING, 1),
        ]  # as far as the server has heard


class TestLostAnswers:
    async def test_each_claimed_job_runs_once(
        self,
        quick: None,
        proxy: Proxy,
        prefix: str,
        start: StartOban,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
    ) -> None:
        oban = await start(proxy.dsn, prefix=prefix, queues=PAUSED, **NEVER)
        lost = proxy.lose_answer(claim_of(oban))
        with hear(oban, "ack_stop") as acks, hear(oban, "give_back_stop") as returns:
            ids = await add(sessions, *(Quick.new() for _ in range(3)))
            resume(oban)
            await until(lost.is_set)
            await acks.counted(3)
        assert [event.ids for event in returns.events] == [tuple(ids)]
        assert sorted(Quick.ran) == ids
        assert await rows() == [(S.COMPLETED, 1)] * 3

    async def test_jobs_of_a_lost_claim_run_after_a_long_outage(
        self,
        quick: None,
        proxy: Proxy,
        prefix: str,
        start: StartOban,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
        tune: Tune,
    ) -> None:
        """The length of the outage says nothing about claims that the server made before it."""
        tune(lost_claims, DOUBT=0.0)
        await add(sessions, Quick.new())
        oban = await start(proxy.dsn, prefix=prefix, queues=PAUSED, **NEVER)
        lost = proxy.lose_answer(claim_of(oban))
        with hear(oban, "ack_stop") as acks:
            await proxy.refuse()
            resume(oban)
            await until(lost.is_set)
            proxy.cut()
            await until(lambda: of(oban)._failures >= 3)
            await proxy.allow()
            await acks.counted(1)
        assert await rows() == [(S.COMPLETED, 1)]

    async def test_a_lost_claim_that_is_found_late_runs(
        self,
        start: StartOban,
        sessions: Sessions,
        rows: Rows,
        tune: Tune,
    ) -> None:
        """Its producer is alive, so no rescue finds jobs that the producer does not know."""
        oban = await start(queues={"default": 5}, poll_interval=0.02, notify="poll")
        with hear(oban, "ack_stop") as acks, hear(oban, "give_back_stop") as returns:
            await add(sessions, Held.new())
            held = await Held.begun()
            uuid = str(of(oban).uuid)
            quick = Quick.new()
            quick.state, quick.attempt, quick.attempted_by = S.EXECUTING, 1, ["n", uuid]
            (lost,) = await add(sessions, quick)
            tune(lost_claims, SEARCH_INTERVAL=0.0)
            await acks.counted(1)
        assert [event.ids for event in returns.events] == [(lost,)]
        assert held != lost
        assert await rows() == [(S.EXECUTING, 1), (S.COMPLETED, 1)]

    async def test_a_claim_that_the_server_executes_late_runs(
        self,
        quick: None,
        proxy: Proxy,
        prefix: str,
        start: StartOban,
        engine: AsyncEngine,
        rows: Rows,
        sessions: Sessions,
        expect_errors: None,
    ) -> None:
        """The connection is lost while the claim waits for a lock. The server carries it out
        nevertheless.
        """
        oban = await start(
            proxy.dsn, prefix=prefix, queues={"default": 5}, poll_interval=0.05, notify="poll"
        )
        with hear(oban, "ack_stop") as acks:
            await add(sessions, *(Held.new() for _ in range(3)))
            for _ in range(3):
                await Held.begun()
            async with locked(engine, prefix, what="WITH claimed") as blocks:
                of(oban).wake()
                await blocks()
                proxy.cut()
                await until(lambda: of(oban).failing)
            await until(lambda: not of(oban).failing)
            assert await rows() == [(S.EXECUTING, 1)] * 3  # running jobs are not given back
            Held.release()
            await add(sessions, Quick.new())
            await acks.counted(4)
        assert await rows() == [(S.COMPLETED, 1)] * 4

    async def test_a_written_outcome_whose_answer_is_lost_is_not_reported_as_dropped(
        self,
        quick: None,
        proxy: Proxy,
        prefix: str,
        start: StartOban,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
    ) -> None:
        oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **NEVER)
        lost = proxy.lose_answer(b'"state": "completed"')
        with hear(oban, "ack_stop") as acks:
            ids = await add(sessions, Quick.new(), Quick.new())
            await until(lost.is_set)
            await acks.wait(1)
            assert await rows() == [(S.COMPLETED, 1)] * 2
        assert [ack.dropped for ack in acks.events] == [()] * len(acks.events)
        assert sorted(Quick.ran) == ids

    async def test_running_jobs_are_not_given_back(
        self,
        quick: None,
        proxy: Proxy,
        prefix: str,
        start: StartOban,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
    ) -> None:
        oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **NEVER)
        with hear(oban, "ack_stop") as acks:
            await add(sessions, Held.new())
            await Held.begun()
            lost = proxy.lose_answer(claim_of(oban))
            await add(sessions, Quick.new())
            of(oban).wake()
            await until(lost.is_set)
            await acks.counted(1)
            assert await rows() == [(S.EXECUTING, 1), (S.COMPLETED, 1)]
            Held.release()
            await acks.counted(2)
        assert await rows() == [(S.COMPLETED, 1)] * 2

    async def test_a_stop_looks_for_lost_jobs_only_if_one_has_no_outcome(
        self, start: StartOban, engine: AsyncEngine, sessions: Sessions
    ) -> None:
        looks: list[str] = []

        def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if "WITH returned AS" in statement:
                looks.append(statement)

        event.listen(engine.sync_engine, "before_cursor_execute", note)
        for name, worker in (("quick", Quick), ("held", Held)):
            oban = await start(name=name, queues={"default": 5}, shutdown_grace_period=0.0, **NEVER)
            with hear(oban, "claim_stop") as claims, hear(oban, "ack_stop") as acks:
                await add(sessions, worker.new())
                of(oban).wake()
                await claims.until(lambda events: sum(stop.count for stop in events) == 1)
                if worker is Quick:
                    await acks.counted(1)
            await oban.stop()
            assert bool(looks) is (worker is Held)
        event.remove(engine.sync_engine, "before_cursor_execute", note)

    async def test_a_stop_gives_up_a_server_that_does_not_answer(
        self,
        quick: None,
        proxy: Proxy,
        prefix: str,
        start: StartOban,
        sessions: Sessions,
        rows: Rows,
        expect_errors: None,
        tune: Tune,
    ) -> None:
        oban = await start(proxy.dsn, prefix=prefix, queues={"default": 5}, **NEVER)
        tune("oban_sqla.runtime.database", ANSWER_TIMEOUT=0.1)
        tune("oban_sqla.runtime.time_limits", CLOSING=0.1)
        with hear(oban, "ack_stop") as acks, hear(oban, "service_failed") as failures:
            proxy.silent = True
            of(oban).wake()
            await add(sessions, Quick.new())
            await failures.until(lambda events: any("producer" in e.service for e in events))
            # A busy machine may take longer to reconnect.
            tune("oban_sqla.runtime.database", ANSWER_TIMEOUT=PATIENCE)
            proxy.silent = False
            await acks.counted(1)
        assert await rows() == [(S.COMPLETED, 1)]


class TestFence:
    async def test_the_outcome_of_a_job_that_was_deleted_is_dropped_and_logged(
        self, start: StartOban, sessions: Sessions, caplog: pytest.LogCaptureFixture
    ) -> None:
        oban = await start(queues={"default": 5}, **NEVER)
        with hear(oban, "ack_stop") as acks, caplog.at_level(logging.WARNING):
            (id,) = await add(sessions, Held.new())
            await Held.begun()
            async with sessions.begin() as session:
                await session.execute(delete(Job))
            Held.release()
            await acks.wait()
        assert [(ack.count, ack.dropped) for ack in acks.events] == [(0, (id,))]
        assert "dropped the outcomes of jobs that were deleted, or claimed again" in caplog.text

    async def test_a_job_that_another_program_gave_back_runs_here_a_second_time_at_once(
        self, start: StartOban, sessions: Sessions, rows: Rows
    ) -> None:
        oban = await start(queues={"default": 5}, **NEVER)
        with hear(oban, "ack_stop") as acks:
            (id,) = await add(sessions, Held.new())
            await Held.begun()
            async with sessions.begin() as session:
                await session.execute(update(Job).values(state=S.AVAILABLE))
            await Held.begun()
            assert of(oban).running == [id, id]
            Held.release()
            await acks.counted(1)
        assert of(oban).running == []
        assert await rows() == [(S.COMPLETED, 2)]

    async def test_nodes_of_one_name_keep_their_jobs_apart(
        self, engine: AsyncEngine, sessions: Sessions, rows: Rows
    ) -> None:
        await add(sessions, Held.new())
        options = {"node": "same", "shutdown_grace_period": 0.01, **NEVER}
        staying = Oban(engine, queues={"default": 1}, **options)
        async with staying:
            await Held.begun()
            async with Oban(engine, queues={"default": 1}, **options) as leaving:
                (id,) = await add(sessions, Held.new())
                assert await Held.begun() == id
                assert of(leaving).running == [id]
            assert await rows() == [(S.EXECUTING, 1), (S.AVAILABLE, 0)]


async def test_a_listener_that_raises_disturbs_nothing(
    start: StartOban, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(oban: Oban, data: object) -> None:
        raise RuntimeError("a bad listener")

    oban = await start(queues={"default": 5}, **NEVER)
    for name in ("job_start", "job_stop", "claim_stop", "ack_stop", "stage_stop"):
        event.listen(oban, name, fail)
    with hear(oban, "ack_stop") as acks:
        await add(sessions, Quick.new())
        await acks.counted(1)
    assert "a listener of 'job_start' raised" in caplog.text
    caplog.clear()


async def test_a_worker_that_blocks_the_event_loop_delays_and_breaks_nothing(
    start: StartOban, sessions: Sessions, rows: Rows
) -> None:
    @job(name="blocks_the_loop")
    async def block() -> None:
        time.sleep(0.2)  # noqa: ASYNC251 - that is the point

    oban = await start(queues={"default": 5})
    with hear(oban, "ack_stop") as acks:
        await add(sessions, block.new(), Quick.new())
        await acks.counted(2)
    assert await rows() == [(S.COMPLETED, 1)] * 2
