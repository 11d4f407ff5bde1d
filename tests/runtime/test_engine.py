"""`with_own_pool()`: a copy of an engine for another event loop, or for LISTEN."""

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from oban_sqla.runtime.engine import with_own_pool


async def test_a_copy_shares_the_dialect_and_the_events_of_its_engine(
    engine: AsyncEngine,
) -> None:
    connections = []
    event.listen(engine.sync_engine, "connect", lambda driver, record: connections.append(driver))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    copy = with_own_pool(engine)
    try:
        assert copy.dialect is engine.dialect  # a new dialect would send five statements
        async with copy.connect() as connection:
            await connection.execute(text("SELECT 1"))
        assert len(connections) == 2
    finally:
        await copy.dispose()
