"""The leader: who holds the lease, for how long, and what follows."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from oban_sqla import Oban
from oban_sqla.config import oban_settings
from oban_sqla.events import ElectStop
from oban_sqla.models import LeaderLease
from oban_sqla.runtime import leader as leader_module
from oban_sqla.runtime import service as service_module
from oban_sqla.runtime.database import Database
from oban_sqla.runtime.leader import JITTER, LONGEST_WAIT, Leader
from tests.conftest import StartOban, Tune
from tests.databases import async_engine
from tests.listening import hear
from tests.proxy import Proxy
from tests.runtime.conftest import Clock, until
from tests.runtime.workers import Held
from tests.services import services

Sessions = async_sessionmaker[AsyncSession]
Make = Callable[..., "Stood"]


class Stood(Leader):
    """A leader that records its events."""

    def __init__(self, database: Database, node: str, lease: float, instance: str) -> None:
        self.said: list[tuple[bool, bool]] = []
        self.changes: list[bool] = []
        super().__init__(
            database,
            self._note,
            instance=instance,
            node=node,
            lease=lease,
            on_change=lambda: self.changes.append(self.is_leader),
        )

    def _note(self, name: str, data: object) -> None:
        if isinstance(data, ElectStop):
            self.said.append((data.leader, data.changed))


@pytest.fixture
async def make(engine: AsyncEngine, prefix: str) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def make(
            node: str = "n1", lease: float = 20.0, instance: str = "Oban", engine: Any = engine
        ) -> Stood:
            leader = Stood(Database(engine, prefix), node, lease, instance)
            stack.push_async_callback(leader.stop)
            return leader

        yield make


@pytest.fixture
def short(tune: Tune) -> None:
    tune(oban_settings, SHORTEST_EXPIRY=0.0)


async def leases(sessions: Sessions) -> list[LeaderLease]:
    async with sessions() as session:
        return list(await session.scalars(select(LeaderLease)))


async def expire(sessions: Sessions, **values: Any) -> None:
    """Let the lease expire, as if its holder had died long ago."""
    async with sessions.begin() as session:
        now = func.timezone("UTC", func.statement_timestamp())
        await session.execute(update(LeaderLease).values({"expires_at": now, **values}))


class TestElection:
    async def test_one_of_two_leads(self, make: Make, sessions: Sessions) -> None:
        one, two = make("n1"), make("n2")
        assert 9.0 < await one.run_once() <= 10.0
        assert 19.0 < await two.run_once() <= 20.0 * (1 + JITTER)
        assert (one.is_leader, two.is_leader) == (True, False)
        assert (one.changes, two.changes) == ([True], [])
        assert (one.said, two.said) == ([(True, True)], [(False, False)])
        (lease,) = await leases(sessions)
        assert (lease.name, lease.node) == ("Oban", one._lessee["holder"])

    async def test_nodes_of_one_name_are_told_apart(self, make: Make) -> None:
        """Containers may share a host name, and processes their number."""
        one, two = make("same"), make("same")
        await one.run_once()
        await two.run_once()
        assert (one.is_leader, two.is_leader) == (True, False)
        assert one._lessee["holder"].startswith("same/")

    async def test_instances_have_leaders_of_their_own(self, make: Make) -> None:
        one, two = make(instance="one"), make(instance="two")
        await one.run_once()
        await two.run_once()
        assert one.is_leader
        assert two.is_leader

    async def test_a_renewal_changes_only_the_end(self, make: Make, sessions: Sessions) -> None:
        leader = make()
        await leader.run_once()
        (first,) = await leases(sessions)
        await leader.run_once()
        (second,) = await leases(sessions)
        assert second.expires_at > first.expires_at
        assert (second.node, second.elected_at) == (first.node, first.elected_at)
        assert leader.said == [(True, True), (True, False)]
        assert leader.changes == [True]

    async def test_an_expired_lease_is_taken_over(self, make: Make, sessions: Sessions) -> None:
        old, new = make("old"), make("new")
        await old.run_once()
        await expire(sessions)
        await new.run_once()
        assert new.is_leader
        await old.run_once()
        assert not old.is_leader
        assert old.changes == [True, False]

    async def test_two_nodes_never_lead_at_once(self, make: Make) -> None:
        """Each node considers its lease lost before the database does."""
        leaders = [make(f"n{number}", lease=0.05) for number in range(5)]
        seen = []

        async def run(leader: Stood) -> None:
            for _ in range(40):
                await leader.run_once()
                seen.append(sum(other.is_leader for other in leaders))
                # The waits are short enough for a renewal, or too long.
                await asyncio.sleep(0.01 * (len(seen) % 8))

        await asyncio.gather(*map(run, leaders))
        assert set(seen) <= {0, 1}
        assert len([leader for leader in leaders if leader.changes]) > 1

    async def test_a_node_does_not_wait_long_for_a_lease_without_end(
        self, make: Make, sessions: Sessions
    ) -> None:
        one, two = make("n1"), make("n2")
        await one.run_once()
        await expire(sessions, expires_at=datetime.now(UTC) + timedelta(days=1000))
        assert await two.run_once() <= LONGEST_WAIT + 20.0 * JITTER


class TestLosingTheLease:
    async def test_the_lease_counts_from_before_the_request(
        self,
        make: Make,
        clock_of: Callable[[ModuleType], Clock],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The server may have written the lease at once, and the answer may have come late."""
        clock = clock_of(leader_module)
        leader = make(lease=20.0)
        fetch = leader._database.fetch

        async def fetch_slowly(*args: Any) -> Any:
            rows = await fetch(*args)
            clock.now += 25.0
            return rows

        monkeypatch.setattr(leader._database, "fetch", fetch_slowly)
        assert await leader.run_once() == 0.0
        assert not leader.is_leader

    async def test_the_lease_expires_without_a_statement(self, make: Make) -> None:
        """This also holds for a node whose event loop is blocked."""
        leader = make(lease=1.0)
        await leader.run_once()
        assert leader.is_leader
        time.sleep(1.0)  # noqa: ASYNC251 - as bad user code does
        assert not leader.is_leader

    async def test_services_are_woken_when_a_lost_lease_is_held_again(self, make: Make) -> None:
        leader = make()
        await leader.run_once()
        leader._until = time.monotonic()
        await leader.run_once()
        assert leader.changes == [True, False, True]
        assert leader.said == [(True, True), (False, True), (True, True)]

    async def test_a_lease_that_can_not_be_renewed_is_lost(
        self,
        make: Make,
        proxy: Proxy,
        prefix: str,
        tune: Tune,
        expect_errors: None,
    ) -> None:
        tune(service_module, FIRST_RETRY=0.01)
        engine = async_engine(proxy.dsn, prefix)
        cut_off, other = make("n1", lease=0.5, engine=engine), make("n2", lease=0.5)
        await cut_off.start()
        await until(lambda: cut_off.is_leader)
        await other.start()
        await proxy.refuse()
        proxy.cut()
        await until(lambda: other.is_leader)
        assert not cut_off.is_leader
        await until(lambda: cut_off.changes[-1] is False)
        await proxy.allow()
        failures = len(cut_off.said)
        await until(lambda: len(cut_off.said) > failures)
        assert other.is_leader
        await cut_off.stop()
        await engine.dispose()

    async def test_a_silent_server_does_not_delay_the_loss(
        self,
        make: Make,
        proxy: Proxy,
        prefix: str,
        quick: None,
        tune: Tune,
        expect_errors: None,
    ) -> None:
        tune("oban_sqla.runtime.leader", SHORTEST_ANSWER=0.1)
        tune("oban_sqla.runtime.time_limits", CLOSING=0.1)
        engine = async_engine(proxy.dsn, prefix)
        leader = make(lease=0.4, engine=engine)
        await leader.start()
        await until(lambda: leader.is_leader)
        proxy.silent = True
        # On a busy machine, the lease may have been lost before.
        await until(lambda: not leader.changes[-1])
        proxy.silent = False
        await until(lambda: leader.is_leader)
        await leader.stop()
        await engine.dispose()


