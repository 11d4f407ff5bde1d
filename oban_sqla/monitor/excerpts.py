"""Cut long columns of jobs in SQL, so that a list of jobs does not read megabytes."""

from typing import Any

from sqlalchemy import ColumnElement, Text, case, cast, func, literal

from ..models import Job

LONGEST_ARGS = 2_000
"""The most characters of arguments in a list."""
ERROR_END = 3_000
"""The most characters of an error that are read, from its end, which names the exception."""
# Bytes of a stored column. A longer one is not read: cutting it takes as long as reading it.
_STORED = 50_000
_TOO_LONG = "(too long for a list)"


class Excerpt(str):
    """The beginning of a JSON text that is too long for a list."""

    __slots__ = ()


def args_excerpt() -> ColumnElement[Any]:
    """The arguments as text, up to `LONGEST_ARGS` + 1 characters."""
    text = func.left(cast(Job.args, Text), LONGEST_ARGS + 1)
    return _unless_long(Job.args, text).label("args")


def error_excerpt() -> ColumnElement[Any]:
    """The end of the last error."""
    text = func.right(Job.errors[-1]["error"].astext, ERROR_END)
    return _unless_long(Job.errors, text).label("error")


def cut_args(text: str) -> Excerpt | None:
    """The excerpt of arguments that were cut; `None` if the text is whole."""
    return Excerpt(text) if len(text) > LONGEST_ARGS or text == _TOO_LONG else None


def _unless_long(column: Any, text: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((func.pg_column_size(column) > _STORED, literal(_TOO_LONG, Text)), else_=text)
