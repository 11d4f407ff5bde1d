"""A migration that waits blocks no other transaction, names the one it waits for, and gives up."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from oban_sqla import ObanError
from oban_sqla.migrations import LATEST, current, downgrade, upgrade

ENQUEUE = text("INSERT INTO oban_jobs (worker) VALUES ('w')")
REPORT = text("SELECT count(*) FROM oban_jobs")
Change = Callable[..., Any]


def up(connection: Connection, **options: Any) -> list[int]:
    return upgrade(connection, **options)


def down(connection: Connection, **options: Any) -> list[int]:
    return downgrade(connection, 3, **options)


def drop(connection: Connection, **options: Any) -> list[int]:
    return downgrade(connection, 0, **options)


@pytest.fixture(autouse=True)
def installed(engine: Engine) -> None:
    with engine.begin() as connection:
        upgrade(connection, version=4)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


@contextmanager
def using_the_tables(engine: Engine, statement: Any) -> Iterator[Connection]:
    """An open transaction that uses the tables."""
    with engine.connect() as connection:
        connection.execute(text("SET application_name = 'reports'"))
        connection.execute(statement)
        yield connection
        connection.rollback()


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.WARNING]


def in_background(threads: ThreadPoolExecutor, engine: Engine, change: Change) -> Future[Any]:
    def run() -> Any:
        with engine.begin() as connection:
            return change(connection)

    return threads.submit(run)


@pytest.mark.parametrize("change", [up, down, drop])
@pytest.mark.parametrize("statement", [REPORT, ENQUEUE], ids=["report", "writer"])
def test_enqueues_do_not_wait_behind_a_waiting_upgrade(
    engine: Engine,
    threads: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
    statement: Any,
    change: Change,
) -> None:
    with using_the_tables(engine, statement) as user:
        pid = user.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        changing = in_background(threads, engine, change)
        with engine.connect() as connection:
            longest = 0.0
            while not (records := said(caplog)):
                began = time.monotonic()
                connection.execute(ENQUEUE)
                connection.commit()
                longest = max(longest, time.monotonic() - began)
                time.sleep(0.01)
        assert longest < 10.0  # behind the upgrade it would be until the user ends
        assert not changing.done()
    assert changing.result()
    message = records[0].getMessage()
    assert "waiting for a lock on the tables of oban_sqla" in message
    assert (
        f"process {pid} (postgres, reports, idle in transaction) has held the lock for" in message
    )
    assert str(statement) in message


@pytest.mark.parametrize("change", [up, down, drop])
def test_an_upgrade_that_gives_up_changes_nothing(engine: Engine, change: Change) -> None:
    with using_the_tables(engine, REPORT), engine.connect() as connection:
        with pytest.raises(ObanError, match=r"waited 0.3 s for a lock .* process .*reports"):
            change(connection, wait=0.3)
        connection.rollback()
        assert current(connection) == 4
    with engine.begin() as connection:  # and it can be called again
        assert change(connection)


def test_an_upgrade_names_another_migration_that_it_waits_for(engine: Engine) -> None:
    with engine.connect() as first, engine.connect() as second:
        upgrade(first)
        with pytest.raises(ObanError, match=r"another migration of oban_sqla to end.* process "):
            upgrade(second, wait=0.3)


def test_an_upgrade_names_a_prepared_transaction_that_it_waits_for(engine: Engine) -> None:
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        for statement in ("BEGIN", str(ENQUEUE), "PREPARE TRANSACTION 'o''k'"):
            connection.execute(text(statement))
    refused = pytest.raises(ObanError, match="transaction 'o''k' holds the lock: ROLLBACK PREPARED")
    with engine.connect() as connection, refused:
        upgrade(connection, wait=0.2)
    with autocommit.connect() as connection:
        connection.execute(text("ROLLBACK PREPARED 'o''k'"))


def test_an_upgrade_restores_the_lock_timeout(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '7s'"))
        upgrade(connection)
        assert connection.scalar(text("SHOW lock_timeout")) == "7s"
        assert downgrade(connection, 0)
        assert connection.scalar(text("SHOW lock_timeout")) == "7s"


def test_an_upgrade_works_in_autocommit(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert upgrade(connection) == [*range(5, LATEST + 1)]
