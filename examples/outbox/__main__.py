"""`python -m examples.outbox`: start a PostgreSQL and the server of a partner, and serve."""

import argparse
import os
import signal
import sys
from contextlib import ExitStack

import uvicorn
from sqlalchemy import create_engine, make_url

from examples.outbox.models import Base
from examples.outbox.partner import partner
from oban_sqla.embedded import embedded_postgres
from oban_sqla.migrations import upgrade


def main(dsn: str | None, webhook: str | None, port: int) -> None:
    with ExitStack() as stack:
        url = make_url(dsn or stack.enter_context(embedded_postgres()))
        url = url.set(drivername="postgresql+psycopg")
        engine = create_engine(url)
        with engine.begin() as connection:
            upgrade(connection)
            Base.metadata.create_all(connection)
        engine.dispose()
        os.environ["DATABASE_URL"] = url.render_as_string(hide_password=False)
        os.environ["WEBHOOK"] = webhook or stack.enter_context(partner())
        uvicorn.run("examples.outbox.app:app", port=port)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m examples.outbox", description=__doc__)
    parser.add_argument(
        "--dsn",
        default=os.environ.get("DATABASE_URL"),
        help="use this database, instead of one brought along; else DATABASE_URL",
    )
    parser.add_argument("--webhook", help="tell this URL, instead of a partner brought along")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    # Otherwise uvicorn would end the process before the PostgreSQL is stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    main(given.dsn, given.webhook, given.port)
