"""`python -m examples.flask_app`: start a PostgreSQL, a web process and a worker process."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import make_url

from oban_sqla.embedded import embedded_postgres

HERE = Path(__file__).parent


def main(dsn: str | None, port: int) -> None:
    with ExitStack() as stack:
        if dsn is None:
            dsn = stack.enter_context(embedded_postgres())
            print(f"PostgreSQL is up: {dsn}", flush=True)
        url = make_url(dsn).set(drivername="postgresql+psycopg")
        os.environ["DATABASE_URL"] = os.environ["OBAN_DSN"] = url.render_as_string(False)
        command.upgrade(Config(HERE / "alembic.ini"), "head")
        worker = ["oban_sqla.cli", "start", "--config", str(HERE / "oban.toml")]
        web = ["flask", "--app", "examples.flask_app.app", "run", "--port", str(port)]
        stack.enter_context(running(worker))
        stack.enter_context(running(web)).wait()


@contextmanager
def running(module: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run another process, and stop it at the end of the block."""
    # Ctrl-C signals a whole group of processes; only this function may stop the process.
    process = subprocess.Popen([sys.executable, "-m", *module], process_group=0)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m examples.flask_app", description=__doc__)
    parser.add_argument(
        "--dsn",
        default=os.environ.get("DATABASE_URL"),
        help="use this database, instead of one brought along; else DATABASE_URL",
    )
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    # Otherwise SIGTERM would end this process before it stops the two others.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    try:
        main(given.dsn, given.port)
    except KeyboardInterrupt:
        sys.exit("interrupted")
