"""The session of a test as SQLAlchemy recommends: joined to a connection that is rolled back."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from tests.databases import sync_engine


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with engine.connect() as connection, connection.begin() as outer:
        async with AsyncSession(
            connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as session:
            yield session
        await outer.rollback()


@pytest.fixture(params=["psycopg", "psycopg2"])
def sync_session(
    request: pytest.FixtureRequest, postgres_dsn: str, prefix: str
) -> Iterator[Session]:
    engine = sync_engine(postgres_dsn, prefix, request.param)
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        outer.rollback()
    engine.dispose()
