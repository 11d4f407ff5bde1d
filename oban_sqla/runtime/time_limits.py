"""Time limits for answers of the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Seconds after which a server that does not answer counts as lost.
ANSWER_TIMEOUT = 60.0
# The shortest limit, for answers that are needed soon.
SHORTEST_ANSWER = 1.0
# Seconds that a stop waits for a database that does not answer.
FAREWELL = 5.0
# Seconds for closing a connection that did not answer.
CLOSING = 1.0


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """`TimeoutError` if the block takes longer, even if the server does not answer.

    psycopg takes a first cancellation as a request to cancel the statement, and waits for the
    server. A second cancellation makes it give up.
    """
    async with asyncio.timeout(seconds + CLOSING), asyncio.timeout(seconds):
        yield
