"""Print failures for the user: one line for each failure, and exit code 1."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from ..dsn import hide_passwords
from ..errors import ConfigError, ObanError

logger = logging.getLogger("oban_sqla")


def fail(*messages: str) -> NoReturn:
    """Print each message on a line, and exit with 1. `--log-level debug` shows the traceback."""
    if sys.exc_info()[0] is not None:
        logger.debug("failed", exc_info=True)
    for message in messages:
        warn(message)
    raise typer.Exit(1)


def warn(message: str) -> None:
    """Print a message on one line to stderr."""
    typer.echo(f"oban-sqla: {hide_passwords(' '.join(message.split()))}", err=True)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Print errors that a user can fix as one line. Other errors are bugs, and keep tracebacks."""
    try:
        yield
    except DBAPIError as error:
        # The rest is where PostgreSQL was in the statement, such as a line of a function.
        fail(str(error.orig).partition("\nCONTEXT:")[0])
    except ConfigError as error:
        fail(*(complaint for _, complaint in error.complaints))
    except TimeoutError as error:
        fail(str(error) or "the database does not answer")
    except (ObanError, ValueError, OSError, ModuleNotFoundError) as error:
        fail(str(error))
