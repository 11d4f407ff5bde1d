"""`oban-sqla top`."""

import psycopg

from tests.cli.conftest import Say


def test_top_shows_the_queues_and_the_running_jobs(on: Say, postgres_dsn: str, prefix: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        for state, queue in [("available", "mail"), ("executing", "mail"), ("retryable", "other")]:
            connection.execute(
                f"INSERT INTO {prefix}.oban_jobs (worker, state, queue, attempt)"
                " VALUES ('app.[red]Work', %s, %s, 1)",
                [state, queue],
            )
    lines = [line.split() for line in on("top", "--once", "--every", "0.2").stdout.splitlines()]
    assert ["queue", "nodes", "running", "available", "scheduled", "retryable", "ended/s"] in [
        line[:7] for line in lines
    ]
    assert ["mail", "0", "0/0", "1", "0.0"] in [line[:5] for line in lines]
    assert ["2", "mail", "app.[red]Work", "1/20"] in lines
