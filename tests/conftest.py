"""What all tests share: one PostgreSQL per run, also when pytest-xdist spreads the run."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oban_sqla.embedded import embedded_postgres


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    # Not pytest's tmp_path: a later run takes away the permissions that the server's user needs.
    directory = tempfile.mkdtemp(prefix="oban-tests-")
    os.environ["OBAN_TEST_DIRECTORY"] = directory  # the workers of pytest-xdist inherit it
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """The run's PostgreSQL: OBAN_TEST_DSN, or an embedded one of the version OBAN_TEST_POSTGRES."""
    if dsn := os.environ.get("OBAN_TEST_DSN"):
        yield dsn
        return
    with embedded_postgres(
        Path(os.environ["OBAN_TEST_DIRECTORY"], "postgres"),
        version=int(os.environ.get("OBAN_TEST_POSTGRES", "18")),  # type: ignore[arg-type]
        settings={
            "max_connections": 400,
            "max_prepared_transactions": 50,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
        },
    ) as dsn:
        yield dsn
