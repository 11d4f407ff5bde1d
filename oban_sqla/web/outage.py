"""What the pages say of a database that does not answer."""

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..errors import ObanError, sqlstate

OUTAGES = (DBAPIError, PoolTimeoutError, psycopg.Error, OSError, ObanError)
"""What a read raises if it is not for a mistake of ours."""
_STOPPED = "57014"


def explain(error: BaseException) -> tuple[str, str]:
    """A title and a text for an error. Not its own text, which may name hosts, users and values."""
    if sqlstate(error) == _STOPPED:
        return (
            "This took too long",
            "The database was stopped from looking further. Narrow the search: by a queue, a"
            " state, or newer:1h.",
        )
    if isinstance(error, ObanError) and not isinstance(error, DBAPIError):
        return "The tables can't be read", str(error)
    return (
        "The database does not answer",
        "The dashboard tries again by itself. `oban-sqla doctor` says more.",
    )
