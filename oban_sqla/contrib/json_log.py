"""Log records as JSON: one object per line, with the message and the attributes of the record."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

# The attributes of every record. All other attributes were passed as `extra`.
_USUAL = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}

Correlation: TypeAlias = Callable[[], Mapping[str, str]]
"""Returns the ids of the current trace, for a record that is formatted now."""

_correlation: Correlation | None = None


def correlate(correlation: Correlation | None) -> None:
    """Add the result of `correlation` to each line; `None` turns that off."""
    global _correlation
    _correlation = correlation


class JsonFormatter(logging.Formatter):
    """Format the records of any logger as one line of JSON each::

        {"time": "2026-11-01T12:00:00.000000Z", "level": "info", "logger": "oban_sqla.jobs",
         "message": "job 7 (app.Work, attempt 1 of 20) failed, ...", "event": "job_exception",
         "job_id": 7, "worker": "app.Work", "queue": "default", "state": "retryable", ...}

    While jobs are traced, each line also has `trace_id` and `span_id`.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if _correlation is not None:
            line |= _correlation()
        for name, value in vars(record).items():
            if name not in _USUAL:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        try:
            return json.dumps(line, default=str, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            # An `extra` has a value that JSON can't express, such as NaN.
            return json.dumps({name: _plain(value) for name, value in line.items()})


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | None) else repr(value)
