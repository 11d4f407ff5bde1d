"""Plans: with many rows, and for prepared statements, the indexes are used."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Executable, select
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.orm import with_parent

from oban_sqla import Job, JobState
from oban_sqla.config.partition import Partition
from oban_sqla.limits.key_jobs import key_jobs
from oban_sqla.limits.queue_keys import QueueKeys
from oban_sqla.manage.cancel import cancel
from oban_sqla.manage.delete import delete
from oban_sqla.manage.retry import retry
from oban_sqla.migrations.args_index import INDEX as ARGS_INDEX
from oban_sqla.monitor import job_queries as browse_module
from oban_sqla.monitor.job_queries import Filters, newest, page, tally
from oban_sqla.statements.acknowledge import acknowledge, unsettled
from oban_sqla.statements.claim import FRONT, claim_of_queue
from oban_sqla.statements.counts import counts
from oban_sqla.statements.finished import finished
from oban_sqla.statements.give_back import give_back
from oban_sqla.statements.prune import oldest_finished, prune, prune_listed
from oban_sqla.statements.rescue import delete_expired_rows, rescue
from oban_sqla.statements.stage import stage
from oban_sqla.statements.unique import find, settle
from oban_sqla.statements.update import FIELDS, update
from tests.conftest import Tune
from tests.schemas import Schemas
from tests.worker_models import Invoice

FILL = """
INSERT INTO {} (worker, args, queue, state, priority, scheduled_at, attempt, attempted_by,
                completed_at)
SELECT 'w', jsonb_build_object('order', n), 'q' || n %% 10, s.state::{}, n %% 4,
       timezone('UTC', now()) + s.shift * n, 0,
       CASE WHEN s.state = 'executing' THEN ARRAY['n1', 'p' || n %% 20] ELSE '{{}}' END,
       CASE WHEN s.state = 'completed' THEN timezone('UTC', now()) - n * interval '1 s' END
FROM generate_series(1, %(count)s) n,
     (VALUES ('available', interval '-1 s', 40), ('scheduled', interval '1 s', 30),
             ('completed', interval '-1 s', 29), ('executing', interval '-1 s', 1))
       AS s(state, shift, share)
