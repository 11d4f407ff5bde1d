"""The log: its wording and levels, for jobs and for incidents."""

import logging
from datetime import UTC, datetime

import asyncpg
import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import JobState, Oban
from oban_sqla.contrib import log
from oban_sqla.events import (
    AckStop,
    BackoffFailed,
    ClaimStop,
    ElectStop,
    GiveBackStop,
    JobDeadlineMissed,
    JobException,
    JobStop,
    JobUnconnected,
    NotifierLost,
    RescueStop,
    ServiceCancelled,
    ServiceFailed,
    ServiceRestored,
    WorkersUnfinished,
    emit,
)
from oban_sqla.models.job import tell_to_stop
from tests.factories import JobFactory

JOB = JobFactory(executing=True, worker="app.Work")
BOOM = ValueError("boom")
TOLD = JobFactory(executing=True, worker="app.Work")
tell_to_stop(TOLD)


@pytest.fixture
def oban(engine: AsyncEngine, caplog: pytest.LogCaptureFixture) -> Oban:
    caplog.set_level(logging.DEBUG, logger="oban_sqla")
    return Oban(engine)


@pytest.mark.parametrize(
    ("event", "data", "level", "words"),
    [
        ("job_stop", JobStop(JOB, JobState.COMPLETED, 0.1, 0.0), "DEBUG", "completed in 0.100 s"),
        ("job_stop", JobStop(JOB, JobState.SCHEDULED, 0.1, 0.0), "DEBUG", "snoozed"),
        ("job_stop", JobStop(JOB, JobState.CANCELLED, 0.1, 0.0), "INFO", "cancelled by its worker"),
        (
            "job_stop",
            JobStop(TOLD, JobState.CANCELLED, 0.1, 0.0),
            "INFO",
            "was cancelled on request after 0.100 s",
        ),
        (
            "job_exception",
            JobException(TOLD, JobState.CANCELLED, 0.1, 0.0, BOOM),
            "INFO",
            "failed, and is cancelled on request: ValueError: boom",
        ),
        (
            "job_unconnected",
            JobUnconnected(JOB, 3.0, BOOM),
            "WARNING",
            "got no connection for its session; the job is tried again in 3 s",
        ),
        (
            "job_exception",
            JobException(JOB, JobState.RETRYABLE, 0.1, 0.0, BOOM),
            "INFO",
            "(app.Work, attempt 1 of 20) failed, and will be tried again: ValueError: boom",
        ),
        (
            "job_exception",
            JobException(JOB, JobState.DISCARDED, 0.1, 0.0, BOOM),
            "ERROR",
            "failed for the last time, so it is discarded: ValueError: boom",
        ),
        (
            "job_deadline_missed",
            JobDeadlineMissed(JOB, datetime(2026, 11, 1, 12, tzinfo=UTC)),
            "INFO",
            "is cancelled: it had not begun by its deadline, 2026-11-01T12:00:00+00:00",
        ),
        (
            "job_exception",
            JobException(JOB, JobState.CANCELLED, 0.1, 0.0, BOOM),
            "INFO",
            "failed, and is cancelled: ValueError: boom",
        ),
        (
            "backoff_failed",
            BackoffFailed(JOB, 17.0, BOOM),
            "WARNING",
            "its backoff() failed, so the next attempt is in 17 s: ValueError: boom",
        ),
        (
            "workers_unfinished",
            WorkersUnfinished(("app.Work",)),
            "WARNING",
            "app.Work has no method process(self, job)",
        ),
        ("claim_stop", ClaimStop("q", 0, (7,), 0.1), "WARNING", "no attempt left: 7"),
        ("ack_stop", AckStop("q", 1, tuple(range(25)), 0.1), "WARNING", "19 and 5 more"),
        ("give_back_stop", GiveBackStop("q", (3, 4)), "WARNING", "gave back claimed jobs: 3, 4"),
        (
            "give_back_stop",
            GiveBackStop("q", (3, 4), held=(3, 4)),
            "DEBUG",
            "gave back jobs that had not started: 3, 4",
        ),
        ("elect_stop", ElectStop(True, True, 0.1), "INFO", "is the leader now"),
        ("elect_stop", ElectStop(False, True, 0.1), "INFO", "is not the leader any more"),
        ("rescue_stop", RescueStop((3, 4), (), (), 0.1), "WARNING", "nodes that died: 3, 4"),
        ("rescue_stop", RescueStop((), (3,), (), 0.1), "WARNING", "had no attempt left: 3"),
        ("rescue_stop", RescueStop((), (), (3,), 0.1), "INFO", "cancelled jobs of nodes that died"),
        ("notifier_lost", NotifierLost("cut"), "WARNING", "polling instead: cut"),
        ("service_failed", ServiceFailed("stager", BOOM), "ERROR", "stager failed, trying again"),
        ("service_restored", ServiceRestored("stager"), "INFO", "stager works again"),
        ("service_cancelled", ServiceCancelled("stager", 5.0), "WARNING", "within 5.0 s"),
    ],
)
def test_each_event_has_its_line(
    oban: Oban,
    caplog: pytest.LogCaptureFixture,
    event: str,
    data: object,
    level: str,
    words: str,
) -> None:
    emit(oban, event, data)
    (record,) = caplog.records
    assert record.levelname == level
    about_jobs = event.startswith(("job_", "backoff_"))
    assert record.name == ("oban_sqla.jobs" if about_jobs else "oban_sqla")
    assert words in record.getMessage()
    caplog.clear()


@pytest.mark.parametrize(
    "error", [psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement]
)
def test_behind_a_pooler_the_log_advises_a_listen_dsn(
    oban: Oban, caplog: pytest.LogCaptureFixture, error: type[psycopg.Error]
) -> None:
    wrapped = DBAPIError("SELECT 1", {}, error('prepared statement "_pg3_0"'))
    emit(oban, "service_failed", ServiceFailed("stager", wrapped))
    assert "?prepare_threshold=none" in caplog.text
    caplog.clear()


def test_behind_a_pooler_the_log_advises_how_to_set_up_asyncpg(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    error = asyncpg.exceptions.DuplicatePreparedStatementError("__asyncpg_stmt_1__")
    emit(oban, "service_failed", ServiceFailed("stager", error))
    assert "prepared_statement_name_func" in caplog.text
    assert "psycopg" not in caplog.text
    caplog.clear()


def test_an_event_without_a_result_has_no_line(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    emit(oban, "claim_stop", ClaimStop("q", 0, (), 0.1))
    emit(oban, "ack_stop", AckStop("q", 5, (), 0.1))
    emit(oban, "elect_stop", ElectStop(True, False, 0.1))
    emit(oban, "rescue_stop", RescueStop((), (), (), 0.1))
    assert caplog.records == []


def test_the_log_can_be_detached_and_attached_again(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    log.detach()
    emit(oban, "service_restored", ServiceRestored("stager"))
    assert caplog.records == []
    log.attach()
    log.attach()
    emit(oban, "service_restored", ServiceRestored("stager"))
    assert len(caplog.records) == 1
