"""PgBouncer in transaction mode, between the tests and their PostgreSQL."""

import asyncio
import os
import shutil
import socket
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, Self

from psycopg.conninfo import conninfo_to_dict

# Debian installs PgBouncer where only root finds it.
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
PATIENCE = 20.0

# So few server connections that clients often get one that another client had before.
SETTINGS = """\
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
server_round_robin = 1
log_connections = 0
log_disconnections = 0
log_pooler_errors = 0
log_stats = 0
"""


class PgBouncer:
    """Lends one of `pool_size` server connections to each transaction of its clients."""

    def __init__(self, server_dsn: str, *, pool_size: int = 3) -> None:
        self._server = {key: str(value) for key, value in conninfo_to_dict(server_dsn).items()}
        self._pool_size = pool_size
        self._port = 0
        self._process: Process | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="oban-pgbouncer-")

    @property
    def dsn(self) -> str:
        return f"postgresql://pooled:@127.0.0.1:{self._port}/{self._server.get('dbname', '')}"

    async def __aenter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()
        self._directory.cleanup()

    async def start(self) -> None:
        """Start PgBouncer, also again on the same port."""
        assert PROGRAM is not None
        settings = self._write_settings()
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, settings, stderr=PIPE, **self._user(settings)
        )
        async with asyncio.timeout(PATIENCE):
            assert self._process.stderr is not None
            said = []
            while "process up" not in "".join(said[-1:]):
                said.append((await self._process.stderr.readline()).decode())
                assert said[-1], "".join(said)

    async def stop(self) -> None:
        """Stop PgBouncer at once, with clients still connected."""
        assert self._process is not None
        self._process.terminate()
        await self._process.communicate()

    def _write_settings(self) -> Path:
        known = {
            key: self._server[key] for key in ("host", "port", "password") if key in self._server
        }
        known["user"] = self._server.get("user", "postgres")
        server = " ".join(f"{key}='{value}'" for key, value in known.items())
        settings = Path(self._directory.name, "pgbouncer.ini")
        settings.write_text(
            SETTINGS.format(server=server, port=self._port, pool_size=self._pool_size)
        )
        return settings

    def _user(self, settings: Path) -> dict[str, Any]:
        """PgBouncer refuses to run as root, so it runs as the owner of the server's socket."""
        if os.geteuid() != 0:
            return {}
        host = self._server.get("host", "")
        owner = os.stat(host) if host.startswith("/") else None
        user, group = (owner.st_uid, owner.st_gid) if owner and owner.st_uid else (65534, 65534)
        for path in (settings.parent, settings):
            os.chown(path, user, group)
        return {"user": user, "group": group, "extra_groups": []}
