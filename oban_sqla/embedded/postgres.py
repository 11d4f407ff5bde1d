"""`embedded_postgres()`: who uses a server, and when it starts and stops.

Whoever uses a cluster holds a shared `flock` on its data directory, and whoever can make that lock
exclusive is alone with it, so may start, configure and stop the server. The kernel drops the locks
of a killed process: nothing goes stale. A second lock, on the directory around it, lets one user
at a time come or go.
"""

import asyncio
import atexit
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import quote

from .cluster import PORT, Cluster, EmbeddedPostgresError

_SOCKET_PATH_LIMIT = 103  # bytes, on macOS; Linux allows 107


def embedded_postgres(
    directory: str | os.PathLike[str] | None = None,
    *,
    version: Literal[16, 18] = 18,
    settings: Mapping[str, str | int] | None = None,
) -> "EmbeddedPostgres":
    """Run a PostgreSQL for the time of a `with` or `async with` block, which gets its DSN::

        async with embedded_postgres("var/postgres", settings={"max_connections": 50}) as dsn:
            ...  # postgresql://postgres:@/postgres?host=...

    The DSN is a libpq URI: psycopg takes it as it is, SQLAlchemy with a driver named
    (`make_url(dsn).set(drivername="postgresql+psycopg")`). The server listens on a Unix socket
    in the data directory, which only the system user that runs it (and root) may enter: there is
    no password. A directory gives the same DSN each time, unless its path is too long for a socket.

    Blocks on one directory, in one process or in many, share one server, and the last to leave
    stops it. A killed process leaves it running, for the next block on the directory to take over.

    For root, the server runs as the owner of the data, which for new data is the system user
    `pgserver` (created when missing). That user has to reach its files: the directories above the
    data and above the installed server become traversable by all users (`chmod o+x`).

    Args:
        directory: keeps the data between runs, in its subdirectory `pgdata`, with the log in
            `pgdata/server.log`; created when missing, with its parents. None: a temporary
            directory, removed at the end.
        version: the major version of PostgreSQL.
        settings: server settings, as in `postgresql.conf`; an int is in the setting's own unit,
            a str may name one (`{"statement_timeout": "5s"}`). They hold until the server stops.
            None: the defaults, or, of a server that already runs, what it has.

    Raises:
        ValueError: at once: there is no such version, or a setting can't be given. The others come
            on entering the block.
        ModuleNotFoundError: the extra `embedded` is not installed.
        EmbeddedPostgresError: the data is of another version or another system user, the server
            already runs with other settings, or it does not start.
    """
    return EmbeddedPostgres(directory, version=version, settings=settings)


class EmbeddedPostgres:
    """What `embedded_postgres()` returns: a context manager, entered by one at a time."""

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        version: Literal[16, 18] = 18,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        if version not in (16, 18):
            raise ValueError(f"version: {version!r} is not one of 16, 18")
        self._directory = None if directory is None else Path(directory).expanduser()
        self._version = version
        self._settings = [_setting(name, value) for name, value in (settings or {}).items()]
        self._use: ExitStack | None = None
        self._pid = 0

    def __enter__(self) -> str:
        """Start the server, or join the one that runs; returns the DSN."""
        if self._use is not None:
            raise EmbeddedPostgresError(
                "this embedded_postgres() is already entered; call it again for another block"
            )
        with ExitStack() as use:
            directory = self._directory
            if directory is None:
                directory = Path(tempfile.mkdtemp(prefix="oban-postgres-"))
                use.callback(shutil.rmtree, directory, ignore_errors=True)
            cluster = Cluster(directory.resolve(), self._version)
            directory.mkdir(parents=True, exist_ok=True)
            with _turn(cluster):
                cluster.ensure_initialized(durable=self._directory is not None)
                cluster.check()
                users = os.open(cluster.data, os.O_RDONLY)
                use.callback(os.close, users)
                use.callback(self._leave, cluster, users)
                if _alone(users):
                    cluster.ensure_stopped()  # a killed process left it, with settings of its own
                    cluster.configure(self._settings)
                else:
                    cluster.check_settings(self._settings)
                cluster.ensure_started()
                fcntl.flock(users, fcntl.LOCK_SH)
            dsn = f"postgresql://postgres:@/postgres?host={quote(_host(cluster, use))}&port={PORT}"
            self._use, self._pid = use.pop_all(), os.getpid()
        atexit.register(self._exit_late)
        return dsn

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave the server, which stops when this was its last user."""
        use, self._use = self._use, None
        atexit.unregister(self._exit_late)
        if use is not None:
            use.close()

    async def __aenter__(self) -> str:
        """As `__enter__`, in a thread."""
        entering = asyncio.create_task(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread goes on: what it starts must be left again.
            await asyncio.wait([entering])
            await asyncio.to_thread(self.__exit__)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """As `__exit__`, in a thread."""
        await asyncio.to_thread(self.__exit__)

    def _leave(self, cluster: Cluster, users: int) -> None:
        with _turn(cluster):
            if _alone(users):
                cluster.ensure_stopped("immediate" if self._directory is None else "fast")
            fcntl.flock(
                users, fcntl.LOCK_UN
            )  # closing is not enough when a forked child has it too

    def _exit_late(self) -> None:
        if self._pid == os.getpid():  # a forked child also runs this, and the server is not its own
            self.__exit__()


@contextmanager
def _turn(cluster: Cluster) -> Iterator[None]:
    around = os.open(cluster.data.parent, os.O_RDONLY)
    try:
        fcntl.flock(around, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(around, fcntl.LOCK_UN)
        os.close(around)


def _alone(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _host(cluster: Cluster, use: ExitStack) -> str:
    path = str(cluster.data)
    if len(os.fsencode(f"{path}/.s.PGSQL.{PORT}")) <= _SOCKET_PATH_LIMIT and "," not in path:
        return path
    # libpq can't reach such a socket by its own name: the comma separates hosts there.
    link = Path(use.enter_context(tempfile.TemporaryDirectory(prefix="oban-")), "pgdata")
    link.symlink_to(path)
    return str(link)


def _setting(name: str, value: str | int) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
        raise ValueError(f"settings: {name!r} is not the name of a server setting")
    if name.lower() in ("port", "unix_socket_directories"):
        raise ValueError(f"settings: {name!r} is embedded_postgres's own; the DSN depends on it")
    if re.search(r"[\n\r\0]", text := str(value)):
        raise ValueError(f"settings: {name!r} can't have the value {value!r}: it is not one line")
    return "{} = '{}'".format(name.lower(), text.replace("\\", "\\\\").replace("'", "''"))
