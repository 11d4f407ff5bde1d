"""What the user sees when something fails: one line, and exit code 1."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from ..errors import ObanError

logger = logging.getLogger("oban_sqla")


def fail(message: str) -> NoReturn:
    """Say what is wrong in one line, and exit with 1; `--log-level debug` shows the traceback."""
    logger.debug("failed", exc_info=True)
    typer.echo(f"oban-sqla: {' '.join(message.split())}", err=True)
    raise typer.Exit(1)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Tell the failures that a user can mend; the others are bugs, and keep their tracebacks."""
    try:
        yield
    except DBAPIError as error:
        fail(str(error.orig))
    except (ObanError, ValueError, OSError, ModuleNotFoundError) as error:
        fail(str(error))
