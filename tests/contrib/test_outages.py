"""An outage of the database is one line in the log of a node, and one line when it is over."""

import logging
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import Oban
from oban_sqla.contrib import outage_log
from oban_sqla.contrib.outages import is_outage
from oban_sqla.events import (
    NotifierLost,
    NotifierRestored,
    ServiceFailed,
    ServiceRestored,
    emit,
)
from tests.conftest import Tune
from tests.listening import timers

CUT = OperationalError("SELECT secret_statement", {}, psycopg.OperationalError("the wire is cut"))
REFUSED = ConnectionRefusedError(111, "connection refused")
BUG = DBAPIError("SELECT 1", {}, psycopg.errors.UndefinedColumn("no such column"))


@pytest.fixture
def oban(engine: AsyncEngine) -> Oban:
    return Oban(engine, node="n1")


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The lines from INFO on. Errors among them are expected."""
    caplog.set_level(logging.DEBUG, logger="oban_sqla")

    class Lines(list[str]):
        def __eq__(self, other: object) -> bool:
            return [r.message for r in caplog.records if r.levelno >= logging.INFO] == other

    yield Lines()
    caplog.get_records("call").clear()


def fail(oban: Oban, service: str, error: Exception) -> None:
    emit(oban, "service_failed", ServiceFailed(service, error))


def restore(oban: Oban, service: str) -> None:
    emit(oban, "service_restored", ServiceRestored(service))


BEGUN = (
    "Oban: node n1 can't use the database, trying again until it succeeds: producer a:"
    " the wire is cut"
)
OVER = "Oban: node n1 uses the database again, after 0 s"


class TestAnOutage:
    def test_is_one_line_however_many_services_fail(self, oban: Oban, lines: list[str]) -> None:
        fail(oban, "producer a", CUT)
        fail(oban, "producer b", REFUSED)
        fail(oban, "stager", PoolTimeoutError("QueuePool limit"))
        assert lines == [BEGUN]

    def test_has_its_details_at_debug(self, oban: Oban, caplog: pytest.LogCaptureFixture) -> None:
        fail(oban, "producer a", CUT)
        fail(oban, "producer b", REFUSED)
        details = [record for record in caplog.records if record.levelno == logging.DEBUG]
        assert [record.message for record in details] == [
            "Oban: producer a failed",
            "Oban: producer b failed",
        ]
        assert all(record.exc_info for record in details)
        assert "secret_statement" not in " ".join(
            record.message for record in caplog.records if record.levelno > logging.DEBUG
        )

    def test_is_over_when_all_services_work_again(self, oban: Oban, lines: list[str]) -> None:
        fail(oban, "producer a", CUT)
        fail(oban, "stager", REFUSED)
        restore(oban, "stager")
        fail(oban, "leader", REFUSED)
        restore(oban, "producer a")
        assert lines == [BEGUN]
        restore(oban, "leader")
        assert lines == [BEGUN, OVER]

    def test_can_happen_again(self, oban: Oban, lines: list[str]) -> None:
        for _ in range(2):
            fail(oban, "producer a", CUT)
            restore(oban, "producer a")
        assert lines == [BEGUN, OVER] * 2

    def test_a_restarted_node_begins_a_new_outage(self, oban: Oban, lines: list[str]) -> None:
        fail(oban, "producer a", CUT)
        fail(oban, "producer a", CUT)
        restore(oban, "producer a")
        assert lines == [BEGUN, BEGUN, OVER]

    def test_the_outage_of_each_node_is_reported(
        self, oban: Oban, engine: AsyncEngine, lines: list[str]
    ) -> None:
        other = Oban(engine, node="n2")
        fail(oban, "producer a", CUT)
        fail(other, "producer a", CUT)
        assert lines == [BEGUN, BEGUN.replace("n1", "n2")]

    def test_is_not_the_failure_of_a_single_service(self, oban: Oban, lines: list[str]) -> None:
        fail(oban, "producer a", CUT)
        fail(oban, "stager", BUG)
        restore(oban, "stager")
        assert lines == [
            BEGUN,
            "Oban: stager failed, trying again until it succeeds: no such column",
            "Oban: stager works again",
        ]


class TestNotifications:
    @pytest.fixture
    def patience(self, tune: Tune) -> None:
        tune(outage_log, PATIENCE=0.0)

    async def test_notifications_that_are_soon_back_are_not_logged(
        self, oban: Oban, lines: list[str]
    ) -> None:
        emit(oban, "notifier_lost", NotifierLost("cut", CUT))
        emit(oban, "notifier_restored", NotifierRestored())
        assert lines == []

    async def test_notifications_that_stay_lost_are_an_outage(
        self, oban: Oban, lines: list[str], patience: None
    ) -> None:
        emit(oban, "notifier_lost", NotifierLost("cut", CUT))
        await timers()
        fail(oban, "producer a", CUT)
        restore(oban, "producer a")
        emit(oban, "notifier_restored", NotifierRestored())
        assert lines == [BEGUN.replace("producer a", "notifier"), OVER]

    async def test_lost_notifications_are_part_of_the_outage_of_the_services(
        self, oban: Oban, lines: list[str], patience: None
    ) -> None:
        emit(oban, "notifier_lost", NotifierLost("cut", CUT))
        fail(oban, "producer a", CUT)
        await timers()
        emit(oban, "notifier_restored", NotifierRestored())
        restore(oban, "producer a")
        assert lines == [BEGUN, OVER]

    async def test_lost_notifications_of_another_server_are_logged_apart(
        self, oban: Oban, lines: list[str]
    ) -> None:
        emit(oban, "notifier_lost", NotifierLost("cut", CUT, direct=True))
        emit(oban, "notifier_restored", NotifierRestored())
        assert lines == [
            "Oban: notifications are lost, polling instead: cut",
            "Oban: notifications are back",
        ]


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (TimeoutError(), True),
        (CUT, True),
        (psycopg.errors.AdminShutdown("57P01"), True),
        (psycopg.errors.TooManyConnections("53300"), True),
        (DBAPIError("", {}, ConnectionError(), connection_invalidated=True), True),
        (BUG, False),
        (psycopg.errors.LockNotAvailable("55P03"), False),
        (ValueError("boom"), False),
    ],
)
def test_only_connection_errors_are_an_outage(error: Exception, outage: bool) -> None:
    assert is_outage(error) is outage
