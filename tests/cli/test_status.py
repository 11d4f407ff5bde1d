"""`oban-sqla status`."""

import json

import psycopg
import pytest

from tests.cli.conftest import Say
from tests.cli.test_run import enqueue


def beat(dsn: str, prefix: str, node: str, seconds_ago: int, queue: str = "default") -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO {prefix}.oban_producers (uuid, name, node, queue, meta, updated_at)"
            " VALUES (gen_random_uuid(), 'Oban', %s, %s, %s,"
            " timezone('UTC', now()) - make_interval(secs => %s))",
            [node, queue, '{"local_limit": 5, "paused": true}', seconds_ago],
        )


def test_status_says_that_nothing_runs(on: Say, prefix: str) -> None:
    assert on("status").stdout == (
        f"schema {prefix}\n\nno node runs\n\nno queue runs, and there are no jobs\n"
    )


def test_status_shows_nodes_queues_and_jobs(on: Say, postgres_dsn: str, prefix: str) -> None:
    beat(postgres_dsn, prefix, "n1", 1)
    beat(postgres_dsn, prefix, "gone", 3600, "\x1b[31mred")
    enqueue(postgres_dsn, prefix, "Quick")
    said = on("status").stdout
    assert "\x1b" not in said
    lines = said.splitlines()
    assert any(line.startswith("gone") and "dead: 60 minutes ago" in line for line in lines)
    assert any(line.startswith("n1") and "default 0/5 paused" in line for line in lines)
    assert any(
        line.startswith("default") and "yes" in line and "1 available" in line for line in lines
    )
    found = json.loads(on("status", "--json").stdout)
    assert found["schema"] == prefix
    assert json.loads(on("status", "--json", "--name", "Other").stdout)["nodes"] == []


def test_status_names_missing_tables_or_a_missing_database(call: Say, postgres_dsn: str) -> None:
    said = call("status", "--dsn", postgres_dsn, "--prefix", "no_such", code=1).stderr
    assert "oban-sqla schema upgrade" in said
    assert said.count("\n") == 1
    said = call("status", "--dsn", "postgresql://localhost:1/app", code=1).stderr
    assert said.count("\n") == 1
    assert "OBAN_DSN" in call("status", code=2).stderr


@pytest.mark.parametrize("driver", ["pg8000", "psycopg2", "no_such"])
def test_a_driver_that_can_not_be_used_is_named(call: Say, driver: str) -> None:
    said = call("status", "--dsn", f"postgresql+{driver}://localhost/app", code=1).stderr
    assert "the DSN names a driver that can't be used" in said
    assert said.count("\n") == 1
