"""`oban-sqla bench`."""

import asyncio
import json
import re
import signal

import psycopg
import pytest

from oban_sqla import ObanError, bench
from oban_sqla.bench import schema as module
from tests.cli.conftest import Cli, Say, Spawn


def exists(dsn: str, schema: str) -> bool:
    with psycopg.connect(dsn) as connection:
        query = "SELECT FROM pg_namespace WHERE nspname = %s"
        return connection.execute(query, [schema]).rowcount == 1


def schema_in(said: str) -> str:
    found = re.search(r"in the schema (\w+), which is dropped at the end", said)
    assert found is not None
    return found[1]


def test_bench_prints_the_figures_of_the_server(cli: Cli, postgres_dsn: str) -> None:
    done = cli("bench", "--seconds", "1", dsn=postgres_dsn)
    assert done.returncode == 0, done.stderr
    figures = [line.split()[-1] for line in done.stdout.splitlines()[2:]]
    assert figures == ["ms", *["jobs/s"] * 3, "ms", *["jobs/s"] * 2, "ms", "ms"]
    assert len(done.stderr.splitlines()) == 1 + len(
        figures
    )  # each figure is printed as soon as it is known
    assert not exists(postgres_dsn, schema_in(done.stderr))


def test_bench_prints_json(call: Say, postgres_dsn: str) -> None:
    done = call("bench", "--seconds", "1", "--json", "--dsn", postgres_dsn)
    figures = json.loads(done.stdout)
    assert all(figure["value"] > 0 for figure in figures)
    assert {figure["unit"] for figure in figures} == {"ms", "jobs/s"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_drops_its_schema(
    spawn: Spawn, postgres_dsn: str, number: signal.Signals
) -> None:
    process = spawn("bench", "--seconds", "300", dsn=postgres_dsn)
    schema = schema_in(process.stdout.readline())
    process.stdout.readline()  # the first figure
    assert exists(postgres_dsn, schema)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert not exists(postgres_dsn, schema)


def test_a_bench_that_fails_drops_its_schema(postgres_dsn: str) -> None:
    used = []

    def fail() -> None:
        with bench.temporary_schema(postgres_dsn) as schema:
            used.append(schema)
            assert exists(postgres_dsn, schema)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not exists(postgres_dsn, *used)


def test_bench_says_how_to_drop_a_schema_that_it_can_not_drop(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with bench.temporary_schema(postgres_dsn):
            monkeypatch.setattr(module, "DropSchema", lambda name, **options: 1 / 0)

    with pytest.raises(ObanError, match=r"could not be dropped") as failed:
        fail()
    remedy = re.search(r"DROP SCHEMA \w+ CASCADE", str(failed.value))
    assert remedy is not None
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(remedy[0].encode())


def test_a_figure_without_rows_is_none(postgres_dsn: str) -> None:
    with bench.temporary_schema(postgres_dsn) as schema, psycopg.connect(postgres_dsn) as own:
        # A trigger discards the enqueued jobs, like a user's trigger.
        own.execute(
            f"""
            CREATE FUNCTION {schema}.lose() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER lose BEFORE INSERT ON {schema}.oban_jobs
            FOR EACH ROW EXECUTE FUNCTION {schema}.lose()
        """.encode()
        )
        own.commit()

        async def measure() -> None:
            async for _ in bench.measure(postgres_dsn, schema, 1.0):
                pass

        with pytest.raises(ObanError, match="0 jobs are available instead of"):
            asyncio.run(measure())


def test_each_figure_measures_at_least_one_job(postgres_dsn: str) -> None:
    with bench.temporary_schema(postgres_dsn) as schema:

        async def measure() -> list[bench.Figure]:
            return [figure async for figure in bench.measure(postgres_dsn, schema, 0.0)]

        figures = asyncio.run(measure())
    assert [figure.measured for figure in figures if figure.value <= 0] == []


def test_bench_without_a_database_is_refused(call: Say) -> None:
    assert "--dsn" in call("bench", code=2).stderr


def test_bench_without_a_server_fails(call: Say) -> None:
    said = call("bench", "--dsn", "postgresql://nobody@127.0.0.1:1/none", code=1).stderr
    assert "Connection refused" in said
    assert "DROP" not in said
