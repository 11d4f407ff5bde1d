"""The engine, and the session of a request."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from examples.fastapi_app.settings import settings

engine = create_async_engine(settings.database_url, pool_size=20)
Session = async_sessionmaker(engine, expire_on_commit=False)


async def session() -> AsyncIterator[AsyncSession]:
    async with Session() as session:
        yield session


RequestSession = Annotated[AsyncSession, Depends(session)]