class TestResigning:
    async def test_a_stop_frees_the_lease(self, make: Make, sessions: Sessions) -> None:
        leader = make()
        await leader.start()
        await until(lambda: leader.is_leader)
        await leader.stop()
        assert not leader.is_leader
        assert leader.changes == [True, False]
        assert await leases(sessions) == []

    async def test_a_follower_frees_no_lease(self, make: Make, sessions: Sessions) -> None:
        one, two = make("n1"), make("n2")
        await one.run_once()
        await two.run_once()
        await two.stop()
        (lease,) = await leases(sessions)
        assert lease.node == one._lessee["holder"]

    async def test_a_node_that_never_asked_for_the_lease_sends_nothing(
        self, make: Make, engine: AsyncEngine
    ) -> None:
        sent: list[str] = []

        def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            sent.append(statement)

        event.listen(engine.sync_engine, "before_cursor_execute", note)
        await make().stop()
        assert sent == []
        event.remove(engine.sync_engine, "before_cursor_execute", note)

    async def test_another_node_leads_while_jobs_of_the_stopping_leader_run(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        options: dict[str, Any] = {"heartbeat_expiry": 3600.0}
        with hear(Oban, "elect_stop") as elections:
            first = await start(queues={"default": 1}, shutdown_grace_period=60, **options)
            await elections.until(lambda events: first.is_leader)
            async with sessions.begin() as session:
                session.add(Held.new())
            await Held.begun()
            second = await start(queues={"other": 1}, name=first.name, node="n2", **options)
            await until(lambda: services(second).notifier.listening)
            stop = asyncio.create_task(first.stop())
            await elections.until(lambda events: second.is_leader)
            assert not stop.done()
            Held.release()
            await stop

    async def test_a_follower_hears_of_the_resignation_and_leads(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        """The follower leads long before the lease would have expired."""
        options: dict[str, Any] = {"queues": {"default": 1}, "heartbeat_expiry": 3600.0}
        first = Oban(sessions, node="n1", **options)
        with hear(Oban, "elect_stop") as elections:
            async with first:
                await elections.until(lambda events: first.is_leader)
                second = await start(node="n2", **options)
                await elections.until(lambda events: not events[-1].leader)
                await until(lambda: services(second).notifier.listening)
            await elections.until(lambda events: second.is_leader)
        assert not first.is_leader

    async def test_a_resignation_of_another_instance_is_ignored(self, make: Make) -> None:
        leader = make()
        for news in ({}, {"name": "other"}, {"name": None}, {"name": ["Oban"]}):
            leader.hear(news)
            assert not leader._woken.is_set()
        leader.hear({"action": "resign", "node": "theirs", "name": "Oban"})
        assert leader._woken.is_set()


class TestInAnInstance:
    async def test_without_notifications_a_follower_leads_after_a_resignation(
        self, start: StartOban, sessions: Sessions, short: None
    ) -> None:
        options: dict[str, Any] = {
            "queues": {"default": 1},
            "heartbeat_expiry": 0.6,
            "notify": "poll",
        }
        async with Oban(sessions, node="n1", **options) as first:
            await until(lambda: first.is_leader)
            second = await start(node="n2", **options)
        await until(lambda: second.is_leader)

    async def test_a_node_without_leadership_never_leads(
        self, start: StartOban, sessions: Sessions
    ) -> None:
        oban = await start(queues={"default": 1}, leadership=False)
        assert not oban.is_leader
        await oban.stop()
        assert await leases(sessions) == []
