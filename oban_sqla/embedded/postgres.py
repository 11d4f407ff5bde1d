"""`embedded_postgres()`: share a server between its users, and start and stop it for them.

Each user of a cluster holds a shared `flock` on its data directory. A user that can make the lock
exclusive is the only one, and may start, configure and stop the server. The kernel drops the locks
of a killed process, so no lock gets stale. A second lock, on the parent directory, lets users enter
and leave one at a time.
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

    The DSN is a libpq URI for psycopg. SQLAlchemy also needs the name of the driver
    (`make_url(dsn).set(drivername="postgresql+psycopg")`). The server listens on a Unix socket
    in the data directory, and has no password: only its system user and root may enter the
    directory. A directory has the same DSN each time, unless its path is too long for a socket.

    Blocks on one directory, in one process or in many, share one server. The last block that ends
    stops the server. If a process is killed, its server keeps running, and the next block on the
    directory takes it over.

    If root starts the server, it runs as the owner of the data. New data belongs to the system user
    `pgserver`, which is created if it is missing. That user must reach its files: the directories
    above the data and above the installed server become traversable by all users (`chmod o+x`).

    Args:
        directory: keeps the data between runs, in its subdirectory `pgdata`, with the log in
            `pgdata/server.log`. The directory and its parents are created if they are missing.
            None: a temporary directory, removed at the end.
        version: the major version of PostgreSQL.
        settings: server settings, as in `postgresql.conf`. An int is in the setting's own unit, a
            str may contain a unit (`{"statement_timeout": "5s"}`). They apply until the server
            stops. None: the defaults, or the settings of a server that already runs.

    Raises:
        ValueError: raised by the call: the version is unknown, or a setting is invalid. All other
            errors are raised on entering the block.
        ModuleNotFoundError: the extra `embedded` is not installed.
        EmbeddedPostgresError: the data is of another version or another system user, the server
            already runs with other settings, or it does not start.
    """
    return EmbeddedPostgres(directory, version=version, settings=settings)


class EmbeddedPostgres:
    """The context manager that `embedded_postgres()` returns. One block at a time may enter it."""

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
        """Start the server, or join the running server. Returns the DSN."""
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
                    cluster.ensure_stopped()  # a killed process left it, with other settings
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
        """Leave the server. The server stops if this was its last user."""
        use, self._use = self._use, None
        atexit.unregister(self._exit_late)
        if use is not None:
            use.close()

    async def __aenter__(self) -> str:
        """Run `__enter__` in a thread."""
        entering = asyncio.create_task(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread goes on: wait for it, and leave the server that it has entered.
            await asyncio.wait([entering])
            await asyncio.to_thread(self.__exit__)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Run `__exit__` in a thread."""
        await asyncio.to_thread(self.__exit__)

    def _leave(self, cluster: Cluster, users: int) -> None:
        with _turn(cluster):
            if _alone(users):
                cluster.ensure_stopped("immediate" if self._directory is None else "fast")
            # Closing would not unlock it if a forked child has the descriptor, too.
            fcntl.flock(users, fcntl.LOCK_UN)

    def _exit_late(self) -> None:
        if self._pid == os.getpid():  # not in a forked child, which also runs this
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
    # The path is too long for a socket, or has a comma, which separates hosts in a DSN.
    link = Path(use.enter_context(tempfile.TemporaryDirectory(prefix="oban-")), "pgdata")
    link.symlink_to(path)
    return str(link)


def _setting(name: str, value: str | int) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name):
        raise ValueError(f"settings: {name!r} is not the name of a server setting")
    if name.lower() in ("port", "unix_socket_directories"):
        raise ValueError(f"settings: embedded_postgres sets {name!r}; the DSN depends on it")
    if re.search(r"[\n\r\0]", text := str(value)):
        raise ValueError(f"settings: {name!r} can't have the value {value!r}: it is not one line")
    return "{} = '{}'".format(name.lower(), text.replace("\\", "\\\\").replace("'", "''"))
