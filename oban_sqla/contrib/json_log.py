"""The log as JSON: one object a line, with the facts that a record carries besides its message."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

# What every record has; the rest was given as `extra`.
_USUAL = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}

Correlation: TypeAlias = Callable[[], Mapping[str, str]]
"""What tells, where a record is formatted, to which trace it belongs."""

_correlation: Correlation | None = None


def correlate(correlation: Correlation | None) -> None:
    """Have each line carry what `correlation` tells; `None` for nothing more."""
    global _correlation
    _correlation = correlation


class JsonFormatter(logging.Formatter):
    """Each record as one line of JSON, of any logger::

        {"time": "2026-11-01T12:00:00.000000Z", "level": "info", "logger": "oban_sqla.jobs",
         "message": "job 7 (app.Work, attempt 1 of 20) failed, ...", "event": "job_exception",
         "job_id": 7, "worker": "app.Work", "queue": "default", "state": "retryable", ...}

    While jobs are traced, there are `trace_id` and `span_id`, too.
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
            # Somebody's extra that JSON has no word for, such as NaN.
            return json.dumps({name: _plain(value) for name, value in line.items()})


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | None) else repr(value)
