"""The log as JSON: one object per line, for any record."""

import json
import logging
import math
import sys
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla import JobState, Oban
from oban_sqla.contrib.json_log import JsonFormatter
from oban_sqla.events import AckStop, JobException, JobStop, ServiceFailed, emit
from tests.factories import JobFactory


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)  # type: ignore[no-any-return]


def record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    given = {"name": "app", "levelname": "INFO", "msg": message, "args": args, "created": 0.5}
    return logging.makeLogRecord({**given, **extra})


def test_a_record_of_any_logger_is_json() -> None:
    assert formatted(record("two\nlines of %s", "x\udce9")) == {
        "time": "1970-01-01T00:00:00.500000Z",
        "level": "info",
        "logger": "app",
        "message": "two\nlines of x\udce9",
    }


def test_attributes_given_as_extra_are_fields() -> None:
    line = formatted(record("m", order=7, level="mine", path=JsonFormatter))
    assert line["order"] == 7
    assert line["level"] == "info"
    assert "JsonFormatter" in line["path"]


def test_values_that_json_lacks_become_text() -> None:
    circle: list[Any] = []
    circle.append(circle)
    line = formatted(record("m", share=math.nan, circle=circle, order=7, odd={(1, 2): 3}))
    assert (line["share"], line["circle"], line["order"]) == ("nan", "[[...]]", 7)
    assert line["odd"] == "{(1, 2): 3}"


def test_an_exception_has_its_traceback() -> None:
    try:
        raise LookupError("boom")
    except LookupError:
        line = formatted(record("m", exc_info=sys.exc_info(), stack_info="Stack:"))
    assert line["exception"].endswith("LookupError: boom")
    assert line["exception"].startswith("Traceback")
    assert line["stack"] == "Stack:"


JOB = JobFactory(executing=True, worker="app.Work")
JOB.id = 7
OF_JOB = {"job_id": 7, "worker": "app.Work", "queue": "default", "attempt": 1, "max_attempts": 20}


@pytest.mark.parametrize(
    ("event", "data", "facts"),
    [
        (
            "job_stop",
            JobStop(JOB, JobState.COMPLETED, 0.5, 0.25),
            {"state": "completed", "duration": 0.5, "queue_time": 0.25, **OF_JOB},
        ),
        (
            "job_exception",
            JobException(JOB, JobState.RETRYABLE, 0.5, 0.25, ValueError("boom")),
            {"state": "retryable", "error": "ValueError: boom", **OF_JOB},
        ),
        ("ack_stop", AckStop("q", 2, (3, 4), 0.5), {"queue": "q", "dropped": [3, 4], "count": 2}),
        (
            "service_failed",
            ServiceFailed("stager", LookupError("gone")),
            {"service": "stager", "error": "LookupError: gone"},
        ),
    ],
)
def test_a_line_has_the_data_of_its_event(
    engine: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
    event: str,
    data: object,
    facts: dict[str, Any],
) -> None:
    caplog.set_level(logging.DEBUG, logger="oban_sqla")
    oban = Oban(engine, node="n1")
    emit(oban, event, data)
    (told,) = caplog.records
    line = formatted(told)
    assert facts.items() <= line.items()
    assert (line["event"], line["instance"], line["node"]) == (event, "Oban", "n1")
    caplog.clear()
