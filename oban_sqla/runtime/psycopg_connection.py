"""`psycopg_connection`: a connection of psycopg for users, from the engine's pool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from ..errors import ObanError
from .database import Database


@asynccontextmanager
async def psycopg_connection(database: Database) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection of psycopg; `ObanError` for another driver.

    An open transaction is committed at the end, or rolled back after an exception.
    """
    async with database.home.engine(database.engine) as engine, engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        if not isinstance(driver, psycopg.AsyncConnection):
            raise ObanError(
                f"connection() gives a psycopg connection, but the engine's driver is"
                f" {database.engine.dialect.driver}: use postgresql+psycopg:// in its URL"
            )
        try:
            yield driver
        except BaseException:
            await driver.rollback()
            raise
        await driver.commit()
