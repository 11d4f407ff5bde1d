"""An own database for each test, and the project's Alembic history for pytest-alembic."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import Connection, Engine

from oban_sqla.migrations.database import engine_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(database_dsn: str) -> Engine:
    return engine_for(database_dsn)


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def alembic_config() -> Config:
    return Config(toml_file=ROOT / "pyproject.toml")


@pytest.fixture
def alembic_engine(engine: Engine) -> Engine:
    return engine
