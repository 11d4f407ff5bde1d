"""Leader, living nodes and orphans on one table, by the rules of both libraries."""

import oban as oban_py
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from oban_sqla import Oban
from oban_sqla.config import oban_settings
from tests.beside_oban.conftest import StartTheirs, Table
from tests.beside_oban.workers import OURS, THEIRS, Ours, Script, Theirs
from tests.conftest import StartOban, Tune
from tests.listening import hear
from tests.runtime.conftest import until
from tests.services import services

pytestmark = pytest.mark.oban

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
def brisk(tune: Tune) -> dict[str, float]:
    """Settings that shorten a minute to less than a second."""
    tune(oban_settings, SHORTEST_EXPIRY=0.1)
    return {"heartbeat_expiry": 0.6}


class TestOneLease:
    async def test_we_lead_when_oban_py_resigns(
        self, start_theirs: StartTheirs, start: StartOban, table: Table
    ) -> None:
        theirs = await start_theirs(node=THEIRS)
        assert theirs.is_leader
        with hear(Oban, "elect_stop") as elections:
            ours = await start(queues={"shared": 1})
            await elections.wait()
            assert not ours.is_leader
            assert await table.leader() == THEIRS
            await theirs.stop()
            # At once: no lease has expired yet.
            await elections.until(lambda events: events[-1].leader)
        assert ours.is_leader

    async def test_oban_py_leads_when_we_resign(
        self, start_theirs: StartTheirs, start: StartOban, table: Table
    ) -> None:
        ours = await start(queues={"shared": 1})
        await until(lambda: ours.is_leader)
        theirs = await start_theirs(node=THEIRS)
        assert not theirs.is_leader
        await ours.stop()
        await until(lambda: theirs.is_leader)
        assert await table.leader() == THEIRS

    async def test_either_side_takes_over_an_expired_lease(
        self,
        start_theirs: StartTheirs,
        start: StartOban,
        table: Table,
        brisk: dict[str, float],
    ) -> None:
        await table.query(
            "INSERT INTO {oban_leaders} VALUES"
            " ('Oban', 'dead', now(), timezone('UTC', now() - interval '30 seconds'))"
        )
        ours = await start(queues={"shared": 1}, **brisk)
        await until(lambda: ours.is_leader)
        await ours.stop()
        await table.query(
            "INSERT INTO {oban_leaders} VALUES"
            " ('Oban', 'dead', now(), timezone('UTC', now() - interval '1 second'))"
        )
        theirs = await start_theirs()
        assert theirs.is_leader

    async def test_oban_py_leads_on_although_its_lease_expires_between_renewals(
        self, start_theirs: StartTheirs, start: StartOban, table: Table, brisk: dict[str, float]
    ) -> None:
        """oban-py takes its lease for three seconds, and renews it every fifteen."""
        theirs = await start_theirs(node=THEIRS)
        (lease,) = await table.query("SELECT expires_at - elected_at AS kept FROM {oban_leaders}")
        assert lease["kept"].total_seconds() == 3
        await table.query(
            "UPDATE {oban_leaders} SET expires_at = timezone('UTC', now() - interval '20 seconds')"
        )
        ours = await start(queues={"shared": 1}, **brisk)
        with hear(ours, "elect_stop") as elections:
            services(ours).leader.wake()
            await elections.wait()
        assert not ours.is_leader
        assert await table.leader() == THEIRS
        assert theirs.is_leader


