"""Series: a generator that yields statements, receives the rows of each, and returns a result."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, TypeAlias, TypeVar

Statement = TypeVar("Statement")
Result = TypeVar("Result")

Series: TypeAlias = Generator[Statement, Sequence[Any], Result]


def run_series(
    series: Series[Statement, Result], execute: Callable[[Statement], Sequence[Any]]
) -> Result:
    """Execute the statements one after the other, and return the result."""
    try:
        statement = next(series)
        while True:
            statement = series.send(execute(statement))
    except StopIteration as end:
        result: Result = end.value
        return result


async def run_series_async(
    series: Series[Statement, Result], execute: Callable[[Statement], Awaitable[Sequence[Any]]]
) -> Result:
    """`run_series` with an async `execute`."""
    try:
        statement = next(series)
        while True:
            statement = series.send(await execute(statement))
    except StopIteration as end:
        result: Result = end.value
        return result