WHERE n %% 100 < s.share
"""


FORGET = "DELETE FROM pg_statistic WHERE starelid = %s::regclass"
PRODUCERS = """
INSERT INTO {} (uuid, name, node, queue, meta)
SELECT gen_random_uuid(), 'Oban', 'n1', 'q' || n, '{{}}' FROM generate_series(1, 3) n
"""


@pytest.fixture(scope="module")
def filled(postgres_dsn: str, schemas: Schemas) -> Iterator[str]:
    """A schema with 100,000 jobs."""
    name = schemas.install()
    jobs, state = (sql.Identifier(name, part) for part in ("oban_jobs", "oban_job_state"))
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        # Statistics of all rows, fixed: a sample, also that of autovacuum, may mislead the planner.
        connection.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(jobs))
        connection.execute("SET default_statistics_target = 1000")
        connection.execute(sql.SQL(FILL).format(jobs, state), {"count": 100_000})
        connection.execute(sql.SQL("ANALYZE {}").format(jobs))
    yield name
    schemas.give_back(name)


@pytest.fixture(scope="module", params=[False, True], ids=["new", "few producers"])
def prefix(request: pytest.FixtureRequest, postgres_dsn: str, filled: str) -> Iterator[str]:
    """`filled`, without statistics of producers, or with those of a few."""
    producers = sql.Identifier(filled, "oban_producers")
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        if request.param:
            connection.execute(sql.SQL(PRODUCERS).format(producers))
            connection.execute(sql.SQL("ANALYZE {}").format(producers))
        yield filled
        # Also removes the count of rows, but not the statistics of the columns.
        connection.execute(sql.SQL("TRUNCATE {}").format(producers))
        connection.execute(FORGET, [f"{filled}.oban_producers"])


@pytest.fixture
async def full(postgres_dsn: str, prefix: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


async def plan(connection: psycopg.AsyncConnection, prefix: str, statement: Any) -> str:
    """The plan of a statement for any parameters."""
    compiled = statement.compile(
        dialect=psycopg_dialect.dialect(),
        schema_translate_map={None: prefix},
        render_schema_translate=True,
    )
    names = list(compiled.params)
    numbered = re.sub(r"%\((\w+)\)s", lambda match: f"${names.index(match[1]) + 1}", str(compiled))
    query = f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {numbered.replace('%%', '%')}"
    cursor = await connection.execute(query.encode())
    return "\n".join(line for (line,) in await cursor.fetchall())


KEY = "oban_jobs_pkey"
INDEX = "oban_jobs_state_queue_priority_scheduled_at_id_index"


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (acknowledge(skip_locked=True), KEY),
        (unsettled(), KEY),
        (claim_of_queue(), INDEX),
        (stage(), "oban_jobs_staging_index"),
        (stage(shared=True), INDEX),
        (prune(JobState.COMPLETED, named=True), "oban_jobs_completed_at_index"),
        (prune(JobState.COMPLETED, named=False), "oban_jobs_completed_at_index"),
        (oldest_finished(JobState.COMPLETED), "oban_jobs_completed_at_index"),
        (prune_listed(JobState.COMPLETED), KEY),
        (give_back(), INDEX),
        (rescue(), INDEX),
        (delete_expired_rows(), INDEX),
        (cancel(), KEY),
        (retry(), KEY),
        (delete(), KEY),
        (update(frozenset(FIELDS)), KEY),
        (settle(), "oban_sqla_unique"),
        (find(), "oban_sqla_unique"),
        (select(Job).where(with_parent(Invoice(id=1), Invoice.jobs)), "oban_sqla_jobs_self_index"),
    ],
    ids=[
        *(
            "acknowledge",
            "unsettled",
            "claim",
            "stage",
            "stage shared",
            "prune a worker's jobs",
            "prune the jobs of other workers",
            "oldest_finished",
            "prune listed jobs",
            "give_back",
            "rescue",
            "delete_expired_rows",
            "cancel",
        ),
        *("retry", "delete", "update", "settle", "find"),
        "jobs of a row",
    ],
)
async def test_no_statement_scans_the_table(
    full: psycopg.AsyncConnection, prefix: str, statement: Executable, index: str
) -> None:
    found = await plan(full, prefix, statement)
    assert "Seq Scan on oban_jobs" not in found, found
    assert index in found, found


async def test_states_and_queues_are_found_by_descents_of_the_index(
    full: psycopg.AsyncConnection, prefix: str
) -> None:
    found = await plan(full, prefix, counts(prefix=prefix, exact=50_000))
    assert "Seq Scan on oban_jobs" not in found, found
    following = found[found.index("Recursive Union") :]
    descent = "Limit\n.*->  Index Only Scan using " + INDEX
    assert len(re.findall(descent, following)) >= 2, found


NONE = [
    Filters(states=(JobState.RETRYABLE,)),
    Filters(states=(JobState.RETRYABLE, JobState.DISCARDED)),
    Filters(states=(JobState.COMPLETED,), queue="none"),
    Filters(queue="none"),
    Filters(queue="none", worker="w"),
]


async def test_missing_jobs_are_looked_up_in_the_index_of_states(
    full: psycopg.AsyncConnection, prefix: str
) -> None:
    """A walk along the ids, or the table, would read all jobs."""
    for filters in NONE:
        for statement in (
            newest(filters, limit=20),
            tally(filters, limit=20),
            page(filters, after=0, last=2**62, limit=20),
        ):
            assert await pages_read(full, prefix, statement) < 200, filters


async def test_many_jobs_are_listed_along_their_ids(
    full: psycopg.AsyncConnection, prefix: str, tune: Tune
) -> None:
    tune(browse_module, MOST_FEW=100)
    statement = newest(Filters(states=(JobState.AVAILABLE,)), limit=20)
    assert await pages_read(full, prefix, statement) < 1000


async def pages_read(connection: psycopg.AsyncConnection, prefix: str, statement: Any) -> int:
    compiled = statement.compile(
        dialect=psycopg_dialect.dialect(),
        schema_translate_map={None: prefix},
        render_schema_translate=True,
    )
    query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {compiled}".encode()
    (row,) = await (await connection.execute(query, compiled.params)).fetchall()
    read = row[0][0]["Plan"]
    return int(read["Shared Hit Blocks"] + read["Shared Read Blocks"])


async def test_outcomes_are_written_in_the_order_they_are_given(
    full: psycopg.AsyncConnection, prefix: str
) -> None:
    """All transactions lock jobs in the order of their ids, so they can't deadlock."""
    lines = (await plan(full, prefix, acknowledge())).splitlines()
    (locking,) = (n for n, line in enumerate(lines) if "LockRows" in line)
    below = [line.strip(" ->") for line in lines[locking + 1 : locking + 3]]
    assert below == ["Nested Loop", "Subquery Scan on given_ack"], lines


