"""`python -m examples.fastapi_app`: start a PostgreSQL, install the tables, and serve the shop."""

import argparse
import logging
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from alembic import command
from alembic.config import Config
from sqlalchemy import make_url

from oban_sqla.embedded import embedded_postgres


def main(dsn: str | None, port: int) -> None:
    with ExitStack() as stack:
        if dsn is None:
            dsn = stack.enter_context(embedded_postgres())
            print(f"PostgreSQL is up: {dsn}", flush=True)
        url = make_url(dsn).set(drivername="postgresql+psycopg")
        os.environ["DATABASE_URL"] = url.render_as_string(hide_password=False)
        command.upgrade(Config(Path(__file__).parent / "alembic.ini"), "head")
        uvicorn.run("examples.fastapi_app.app:app", port=port)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m examples.fastapi_app", description=__doc__)
    parser.add_argument(
        "--dsn",
        default=os.environ.get("DATABASE_URL"),
        help="use this database, instead of one brought along; else DATABASE_URL",
    )
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    # Otherwise uvicorn would end the process before the PostgreSQL is stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    main(given.dsn, given.port)