class TestObanPyLeads:
    async def test_rows_of_our_producers_that_oban_py_deletes_come_back(
        self, start_theirs: StartTheirs, start: StartOban, table: Table
    ) -> None:
        """oban-py deletes producers that were silent for a minute. Running jobs go on."""
        theirs = await start_theirs(queues={"other": 1}, refresher={"interval": 0.05})
        assert theirs.is_leader
        ours = await start(queues={"shared": 1}, node=OURS, heartbeat_expiry=8.0)
        job = await ours.enqueue(Ours.new({"do": "wait"}))
        assert await Script.next_begun() == (OURS, job.id)
        (before,) = await table.producers(OURS)
        await table.query(
            "UPDATE {oban_producers} SET updated_at = updated_at - interval '2 minutes'"
            " WHERE node = %s",
            OURS,
        )
        await until(lambda: table.has_producers(OURS, False))
        await until(lambda: table.has_producers(OURS, True))
        (after,) = await table.producers(OURS)
        assert after["uuid"] == before["uuid"]
        assert after["started_at"] == before["started_at"]
        Script.gate.set()
        await table.until({"completed": 1})
        assert Script.ran == [(OURS, job.id)]

    async def test_our_late_outcome_is_dropped_after_oban_py_rescued_the_job(
        self, start_theirs: StartTheirs, start: StartOban, sessions: Sessions, table: Table
    ) -> None:
        """oban-py rescues by age: a job that runs longer than `rescue_after` runs again, alive or
        not.
        """
        ours = await start(queues={"shared": 1}, node=OURS, leadership=False)
        async with sessions.begin() as session:
            session.add(job := Ours.new({"do": "wait"}))
        assert await Script.next_begun() == (OURS, job.id)
        await start_theirs(node=THEIRS, lifeline={"interval": 0.05, "rescue_after": 1.0})
        assert await Script.next_begun() == (THEIRS, job.id)
        with hear(ours, "ack_stop") as acks:
            Script.gate.set()
            await acks.until(lambda events: any(event.dropped == (job.id,) for event in events))
        await table.until({"completed": 1})
        row = await table.job(job.id)
        assert row["attempted_by"][0] == THEIRS
        assert row["attempt"] == 2
        assert row["meta"] == {"rescued": 1}


class TestWeLead:
    async def test_running_jobs_of_oban_py_are_no_orphans_whatever_our_expiry(
        self,
        start_theirs: StartTheirs,
        start: StartOban,
        client: oban_py.Oban,
        table: Table,
        brisk: dict[str, float],
    ) -> None:
        """Producers of oban-py beat every 15 seconds, so their rows expire after a minute. Without
        a row, the age decides.
        """
        ours = await start(queues={"other": 1}, **brisk)
        await until(lambda: ours.is_leader)
        await start_theirs(node=THEIRS)
        job = await client.enqueue(Theirs.new({"do": "wait"}))
        await Script.next_begun()
        await table.query(
            "UPDATE {oban_producers} SET updated_at = updated_at - interval '50 seconds'"
            " WHERE node = %s",
            THEIRS,
        )
        with hear(ours, "rescue_stop") as passes:
            await passes.wait(2)
            await table.query("DELETE FROM {oban_producers} WHERE node = %s", THEIRS)
            await passes.wait(4)
        assert all(event.rescued == () for event in passes.events)
        Script.gate.set()
        await table.until({"completed": 1})
        assert Script.ran == [(THEIRS, job.id)]

    async def test_a_late_outcome_of_oban_py_is_dropped_after_we_rescued_the_job(
        self,
        start_theirs: StartTheirs,
        start: StartOban,
        client: oban_py.Oban,
        table: Table,
        brisk: dict[str, float],
    ) -> None:
        theirs = await start_theirs(node=THEIRS, queues={"shared": 1}, leadership=False)
        job = await client.enqueue(Theirs.new({"do": "wait"}))
        assert await Script.next_begun() == (THEIRS, job.id)
        await table.query("DELETE FROM {oban_producers} WHERE node = %s", THEIRS)
        # The node lives, but no heartbeat shows it, so the age of the job decides.
        await start(queues={"shared": 1}, node=OURS, rescue_after=0.2, **brisk)
        assert await Script.next_begun() == (OURS, job.id)
        Script.gate.set()
        await table.until({"completed": 1})
        await theirs.stop()
        row = await table.job(job.id)
        assert row["attempted_by"][0] == OURS
        assert row["attempt"] == 2
        assert row["meta"] == {"rescued": 1}

    async def test_a_job_of_a_silent_oban_py_node_is_rescued_by_its_age(
        self, start: StartOban, client: oban_py.Oban, table: Table, brisk: dict[str, float]
    ) -> None:
        uuid = "0b3c5d8e-0000-4000-8000-000000000000"
        job = await client.enqueue(Theirs.new())
        await table.query(
            "UPDATE {oban_jobs} SET state = 'executing', attempt = 1, attempted_by = %s,"
            " attempted_at = timezone('UTC', now() - interval '1 hour')",
            [THEIRS, uuid],
        )
        await table.query(
            "INSERT INTO {oban_producers} (uuid, name, node, queue, updated_at) VALUES"
            " (%s, 'Oban', %s, 'shared', timezone('UTC', now() - interval '61 seconds'))",
            uuid,
            THEIRS,
        )
        await start(queues={"shared": 1}, **brisk)
        await table.until({"completed": 1})
        assert Script.ran == [(OURS, job.id)]