async def test_outcomes_are_found_by_their_ids_in_a_table_that_was_never_analyzed(
    postgres_dsn: str, prefix: str
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        jobs = sql.Identifier(prefix, "oban_jobs")
        state = sql.Identifier(prefix, "oban_job_state")
        await connection.execute(sql.SQL(FILL).format(jobs, state), {"count": 10_000})
        found = await plan(connection, prefix, acknowledge(skip_locked=True))
    assert "Seq Scan on oban_jobs" not in found, found
    assert KEY in found, found


BY_ACCOUNT = QueueKeys(Partition(("args",), ("account_id",)), None)
COUNTED_TOO_EARLY = """
UPDATE pg_class SET reltuples = 0, relpages = pg_relation_size(oid) / 8192
WHERE oid = %(table)s::regclass
    OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = %(table)s::regclass)
"""


@pytest.fixture
def new_prefix(schemas: Schemas) -> Iterator[str]:
    """A schema of whose tables the server has no statistics."""
    name = schemas.install()
    yield name
    schemas.give_back(name)


@pytest.mark.parametrize(
    "statement",
    [acknowledge(skip_locked=True), unsettled(), finished(), key_jobs(BY_ACCOUNT)],
    ids=["acknowledge", "unsettled", "finished", "key_jobs"],
)
async def test_jobs_are_looked_up_if_the_planner_expects_a_single_one(
    postgres_dsn: str, new_prefix: str, statement: Executable
) -> None:
    """ANALYZE ran before the transaction that inserted all jobs committed.

    A join would compare each given job with each job of the table.
    """
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        jobs = sql.Identifier(new_prefix, "oban_jobs")
        state = sql.Identifier(new_prefix, "oban_job_state")
        await connection.execute(sql.SQL(FILL).format(jobs, state), {"count": 10_000})
        await connection.execute(COUNTED_TOO_EARLY, {"table": f"{new_prefix}.oban_jobs"})
        lines = (await plan(connection, new_prefix, statement)).splitlines()
        await connection.rollback()
    joins = re.compile(r"(Join Filter|Hash Cond|Merge Cond): .*\bid = |Semi Join")
    assert not [line for line in lines if joins.search(line)], "\n".join(lines)


async def test_jobs_are_found_by_their_arguments(
    full: psycopg.AsyncConnection, prefix: str
) -> None:
    index = sql.SQL("CREATE INDEX {} ON {} USING gin (args jsonb_path_ops)").format(
        sql.Identifier(ARGS_INDEX), sql.Identifier(prefix, "oban_jobs")
    )
    async with full.transaction(force_rollback=True):
        await full.execute(index)
        found = await plan(full, prefix, select(Job).where(Job.args_contain({"order": 1})))
    assert f"Bitmap Index Scan on {ARGS_INDEX}" in found, found


async def test_a_plan_made_for_an_idle_queue_is_not_kept(postgres_dsn: str, prefix: str) -> None:
    """Such a plan would read the whole table for each claim when the table has grown."""
    connection = await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True)
    async with connection:
        await connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(prefix, "oban_jobs")))
        compiled = claim_of_queue().compile(
            dialect=psycopg_dialect.dialect(),
            schema_translate_map={None: prefix},
            render_schema_translate=True,
        )
        claim = {"queue_name": "q", "limit": 5, "node_name": "n", "producer": "p", **FRONT}
        for _ in range(7):  # after five executions PostgreSQL considers a generic plan
            await connection.execute(
                str(compiled).encode(),
                {**compiled.params, **claim},
                prepare=True,
            )
        kept = "SELECT sum(generic_plans), sum(custom_plans) FROM pg_prepared_statements"
        assert await (await connection.execute(kept)).fetchone() == (0, 7)
