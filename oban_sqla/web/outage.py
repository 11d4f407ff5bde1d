"""The message of the pages if the database does not answer."""

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..errors import ObanError, sqlstate

OUTAGES = (DBAPIError, PoolTimeoutError, psycopg.Error, OSError, ObanError)
"""The errors that a database or a network causes."""
_STOPPED = "57014"


def explain(error: BaseException) -> tuple[str, str]:
    """A title and a text for an error, without its message, which may name hosts and users."""
    if sqlstate(error) == _STOPPED:
        return (
            "This took too long",
            "The database stopped the search after its time limit. Narrow the search: by a queue, a"
            " state, or newer:1h.",
        )
    if isinstance(error, ObanError) and not isinstance(error, DBAPIError):
        return "The tables can't be read", str(error)
    return (
        "The database does not answer",
        "The dashboard tries again by itself. `oban-sqla doctor` says more.",
    )
