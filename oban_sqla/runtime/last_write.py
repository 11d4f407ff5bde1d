"""Write to the database for the last time, when a service stops."""

from collections.abc import Awaitable, Callable

TRIES = 3


async def write_last(write: Callable[[], Awaitable[object]]) -> None:
    """Call `write` until it raises no error, at most `TRIES` times.

    The pool may have connections that were cut while they were unused. The second try goes through
    SQLAlchemy, which makes the engine drop all of them.
    """
    for tries in range(1, TRIES + 1):
        try:
            await write()
        except Exception:
            if tries == TRIES:
                raise
        else:
            return
