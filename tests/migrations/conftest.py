"""A database of its own for each test, and the project's own Alembic history for pytest-alembic."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.config import Config
from sqlalchemy import Connection, Engine, make_url, text

from oban_sqla.migrations.database import engine_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def database_dsn(postgres_dsn: str) -> Iterator[str]:
    """An empty database, dropped in the end."""
    name = f"migrations_{uuid4().hex}"
    server = engine_for(postgres_dsn).execution_options(isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(postgres_dsn).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name}"))  # fails when a connection was left open


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
