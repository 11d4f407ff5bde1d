"""How long an answer of the database may take."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A server that does not answer for so long is taken for lost: what waits for a lock waits anew.
ANSWER_TIMEOUT = 60.0
# What is granted for an answer that is wanted soon, however soon.
SHORTEST_ANSWER = 1.0
# What a stop spends on a database that does not answer.
FAREWELL = 5.0
# What is left for closing a connection that did not answer.
CLOSING = 1.0


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """`TimeoutError` for what takes longer, also when the server is silent.

    psycopg takes a first cancellation for a wish to cancel the statement, and waits for the
    server's word on that. It gives up at the second.
    """
    async with asyncio.timeout(seconds + CLOSING), asyncio.timeout(seconds):
        yield
