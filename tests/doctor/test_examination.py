"""The doctor: each check finds its problem, and names a remedy."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Table, insert, make_url, text, update
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from oban_sqla import Job, Rate
from oban_sqla.config import Config
from oban_sqla.doctor import server_checks
from oban_sqla.doctor.examination import examine
from oban_sqla.doctor.finding import Finding
from oban_sqla.durations import duration
from oban_sqla.limits.rows import RateRow
from oban_sqla.migrations import LATEST, upgrade
from oban_sqla.models import LeaderLease, ProducerRow, QueueOrder
from oban_sqla.runtime import notifier
from oban_sqla.runtime.database import Database
from oban_sqla.statements.heartbeat import EXPIRY
from tests.conftest import Add, StartOban, Tune
from tests.factories import JobFactory
from tests.proxy import Proxy
from tests.runtime.conftest import until

Sessions = async_sessionmaker[AsyncSession]

NOW = datetime.now(UTC)


async def findings(database: Database, latest: int = LATEST, **settings: Any) -> list[Finding]:
    config = Config.check(**settings)
    return [finding async for finding in examine(database, config, latest=latest)]


async def problems(database: Database, check: str, **options: Any) -> list[Finding]:
    """The problems that a check finds, each with its remedy."""
    found = [found for found in await findings(database, **options) if found.level == "problem"]
    assert all(finding.remedy for finding in found)
    return [finding for finding in found if finding.check == check]


async def notes(database: Database, check: str) -> list[Finding]:
    """What is worth a look by one of the checks."""
    return [one for one in await findings(database) if (one.check, one.level) == (check, "note")]


@pytest.fixture
async def database(engine: AsyncEngine, prefix: str) -> Database:
    return Database(engine, prefix)


@pytest.fixture
async def own(database_dsn: str) -> AsyncIterator[AsyncEngine]:
    """An engine in autocommit, on a database that the test may damage."""
    url = make_url(database_dsn).set(drivername="postgresql+psycopg")
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    yield engine
    await engine.dispose()


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def test_a_sound_installation_has_no_problem(database: Database, start: StartOban) -> None:
    oban = await start(queues={"default": 1}, node="n1")
    await until(lambda: oban.is_leader)
    found = await findings(database)
    assert [finding.level for finding in found] == ["ok"] * 18
    assert {finding.check for finding in found} == {
        *("schema", "vacuum", "listen", "notifications", "transactions", "connections"),
        *("clock", "nodes", "leader", "orphans", "queues", "jobs", "pauses", "pools", "threads"),
        *("outcomes", "retention", "limits"),
    }


async def test_missing_tables_are_a_problem(engine: AsyncEngine) -> None:
    found = await findings(Database(engine, "no_such_schema"))
    assert found[0].text.endswith("in schema 'no_such_schema' of database 'postgres'")
    assert found[0].remedy is not None
    assert "oban-sqla schema upgrade" in found[0].remedy
    # The other checks need no tables, and still run.
    assert {finding.check for finding in found[1:]} == {
        *("listen", "notifications", "transactions", "connections", "clock")
    }


class TestSchema:
    async def test_an_older_schema_is_a_problem(self, database: Database) -> None:
        (found,) = await problems(database, "schema", latest=LATEST + 1)
        assert f"is at version {LATEST}, and {LATEST + 1} is the latest" in found.text
        assert found.remedy == "oban-sqla schema upgrade"

    async def test_a_newer_schema_is_a_problem(self, database: Database) -> None:
        (found,) = await problems(database, "schema", latest=LATEST - 1)
        assert found.remedy == "install a newer oban_sqla"

    async def test_a_schema_of_another_oban_is_a_problem(self, own: AsyncEngine) -> None:
        await execute(own, "DROP TABLE oban_sqla_version")
        (found,) = await problems(Database(own, None), "schema")
        assert "is at version 0" in found.text

    async def test_a_dropped_part_is_a_problem(self, own: AsyncEngine) -> None:
        await execute(own, "ALTER TABLE oban_jobs DROP CONSTRAINT oban_sqla_unique")
        (found,) = await problems(Database(own, None), "schema")
        assert found.text.endswith("but constraint oban_sqla_unique is missing")
        assert found.remedy == "oban-sqla schema upgrade"


class TestVacuum:
    async def test_many_dead_rows_are_a_problem(self, own: AsyncEngine, tune: Tune) -> None:
        tune(server_checks, MANY_DEAD=10)
        await execute(
            own,
            "ALTER TABLE oban_jobs SET (autovacuum_vacuum_threshold = 1000000)",
            "INSERT INTO oban_jobs (worker) SELECT 'w' FROM generate_series(1, 50)",
            "DELETE FROM oban_jobs WHERE id % 2 = 0",
            "SELECT pg_stat_force_next_flush()",
        )
        (found,) = await problems(Database(own, None), "vacuum")
        assert found.text == "oban_jobs has 25 live and 25 dead rows, vacuumed never"
        assert "VACUUM public.oban_jobs" in (found.remedy or "")

    async def test_autovacuum_turned_off_is_a_problem(self, own: AsyncEngine) -> None:
        await execute(own, "ALTER TABLE oban_jobs SET (autovacuum_enabled = false)")
        (found,) = await problems(Database(own, None), "vacuum")
        assert "autovacuum is off" in found.text


class TestListen:
    @pytest.fixture
    async def behind(self, proxy: Proxy, prefix: str) -> AsyncIterator[Database]:
        """The database behind a proxy that may drop notifications."""
        database = Database(proxy.dsn, prefix)
        yield database
        await database.dispose()

    async def test_listen_behind_a_transaction_pooler_is_a_problem(
        self, behind: Database, proxy: Proxy, tune: Tune
    ) -> None:
        assert await problems(behind, "listen") == []
        tune(notifier, ECHO_TIMEOUT=0.1)
        proxy.deaf = True
        (found,) = await problems(behind, "listen")
        assert "PgBouncer" in found.text
        assert "listen_dsn" in (found.remedy or "")

    async def test_a_node_that_polls_needs_no_listen(self, behind: Database, proxy: Proxy) -> None:
        proxy.deaf = True
        assert await problems(behind, "listen", notify="poll") == []

    async def test_the_listen_dsn_is_checked(
        self, behind: Database, proxy: Proxy, postgres_dsn: str
    ) -> None:
        proxy.deaf = True
        assert await problems(behind, "listen", listen_dsn=postgres_dsn) == []
        (found,) = await problems(behind, "listen", listen_dsn="postgresql://u:secret@localhost:1/")
        assert "no connection" in found.text
        assert "secret" not in found.text


async def test_a_full_queue_of_notifications_is_a_problem(database: Database, tune: Tune) -> None:
    tune(server_checks, FULL_QUEUE=0.0)
    (found,) = await problems(database, "notifications")
    assert "0% full" in found.text


class TestTransactions:
    @pytest.fixture(autouse=True)
    def impatient(self, tune: Tune) -> None:
        tune(server_checks, LONG_TRANSACTION=0.0)

    async def test_a_long_transaction_is_a_problem(self, own: AsyncEngine) -> None:
        async with own.execution_options(isolation_level="REPEATABLE READ").begin() as other:
            pid = await other.scalar(text("SELECT pg_backend_pid()"))
            (found,) = await problems(Database(own, None), "transactions")
        assert found.text.startswith(f"the session {pid} (")
        assert "idle in transaction)" in found.text
        assert found.remedy == f"SELECT pg_terminate_backend({pid})"
        assert await problems(Database(own, None), "transactions") == []

    async def test_a_long_prepared_transaction_is_a_problem(self, own: AsyncEngine) -> None:
        async with own.connect() as connection:
            await connection.execute(text("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'o''k'"))
        (found,) = await problems(Database(own, None), "transactions")
        assert found.text.startswith('the prepared transaction "o\'k" has kept')
        assert found.remedy == "ROLLBACK PREPARED 'o''k'"
        await execute(own, found.remedy)

    async def test_a_transaction_of_a_replica_is_judged_by_its_age(self) -> None:
        row = type("Row", (), {"seconds": None, "age": 10**9})
        assert server_checks.is_long(row)
        row.age = 10
        assert not server_checks.is_long(row)


async def test_a_role_with_few_privileges_gets_a_report(own: AsyncEngine) -> None:
    role = f"watcher_{uuid4().hex[:8]}"
    await execute(
        own,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"REVOKE SELECT ON oban_sqla_controls FROM {role}",
        f"GRANT INSERT ON oban_sqla_controls TO {role}",
    )
    database = Database(own.url.set(username=role), "public")
    found = await findings(database)
    await database.dispose()
    await execute(own, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    by_check = {finding.check: finding for finding in found if finding.level != "ok"}
    assert by_check["transactions"].level == "note"
    assert "pg_read_all_stats" in (by_check["transactions"].remedy or "")
    assert by_check["pauses"].level == "problem"
    assert by_check["pauses"].text.startswith("the check failed: permission denied")


async def test_too_few_connections_are_a_problem(database: Database) -> None:
    assert await problems(database, "connections") == []
    (found,) = await problems(database, "connections", pool_size=10_000)
    assert "one more node may open 10002" in found.text


@pytest.mark.parametrize(("hours", "side"), [(1, "ahead of"), (-1, "behind")])
async def test_a_difference_of_clocks_is_a_problem(
    database: Database, monkeypatch: pytest.MonkeyPatch, hours: int, side: str
) -> None:
    shift = timedelta(hours=hours)
    monkeypatch.setattr(server_checks, "client_now", lambda: datetime.now(UTC) + shift)
    (found,) = await problems(database, "clock")
    assert f"the clock of this host is 60 minutes {side} that of the database" in found.text


async def add(sessions: Sessions, table: Any, **values: Any) -> None:
    assert isinstance(table.__table__, Table)
    async with sessions.begin() as session:
        await session.execute(insert(table).values(**values))


async def beats(sessions: Sessions, silent_for: float = 0, uuid: UUID | None = None) -> None:
    updated_at = datetime.now(UTC) - timedelta(seconds=silent_for)
    own = {"node": "n1", "queue": "default", "updated_at": updated_at}
    await add(sessions, ProducerRow, uuid=uuid or uuid4(), name="Oban", **own)


class TestNodes:
    async def test_no_running_node_is_a_note(self, database: Database) -> None:
        (found,) = [one for one in await findings(database) if one.check == "nodes"]
        assert (found.level, found.text) == ("note", "no node runs")

    async def test_a_silent_node_is_a_problem(self, database: Database, sessions: Sessions) -> None:
        await beats(sessions, silent_for=300)
        (found,) = await problems(database, "nodes")
        assert found.text == "n1 has sent no heartbeat for 5 minutes"

    @pytest.mark.parametrize("lease", [None, -1])
    async def test_a_missing_leader_is_a_problem(
        self, database: Database, sessions: Sessions, lease: int | None
    ) -> None:
        await beats(sessions)
        if lease is not None:
            until = datetime.now(UTC) + timedelta(seconds=lease)
            own = {"elected_at": NOW, "expires_at": until}
            await add(sessions, LeaderLease, name="Oban", node="n1/0123456789ab", **own)
        (found,) = await problems(database, "leader")
        assert found.text.startswith("Oban has no leader")


class TestOrphans:
    @pytest.mark.parametrize(
        ("attempted_by", "age", "gone"),
        [
            (["n9", str(uuid4()), "oban_sqla"], 0, True),
            (["n9", str(uuid4())], 3601, True),
            (["n9", str(uuid4())], 3500, False),
        ],
    )
    async def test_a_job_without_a_row_of_its_producer_is_an_orphan(
        self,
        database: Database,
        sessions: Sessions,
        attempted_by: list[str],
        age: float,
        gone: bool,
    ) -> None:
        attempted_at = datetime.now(UTC) - timedelta(seconds=age)
        async with sessions.begin() as session:
            for _ in range(2):
                job: Job = JobFactory(executing=True, attempted_at=attempted_at)
                job.attempted_by = attempted_by
                session.add(job)
        found = await problems(database, "orphans")
        texts = ["n9 is gone, but still has executing jobs: 2"] if gone else []
        assert [one.text for one in found] == texts

    @pytest.mark.parametrize(("silent_for", "gone"), [(300, True), (0, False)])
    async def test_a_job_of_a_silent_producer_is_an_orphan(
        self, database: Database, sessions: Sessions, silent_for: float, gone: bool
    ) -> None:
        uuid = uuid4()
        await beats(sessions, silent_for, uuid)
        async with sessions.begin() as session:
            job: Job = JobFactory(executing=True)
            job.attempted_by = ["n1", str(uuid), "oban_sqla"]
            session.add(job)
        found = await problems(database, "orphans")
        assert len(found) == gone

    @pytest.mark.parametrize(("age", "gone"), [(3500, False), (3601, True)])
    async def test_a_job_of_a_silent_producer_of_another_oban_is_an_orphan_by_its_age(
        self, database: Database, sessions: Sessions, age: float, gone: bool
    ) -> None:
        """A worker that blocks its event loop stops the heartbeat of its node, too."""
        uuid = uuid4()
        await beats(sessions, 300, uuid)
        async with sessions.begin() as session:
            await session.execute(update(ProducerRow).values(meta={"limit": 10}))
            job: Job = JobFactory(
                executing=True, attempted_at=datetime.now(UTC) - timedelta(seconds=age)
            )
            job.attempted_by = ["n1", str(uuid)]
            session.add(job)
        found = await problems(database, "orphans")
        texts = ["n1 is gone, but still has executing jobs: 1"] if gone else []
        assert [one.text for one in found] == texts


async def test_a_queue_that_no_node_runs_is_a_problem(
    database: Database, sessions: Sessions
) -> None:
    await beats(sessions)
    async with sessions.begin() as session:
        session.add_all([JobFactory(), JobFactory(queue="lonely"), JobFactory(queue="lonely")])
        session.add(JobFactory(queue="later", scheduled=True))
    (found,) = await problems(database, "queues")
    assert found.text == "no node runs the queue lonely, which has available jobs: 2"


class TestLimits:
    @pytest.mark.parametrize("state", ["available", "executing"])
    async def test_a_node_of_another_oban_ignores_limits_of_jobs(
        self, database: Database, sessions: Sessions, state: str
    ) -> None:
        await beats(sessions)
        meta = {"partition_key": "x", "oban_sqla_limits": {}}
        async with sessions.begin() as session:
            session.add(JobFactory(meta=meta, executing=state == "executing"))
        (found,) = await problems(database, "limits")
        assert found.text.startswith(
            "n1 is a node of another Oban, and runs the queue default: it ignores the limits"
        )

    async def test_a_node_of_another_oban_ignores_limits_of_queues(
        self, database: Database, sessions: Sessions
    ) -> None:
        await beats(sessions)
        await beats(sessions, uuid=(own := uuid4()))
        of_own = update(ProducerRow).where(ProducerRow.uuid == own)
        async with sessions.begin() as session:
            # Oban Pro publishes its limits in the same form.
            await session.execute(update(ProducerRow).values(meta={"global_limit": {}}))
        assert await problems(database, "limits") == []
        async with sessions.begin() as session:
            await session.execute(of_own.values(meta={"global_limit": {}, EXPIRY: 60}))
        assert len(await problems(database, "limits")) == 1

    async def test_nodes_of_another_oban_without_limits_are_no_problem(
        self, database: Database, sessions: Sessions
    ) -> None:
        await beats(sessions)
        async with sessions.begin() as session:
            session.add(JobFactory())
        assert await problems(database, "limits") == []

    async def test_nodes_that_disagree_about_limits_are_a_problem(
        self, database: Database, start: StartOban
    ) -> None:
        one = {"default": {"limit": 1, "global_limit": 2, "rate_limit": Rate(5, per=1)}}
        two = {"default": {"limit": 1, "rate_limit": Rate(5, per=1)}}
        await start(queues=one, node="n1")
        await start(queues=two, node="n2")
        (found,) = await problems(database, "limits")
        assert found.text == (
            "the nodes that run the queue default have different values of global_limit: none,"
            ' {"allowed": 2}; each obeys its own'
        )

    @pytest.mark.parametrize("kind", ["key", "queue"])
    async def test_a_job_that_holds_a_slot_for_long_is_a_problem(
        self, database: Database, sessions: Sessions, start: StartOban, kind: str
    ) -> None:
        meta = {"partition_key": "x"} if kind == "key" else {}
        limits = {"global_limit": 1} if kind == "queue" else {}
        oban = await start(queues={"default": {"limit": 1, "paused": True, **limits}})
        producer = str(oban.check_one_queue("default").uuid)
        async with sessions.begin() as session:
            for age, lost in ((30, False), (7300, False), (10900, True)):
                job: Job = JobFactory(
                    executing=True, meta=meta, attempted_at=datetime.now(UTC) - timedelta(0, age)
                )
                job.attempted_by = ["n1", str(uuid4()) if lost else producer, "oban_sqla"]
                session.add(job)
        assert await notes(database, "limits") == []
        async with sessions.begin() as session:
            session.add(JobFactory(meta=meta))
            session.add(JobFactory(meta={"partition_key": "y"}, queue="other"))
        assert [one.text for one in await notes(database, "limits")] == [
            "job 3 of queue default executes for 3 hours, and its node is gone; under a limit,"
            " other jobs wait for its slot",
            "job 2 of queue default executes for 2 hours; under a limit, other jobs wait for its"
            " slot",
        ]

    async def test_a_held_rate_is_reported(self, database: Database, sessions: Sessions) -> None:
        hour = datetime.now(UTC) + timedelta(hours=5)
        soon = datetime.now(UTC) + timedelta(minutes=5)
        async with sessions.begin() as session:
            session.add_all(
                [
                    *(RateRow(rate=f'sync="{card}"', held_until=hour) for card in ("v1", "v2")),
                    RateRow(rate="ses", held_until=hour),
                    RateRow(rate="soon", held_until=soon),
                    RateRow(rate="counts", tokens=1.0, counted_at=soon),
                ]
            )
        assert [one.text for one in await notes(database, "limits")] == [
            "ses is held for 5 hours more, since a job raised RateLimited",
            "2 keys of sync are held for 5 hours more, since a job raised RateLimited",
        ]

    async def test_limits_on_our_nodes_are_no_problem(
        self, database: Database, start: StartOban
    ) -> None:
        await start(queues={"default": {"limit": 1, "global_limit": 1}})
        assert await problems(database, "limits") == []


class TestJobs:
    async def test_jobs_in_an_unknown_state_are_a_problem(self, own: AsyncEngine) -> None:
        await execute(
            own,
            "ALTER TYPE oban_job_state ADD VALUE 'held'",
            "INSERT INTO oban_jobs (worker, state) VALUES ('w', 'held'), ('w', 'held')",
        )
        (found,) = await problems(Database(own, None), "jobs")
        assert found.text.startswith("jobs are in the state 'held'")
        assert found.text.endswith(": 2")

    async def test_malformed_jobs_are_a_problem(self, own: AsyncEngine) -> None:
        await execute(
            own,
            "INSERT INTO oban_jobs (worker, args, meta, state) VALUES"
            " ('w', '[]', '{}', 'available'), ('w', '{}', '5', 'scheduled'),"
            " ('w', '{}', '{}', 'available'), ('w', '{}', '5', 'completed')",
        )
        (found,) = await problems(Database(own, None), "jobs")
        assert found.text.endswith("are not a JSON object: 2, the first is 1")


class TestPauses:
    @pytest.fixture
    def ordered(self, sessions: Sessions) -> Any:
        async def ordered(
            days: float,
            action: str = "pause",
            *,
            queue: str = "q",
            node: str = "*",
            name: str = "Oban",
        ) -> None:
            changed_at = datetime.now(UTC) - timedelta(days=days)
            key = {"name": name, "node": node, "queue": queue, "setting": "paused"}
            value = {"action": action, "queue": queue}
            await add(sessions, QueueOrder, **key, value=value, changed_at=changed_at)

        return ordered

    async def test_a_forgotten_pause_is_a_problem(self, database: Database, ordered: Any) -> None:
        await ordered(3)
        await ordered(0.5, queue="young")
        await ordered(3, "resume", queue="resumed")
        await ordered(4, queue="one", node="n1", name="Other")
        q, one = await problems(database, "pauses")
        assert q.text == "q was paused 3 days ago, and is still paused"
        assert q.remedy == "oban-sqla queues resume q"
        assert one.text == "one was paused on n1 4 days ago, and is still paused"
        assert one.remedy == "oban-sqla queues resume one --node n1 --name Other"

    async def test_a_forgotten_pause_of_every_queue_is_a_problem(
        self, database: Database, ordered: Any
    ) -> None:
        await ordered(3, queue="*")
        (found,) = await problems(database, "pauses")
        assert found.text.startswith("every queue was paused 3 days ago")
        assert found.remedy == "oban-sqla queues resume --all"

    @pytest.mark.parametrize("newer", [{"queue": "*"}, {"node": "*"}])
    async def test_a_pause_that_a_wider_order_ended_is_no_problem(
        self, database: Database, ordered: Any, newer: dict[str, str]
    ) -> None:
        await ordered(3, node="n1")
        await ordered(2, "resume", **newer)
        assert await problems(database, "pauses") == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1.01, "1 second"),
        (1.26, "1.3 seconds"),
        (61, "61 seconds"),
        (121, "2 minutes"),
        (7200, "2 hours"),
    ],
)
def test_durations_are_written_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


async def test_jobs_past_their_retention_are_a_problem(
    database: Database, engine: AsyncEngine, prefix: str, add: Add, start: StartOban
) -> None:
    old = NOW - timedelta(days=2)
    (id,) = await add(JobFactory(state="completed", completed_at=old, inserted_at=old))
    # Without a leader, no job should be deleted.
    assert await problems(database, "retention") == []
    oban = await start(queues={"default": 1}, retention=None)
    await until(lambda: oban.is_leader)
    (found,) = await problems(database, "retention")
    assert found.text == (
        f"completed jobs are kept for 24 hours, but older jobs still exist: 1, the first is {id}"
    )
    assert found.remedy is not None
    assert "log of the leader" in found.remedy
    table = f'"{prefix}".receipts'
    await execute(
        engine.execution_options(isolation_level="AUTOCOMMIT"),
        f'CREATE TABLE {table} (job_id bigint CONSTRAINT paid REFERENCES "{prefix}".oban_jobs)',
    )
    try:
        (found,) = await problems(database, "retention")
    finally:
        await execute(engine.execution_options(isolation_level="AUTOCOMMIT"), f"DROP TABLE {table}")
    assert found.remedy == (
        "foreign keys forbid the deletion: make them ON DELETE SET NULL or CASCADE:"
        " paid of receipts"
    )
