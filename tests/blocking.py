"""Wait until one connection waits for another one, instead of sleeping."""

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from tests.runtime.conftest import until


async def pid_of(connection: AsyncConnection | AsyncSession) -> int:
    """The server process of a connection."""
    pid = await connection.scalar(select(func.pg_backend_pid()))
    assert pid is not None
    return pid


async def until_blocked(engine: AsyncEngine, pid: int) -> None:
    """Wait until the connection of this process waits for a lock of another one."""
    blockers = select(func.cardinality(func.pg_blocking_pids(pid)))
    async with engine.connect() as watching:

        async def is_blocked() -> bool:
            return bool(await watching.scalar(blockers))

        await until(is_blocked)


async def until_blocking(holder: AsyncConnection | AsyncSession) -> None:
    """Wait until another connection waits for a lock of this one.

    A search for any lock that is waited for would find those of other tests on the same server.
    """
    blocks = text(
        "SELECT EXISTS (SELECT FROM pg_locks"
        " WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
    )

    async def is_blocking() -> bool:
        return bool(await holder.scalar(blocks))

    await until(is_blocking)
