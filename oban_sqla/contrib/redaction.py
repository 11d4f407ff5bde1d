"""Hide the parameters of SQL statements in errors that are sent to other systems."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import StatementError


@contextmanager
def parameters_hidden(error: BaseException) -> Iterator[None]:
    """During a block, hide the parameters of statements in an error and its causes."""
    shown = [one for one in _chain(error) if isinstance(one, StatementError)]
    shown = [one for one in shown if not one.hide_parameters]
    for one in shown:
        one.hide_parameters = True
    try:
        yield
    finally:
        for one in shown:
            one.hide_parameters = False


def _chain(error: BaseException) -> Iterator[BaseException]:
    left: list[BaseException] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [other for other in (one.__cause__, one.__context__) if other is not None]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
